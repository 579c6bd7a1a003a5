"""Write what the laboratory's README says of trained models, from the numbers of their results files.

python -m attention_lab.prose            # rewrite the README between its marks
python -m attention_lab.prose --check    # exit 1 if the README does not say what the results say
"""

import argparse
import json
import sys
import textwrap
from pathlib import Path

from evaluation.tables import percent as to_a_tenth
from evaluation.tables import replace_section

LAB = Path(__file__).parent
README = LAB / "README.md"
RESULTS = LAB / "results" / "quickstart.json"
CHOICES = LAB.parent / "benchmarks" / "results" / "block_choice.cpu.json"
CHOSEN = 8  # blocks, as many as `selected` chooses by default
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def percent(fraction: float) -> str:
    """Write a fraction as a whole percentage."""
    return f"{100 * fraction:.0f} %"


def wrap(text: str) -> str:
    """Break the lines of paragraphs and list items at 119 characters."""
    width = {"width": 119, "break_long_words": False, "break_on_hyphens": False}
    return "\n".join(
        textwrap.fill(line, subsequent_indent="  " if line.startswith("- ") else "", **width)
        for line in text.splitlines()
    )


def name_head(head: dict) -> str:
    """Return a head's name, LAYER.HEAD."""
    return f"{head['layer']}.{head['head']}"


def describe_heads(record: dict) -> str:
    """Return the list of (f): which heads copy the name, what they do for each other, and which are missed most."""
    found = record["heads"]
    heads = found["heads"]  # those missed most come first
    copying = [head for head in heads if [head["layer"], head["head"]] in found["copying"]]
    shares = sorted(head["name"] for head in copying)
    losses = sorted(-head["change"] for head in copying)
    together = -found["change_without_copying"]
    count = NUMBERS[len(copying)]
    first = heads[0]
    before = first["change_at_answer"] - first["change"]
    return (
        f"- **{count.capitalize()} heads copy**: {', '.join(map(name_head, copying))} put {percent(shares[0])} to "
        f"{percent(shares[-1])} of their weight on the name, where looking at all tokens alike would give "
        f"{percent(first['uniform'])}.\n"
        f"- **They replace each other.** Without any one of them the answer loses {losses[0]:.2f} to "
        f"{losses[-1]:.2f} nats, without all {count} {together:.1f}, which is {together / sum(losses):.1f} times the "
        "sum of these.\n"
        f"- **The head missed most is {name_head(first)}**, with {percent(first['name'])} of its weight on the name: "
        f"without it the answer loses {-first['change']:.1f} nats, {before:.1f} of them at tokens before the answer. "
        "A look at α alone would not have found it.\n"
    )


def describe_key_norms(record: dict) -> str:
    """Return the paragraph of (f) about the length of keys."""
    heads = record["heads"]["heads"]
    raw = sorted(head["raw_spread"] for head in heads)
    used = sorted(head["spread"] for head in heads)
    return (
        f"**Key norms.** (c) warns of keys whose length varies, by √½ = 71 % there. In this model they vary by "
        f"{percent(raw[0])} to {percent(raw[-1])} before QK-norm, and by {percent(used[0])} to {percent(used[-1])} as "
        "used: what is left is the norm's learned gain "
        "(`test_spread_of_key_norms`, `test_queries_and_keys_are_those_of_the_weights`).\n"
    )


def describe_structure(record: dict) -> str:
    """Return the list of (g): how near low rank, BigBird's pattern and Performer's features come."""
    found = record["structure"]
    ranks = dict(zip(found["ranks"], found["low_rank_error"], strict=True))
    far = dict(zip(found["ranks"], found["far_low_rank_error"], strict=True))
    singular = sum(found["effective_rank"]) / len(found["effective_rank"])
    errors = [found["performer_error"][kind][-1] for kind in ("orthogonal", "independent")]
    return (
        f"- **Low rank.** The whole matrix is not of low rank: on average {singular:.0f} of {found['tokens']} "
        f"singular values have 90 % of their sum, and the best matrix of rank 8 is {percent(ranks[8])} off "
        "(`test_spectrum_and_low_rank_error_are_numpys`, `test_no_matrix_of_a_rank_comes_nearer`). "
        "But what is of high rank is near: with a query's own segment of 8 tokens and the one before it read exactly, "
        f"as the causal Linformer does, rank 8 for the rest is {percent(far[8])} off, rank 1 {percent(far[1])}.\n"
        f"- **Sparse.** BigBird's pattern (blocks of 4, as in `quickstart-bigbird`) has "
        f"{percent(found['bigbird_mass']['all'])} of the weight, where it would have "
        f"{percent(found['bigbird_mass_uniform']['all'])} of attention to all alike. A model trained inside the "
        "pattern has all its weight there (`test_a_bigbird_model_is_all_inside_its_own_pattern`), and answers as "
        "well.\n"
        "- **Performer.** On random keys and queries of half the usual length the error falls as 1/√m, and orthogonal "
        "features have less (`test_performers_error_falls_and_orthogonal_features_have_less`). On this model's "
        f"heads, which are sharp, {found['features'][-1]:,} features are still {percent(min(errors))} off, "
        "orthogonal or not: Performer does not approximate a trained head, it has to be trained.\n"
    )


def describe_choices(record: dict) -> str:
    """Return the list of (h): which head looks for the fact, how often each rule finds it, and with what mass."""
    content = record["choices"]
    ((found,),) = (point["rounds"] for point in content["points"])
    chosen = [row for row in found["rows"] if row["blocks"] == CHOSEN]
    finder = max((row for row in chosen if row["rule"] == "best"), key=lambda row: row["found"])
    rules = {row["rule"]: row for row in chosen if name_head(row) == name_head(finder)}
    blocks = content["length"] // content["block"]
    shares = {rule: to_a_tenth(row["found"]) for rule, row in rules.items()}
    return (
        f"- **Facts.** {found['questions']} questions in texts of {content['length']:,} tokens, {blocks} blocks. Of "
        f"head {name_head(finder)}, {CHOSEN} blocks with the most attention have the fact's among them in "
        f"{shares['best']}: it is the head that looks for facts. {CHOSEN} blocks by boxes find it in "
        f"{shares['box']}, by mean keys in {shares['mean']}, at random in "
        f"{shares['random']}.\n"
        f"- **Mass.** The same blocks, with the window, have {percent(rules['best']['mass'])} of that head's "
        f"attention, by boxes {percent(rules['box']['mass'])}, by mean keys {percent(rules['mean']['mass'])} and at "
        f"random {percent(rules['random']['mass'])}. To find what is asked for, a choice need not have most of the "
        "mass: it needs the right block.\n"
    )


SECTIONS = {
    "heads": describe_heads,
    "key norms": describe_key_norms,
    "structure": describe_structure,
    "choices": describe_choices,
}


def read_record() -> dict:
    """Return the numbers of the trained run, and below "choices" those of `benchmarks.block_choice`."""
    run, choices = (json.loads(path.read_text(encoding="utf-8")) for path in (RESULTS, CHOICES))
    return {**run, "choices": choices}


def write_readme(text: str, record: dict) -> str:
    """Return the README's text with each section between its marks; ValueError where it lacks a mark."""
    for name, describe in SECTIONS.items():
        text = replace_section(text, name, wrap(describe(record)) + "\n")
    return text


def main(argv: list[str] | None = None) -> int:
    """Write or check the README; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if the README is out of date")
    arguments = parser.parse_args(argv)
    text = README.read_text(encoding="utf-8")
    wanted = write_readme(text, read_record())
    if arguments.check:
        return int(wanted != text)
    README.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
