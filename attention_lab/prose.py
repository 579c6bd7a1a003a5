"""Write what the laboratory's README says of trained models, from the numbers of their results files.

python -m attention_lab.prose            # rewrite the README between its marks
python -m attention_lab.prose --check    # exit 1 if the README does not say what the results say
"""

import argparse
import json
import sys
import textwrap
from pathlib import Path

from evaluation.tables import replace_section

LAB = Path(__file__).parent
README = LAB / "README.md"
RESULTS = LAB / "results" / "quickstart.json"
FOUND = LAB / "results" / "recall.json"
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


def describe_found(record: dict) -> str:
    """Return the list of (h): what a choice of blocks finds in the last layer, and what is then recalled."""
    found = record["found"]
    last = max(row["layer"] for row in found["rows"])
    most = max(row["blocks"] for row in found["rows"])
    best, box, mean, random = (
        next(row for row in found["rows"] if (row["layer"], row["rule"], row["blocks"]) == (last, rule, most))
        for rule in ("best", "box", "mean", "random")
    )
    recall = {int(blocks): share for blocks, share in found["recall_by_blocks"].items()}
    fewest = min(recall)
    blocks = found["tokens"] // found["block"]
    return (
        f"- **The fact is found.** In layer {last} of two, with {most} of the {blocks} blocks chosen, the block with "
        f"a fact from before the window is seen in {percent(box['found'])} of {found['beyond_window']} questions by "
        f"boxes, {percent(best['found'])} by the most attention, {percent(mean['found'])} by mean keys, and "
        f"{percent(random['found'])} by BigBird's random numbers.\n"
        f"- **The mass is not.** These blocks and the window have {percent(box['mass'])} of the attention by boxes, "
        f"{percent(best['mass'])} at best, {percent(random['mass'])} by BigBird's pattern. The rest is spread thin, "
        "and answers hardly need it.\n"
        f"- **So little is enough.** Full attention answers {percent(found['recall'])}. The same weights, never "
        f"trained to select, answer {percent(recall[most])} with {most} blocks and {percent(recall[fewest])} with "
        f"{fewest}.\n"
    )


SECTIONS = {
    "heads": describe_heads,
    "key norms": describe_key_norms,
    "structure": describe_structure,
    "found": describe_found,
}


def read_results() -> dict:
    """Return the numbers of the quickstart's model, and as "found" those of the recall benchmark's."""
    quickstart, found = (json.loads(path.read_text(encoding="utf-8")) for path in (RESULTS, FOUND))
    return {**quickstart, "found": found}


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
    wanted = write_readme(text, read_results())
    if arguments.check:
        return int(wanted != text)
    README.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
