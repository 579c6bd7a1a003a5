"""Question (h) of one trained model: what a choice of blocks finds in long texts, as JSON, Markdown and a figure.

    python -m benchmarks.attention_recall --subjects vanilla --save runs/recall      # trains it, two minutes
    python -m attention_lab.found runs/recall/vanilla-people-seed_0

The folder has a model with full attention and texts that ask for what they have said before (`texts.json`). Of each
rule and number of blocks chosen, this reports how much of the model's attention is in the blocks seen, and how often
they have the fact asked for: in a head on average, and in a layer's best head. The same weights are then read with
`attention_type="selected"` and as many blocks: that is recall against k.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from artifacts.files import write_json, write_text
from artifacts.run_folder import read_json
from attention_lab.output import open_folder
from attention_lab.selection import what_is_found
from attention_lab.trained import load_minigpt
from configuration.errors import UserError, run_main, show
from evaluation.plots import BLUE, GREEN, ORANGE, PINK, label_sizes, legend_beside, new_figure, save_figure
from evaluation.tables import markdown_table, percent

HERE = Path(__file__).parent
NAME = "recall"
COUNTS = (1, 2, 4, 8)
RULES = {"best": "the most attention", "box": "box of keys", "mean": "mean key", "random": "BigBird's, random"}
STYLES = {"best": ("o-", GREEN), "box": ("s-", BLUE), "mean": ("^-", ORANGE), "random": ("x--", PINK)}

Texts = list[tuple[torch.Tensor, torch.Tensor]]  # ids (1, T), and of each question (0, where it is read, the fact)


def load_texts(folder: Path) -> Texts:
    """Return the texts saved beside a model, and what they ask.

    Raises:
        UserError: there are none, or what is there asks nothing or for what is not there.
    """
    path = folder / "texts.json"
    texts = []
    try:
        for text in read_json(path)["texts"]:
            ids = torch.tensor([text["ids"]])
            asked = torch.tensor([[0, reader, fact] for reader, fact in text["asked"]])
            if not (asked >= 0).all() or not (asked[:, 2] < asked[:, 1]).all() or not (asked < ids.numel()).all():
                raise ValueError("a question is read before its fact, or outside the text")
            texts.append((ids, asked))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"{path}: no texts with questions in them: {error}") from error
    if not texts:
        raise UserError(f"{path}: no texts with questions in them")
    return texts


def beyond_window(asked: torch.Tensor, block: int, window: int) -> torch.Tensor:
    """Return the questions about facts before the window, which is seen whatever is chosen."""
    _, readers, facts = asked.unbind(-1)
    return asked[facts // block <= readers // block - window]


def mean_found(model: PreTrainedModel, texts: Texts, counts: Sequence[int], block: int, window: int) -> list[dict]:
    """Return a row for each layer, rule and number of blocks, over all texts.

    `mass` and `found` are means over heads, `found_by_a_head` counts what the layer's best head finds.

    Args:
        texts: with questions about facts before the window alone.
    """
    shares: dict[tuple, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for ids, asked in texts:
        for row in what_is_found(model, ids, asked, counts, block, window):
            key = (row["layer"], row["rule"], row["blocks"])
            shares[key][row["head"]].append([row["mass"], row["found"], len(asked)])
    rows = []
    for (layer, rule, blocks), heads in shares.items():
        values = torch.tensor(list(heads.values()))  # (H, texts, 3)
        found = (values[..., 1] * values[..., 2]).sum(1) / values[..., 2].sum(1)  # (H,)
        rows.append(
            {
                "layer": layer,
                "rule": rule,
                "blocks": blocks,
                "mass": values[..., 0].mean().item(),
                "found": found.mean().item(),
                "found_by_a_head": found.max().item(),
            }
        )
    return rows


@torch.inference_mode()
def recall_of(model: PreTrainedModel, texts: Texts) -> float:
    """Return the share of the questions in the texts whose answer is the likeliest token."""
    right = []
    for ids, asked in texts:
        readers = asked[:, 1]
        logits = model(ids, use_cache=False).logits[0, readers]
        right.append(logits.argmax(-1) == ids[0, readers + 1])
    return torch.cat(right).float().mean().item()


def measure(folder: Path, counts: Sequence[int], block: int, window: int) -> dict:
    """Return all numbers of (h) about a saved model with full attention.

    Raises:
        UserError: the folder has no texts.
        ValueError: it has no such model, or the texts are too short to choose that many blocks.
    """
    texts = load_texts(folder)
    model = load_minigpt(folder, attn_implementation="eager")
    if set(model.config.layer_attention_types) != {"vanilla"}:
        raise ValueError(f"{folder}: wanted full attention in every layer, found {model.config.attention_type}")
    far = [(ids, earlier) for ids, asked in texts if len(earlier := beyond_window(asked, block, window))]
    if not far:
        raise ValueError(
            f"{folder}: no question is about a fact before the window of {window} blocks of {block} tokens"
        )
    sizes = {"attention_type": "selected", "selected_block": block, "selected_window": window}
    return {
        "tokens": texts[0][0].shape[1],
        "questions": sum(len(asked) for _, asked in texts),
        "beyond_window": sum(len(asked) for _, asked in far),
        "block": block,
        "window": window,
        "rows": mean_found(model, far, counts, block, window),
        "recall": recall_of(load_minigpt(folder), texts),
        "recall_by_blocks": {k: recall_of(load_minigpt(folder, **sizes, selected_blocks=k), texts) for k in counts},
    }


def draw(found: dict, path: Path) -> None:
    """(h) Mass seen, facts found and recall against the number of blocks chosen, in the last layer."""
    last = max(row["layer"] for row in found["rows"])
    figure, plots = new_figure(1, 3, width=13.2, height=3.5)
    for rule, (style, color) in STYLES.items():
        rows = [row for row in found["rows"] if row["layer"] == last and row["rule"] == rule]
        blocks = [row["blocks"] for row in rows]
        for plot, key in zip(plots, ("mass", "found"), strict=False):
            plot.plot(blocks, [100 * row[key] for row in rows], style, color=color, label=RULES[rule])
    recall = {int(k): 100 * share for k, share in found["recall_by_blocks"].items()}
    plots[2].plot(list(recall), list(recall.values()), "s-", color=BLUE, label="selected, box of keys")
    plots[2].axhline(100 * found["recall"], color="black", linestyle=":", label="full attention")
    titles = (f"attention seen, layer {last}", f"fact asked for seen, layer {last}", "answers right")
    for plot, title in zip(plots, titles, strict=True):
        label_sizes(plot, list(recall))
        plot.set_title(title, fontsize="medium")
        plot.set(xlabel="blocks chosen", ylabel="%", ylim=(-3, 103))
        plot.grid(alpha=0.3)
    legend_beside(figure)
    save_figure(figure, path)


def write_table(found: dict) -> str:
    """Return the numbers as Markdown."""
    rows = [
        [f"{row['layer']}", RULES[row["rule"]], f"{row['blocks']}"]
        + [percent(row[key]) for key in ("mass", "found", "found_by_a_head")]
        for row in found["rows"]
    ]
    columns = ["layer", "chosen by", "blocks", "attention seen", "fact seen, a head", "fact seen, the best head"]
    recall = [["full attention", percent(found["recall"])]]
    recall += [[f"selected, {k} blocks", percent(share)] for k, share in found["recall_by_blocks"].items()]
    return (
        f"# What a choice of blocks finds\n\n{found['questions']} questions in texts of {found['tokens']:,} tokens; "
        f"blocks of {found['block']}, a window of {found['window']}. Facts seen are those of the "
        f"{found['beyond_window']} questions about facts before the window; attention is that of queries with blocks "
        f"enough to choose from.\n\n{markdown_table(columns, rows)}\nThe same weights, not trained further, with "
        f"other attention:\n\n{markdown_table(['attention', 'answers right'], recall)}"
    )


def main(argv: list[str] | None = None) -> int:
    """Look into a saved model; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="FOLDER", help="a model saved by benchmarks.attention_recall")
    parser.add_argument("--blocks", type=int, nargs="+", default=list(COUNTS), metavar="K", help="default: 1 2 4 8")
    parser.add_argument("--block", type=int, default=16, help="tokens of a block (%(default)s)")
    parser.add_argument("--window", type=int, default=4, help="blocks of the window (%(default)s)")
    parser.add_argument("--output", type=Path, default=HERE, help="where results/ and figures/ are (%(default)s)")
    arguments = parser.parse_args(argv)
    for name, values in (("blocks", arguments.blocks), ("block", [arguments.block]), ("window", [arguments.window])):
        if min(values) < 1:
            parser.error(f"argument --{name}: must be at least 1, found {min(values)}")

    def command() -> None:
        results = open_folder(arguments.output / "results") / f"{NAME}.json"
        figures = open_folder(arguments.output / "figures")
        try:
            found = measure(arguments.model, sorted(set(arguments.blocks)), arguments.block, arguments.window)
        except ValueError as error:
            raise UserError(error) from error
        table = write_table(found)
        write_json(results, found)
        write_text(results.with_suffix(".md"), table)
        draw(found, figures / f"{NAME}_found.svg")
        show(table, end="")

    return run_main(command)


if __name__ == "__main__":
    sys.exit(main())
