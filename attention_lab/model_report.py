"""Questions (f) and (g) of one trained model: its numbers, as JSON and Markdown, and their figures."""

import json
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from attention_lab.output import open_folder
from attention_lab.structure import (
    attention_matrices,
    bigbird_mass,
    effective_rank,
    far_part,
    low_rank_error,
    model_performer_error,
    tail_error,
    text_rows,
    uniform_weights,
)
from attention_lab.trained import (
    answer_log_probability,
    answer_weights,
    ask,
    change_without,
    copying_heads,
    load_eager,
    table_of_heads,
)
from data_scripts.bios_folder import FILES, check_folder, read_lines, read_questions
from data_scripts.questions import Question
from evaluation.plots import BLUE, GREEN, ORANGE, label_sizes, new_figure, save_figure
from evaluation.tables import markdown_table, number, percent
from modeling_minigpt.block_sparse_minigpt import BlockPattern

QUESTIONS = 200
ROWS = 16  # of text
LENGTH = 64  # tokens of a row
SEGMENT = 8  # tokens of a Linformer segment
RANKS = (1, 2, 4, 8, 16, 32)
FEATURES = (16, 64, 256, 1024)


def known_questions(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, questions: list[Question]
) -> list[Question]:
    """Return the first questions whose answers the model knows: it gives them a probability above one half."""
    sure = answer_log_probability(model, ask(tokenizer, questions)).exp() > 0.5
    known = [question for question, is_sure in zip(questions, sure.tolist(), strict=True) if is_sure]
    if not known:
        raise ValueError(f"the model knows none of {len(questions)} answers, so there is nothing to look for")
    return known[:QUESTIONS]


def measure_heads(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, questions: list[Question]) -> dict:
    """Return (f): the table of heads, those that copy, and what is lost without these together."""
    asked = ask(tokenizer, questions)
    rows = table_of_heads(model, asked)
    copying = copying_heads(rows)
    return {
        "questions": len(questions),
        "log_probability": answer_log_probability(model, asked).mean().item(),
        "heads": rows,
        "copying": [[row["layer"], row["head"]] for row in copying],
        "change_without_copying": change_without(model, asked, copying),
    }


def bigbird_patterns(model: PreTrainedModel) -> list[BlockPattern]:
    """Return for each layer the pattern of `quickstart-bigbird`: blocks of 4, 1 global, 2 in the window, 1 random."""
    heads = model.config.num_attention_heads
    return [BlockPattern(4, 1, 2, 1, heads=heads, layer=index) for index in range(model.config.num_hidden_layers)]


def measure_structure(model: PreTrainedModel, ids: torch.Tensor) -> dict:
    """Return (g) on rows of text (B, T), means over rows and heads: rank, BigBird's mass and Performer's error."""
    weights = attention_matrices(model, ids)
    length = ids.shape[1]
    alike = uniform_weights(length)
    far = far_part(weights, SEGMENT)
    patterns = bigbird_patterns(model)
    uniform = bigbird_mass(alike.expand_as(weights), patterns)
    return {
        "rows": len(ids),
        "tokens": length,
        "effective_rank": effective_rank(weights).double().mean((1, 2)).tolist(),
        "effective_rank_uniform": effective_rank(alike).item(),
        "ranks": RANKS,
        "low_rank_error": [low_rank_error(weights, rank).mean().item() for rank in RANKS],
        "far_low_rank_error": [tail_error(far, weights, rank).mean().item() for rank in RANKS],
        "bigbird_mass": {part: mass.mean().item() for part, mass in bigbird_mass(weights, patterns).items()},
        "bigbird_mass_uniform": {part: mass.mean().item() for part, mass in uniform.items()},
        "features": FEATURES,
        "performer_error": {
            kind: [
                model_performer_error(model, ids[:4], size, kind == "orthogonal").mean().item() for size in FEATURES
            ]
            for kind in ("orthogonal", "independent")
        },
    }


def draw_heads(heads: dict, shape: tuple[int, int], path: Path) -> None:
    """(f) Weight on the name and loss without each head, (layer, head)."""
    columns = {
        "name": "weight on the name",
        "change": "change of log p, nats,\nwithout the head",
        "change_at_answer": "… without it from where\nthe answer is read",
    }
    figure, axes = new_figure(1, 3, width=10.0, height=3.0)
    for plot, (column, title) in zip(axes, columns.items(), strict=True):
        grid = np.zeros(shape)
        for row in heads["heads"]:
            grid[row["layer"] - 1, row["head"] - 1] = row[column]
        limits = {"vmin": 0, "vmax": 1} if column == "name" else {"vmin": min(grid.min(), -0.1), "vmax": 0}
        image = plot.imshow(grid, cmap="cividis" if column == "name" else "cividis_r", aspect="auto", **limits)
        plot.set_title(title, fontsize="small")
        plot.set_xticks(range(shape[1]), range(1, shape[1] + 1))
        plot.set_yticks(range(shape[0]), range(1, shape[0] + 1))
        plot.set(xlabel="head", ylabel="layer")
        figure.colorbar(image, ax=plot)
    save_figure(figure, path)


def draw_answer_attention(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pair: tuple[str, str], path: Path
) -> None:
    """(f) α of every head from where one answer is read to each token of its question."""
    asked = ask(tokenizer, [pair])
    seen = int(asked.place) + 1
    weights = answer_weights(model, asked)[:, :, 0, :seen]  # (L, H, seen)
    layers, heads = weights.shape[:2]
    tokens = [tokenizer.decode([token]) for token in asked.inputs["input_ids"][0, :seen].tolist()]
    figure, axes = new_figure(1, 1, width=0.45 * seen + 2.4, height=0.2 * layers * heads + 1.2)
    image = axes.imshow(weights.flatten(0, 1).numpy(), cmap="cividis", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(seen), tokens, rotation=60, ha="right")
    axes.set_yticks(range(layers * heads), [f"{row // heads + 1}.{row % heads + 1}" for row in range(layers * heads)])
    axes.set(xlabel=f"token; the answer is {pair[1]}", ylabel="layer.head")
    figure.colorbar(image, label="α")
    save_figure(figure, path)


def draw_key_norms(heads: dict, path: Path) -> None:
    """(f) How much the norms of each head's keys vary, before QK-norm and after, beside the stretched key of (c)."""
    rows = sorted(heads["heads"], key=lambda row: (row["layer"], row["head"]))
    figure, axes = new_figure(1, 1, width=7.0, height=3.2)
    for shift, column, color, label in (
        (-0.2, "raw_spread", ORANGE, "before QK-norm"),
        (0.2, "spread", BLUE, "as used, after QK-norm"),
    ):
        axes.bar(
            [place + shift for place in range(len(rows))], [row[column] for row in rows], 0.4, color=color, label=label
        )
    axes.axhline(0.5**0.5, color="black", linestyle="--", label=r"$\gamma \sim N(1, ½)$")
    axes.set_xticks(range(len(rows)), [f"{row['layer']}.{row['head']}" for row in rows])
    axes.set(xlabel="layer.head", ylabel="standard deviation / mean of $|k|$")
    axes.legend(frameon=False)
    save_figure(figure, path)


def draw_structure(found: dict, path: Path) -> None:
    """(g) Error of low rank, mass inside BigBird's pattern, and Performer's error, on the model's own attention."""
    figure, (left, middle, right) = new_figure(1, 3, width=11.6, height=3.5)
    for key, marker, color, label in (
        ("low_rank_error", "o-", BLUE, "best of that rank"),
        ("far_low_rank_error", "s-", ORANGE, "two segments exact,\nthe rest of that rank"),
    ):
        left.plot(found["ranks"], found[key], marker, color=color, label=label)
    label_sizes(left, found["ranks"])
    left.set(xlabel="rank", ylabel=r"$|B - A|\ /\ |A|$", ylim=(0, 1), title="low rank")
    bottom = np.zeros(2)
    for part, color in (("window", BLUE), ("global", ORANGE), ("random", GREEN)):
        shares = np.array([found["bigbird_mass"][part], found["bigbird_mass_uniform"][part]])
        middle.bar(["trained", "all alike"], shares, 0.6, bottom=bottom, color=color, label=part)
        bottom += shares
    middle.set(xlabel="attention", ylabel="mass inside the pattern", ylim=(0, 1), title="BigBird")
    for (kind, errors), marker, color in zip(
        found["performer_error"].items(), ("s-", "o-"), (ORANGE, BLUE), strict=True
    ):
        right.plot(found["features"], errors, marker, color=color, label=kind)
    label_sizes(right, found["features"])
    right.set(xlabel="random features $m$", ylabel=r"$|\hat{A} - A|\ /\ |A|$", ylim=(0, None), title="Performer")
    for plot in (left, middle, right):
        plot.legend(frameon=False, fontsize="small")
    save_figure(figure, path)


def write_tables(name: str, record: dict) -> str:
    """Return the numbers as Markdown."""
    heads = record["heads"]
    structure = record["structure"]
    columns = ["layer.head", "weight on the name", "without it", "from the answer on", "key spread, raw", "as used"]
    rows = [
        [f"{row['layer']}.{row['head']}", percent(row["name"])]
        + [f"{row[key]:+.3f}" for key in ("change", "change_at_answer")]
        + [number(row[key]) for key in ("raw_spread", "spread")]
        for row in heads["heads"]
    ]
    copying = ", ".join(f"{layer}.{head}" for layer, head in heads["copying"]) or "none"
    mass = [
        [part, percent(structure["bigbird_mass"][part]), percent(structure["bigbird_mass_uniform"][part])]
        for part in structure["bigbird_mass"]
    ]
    ranks = [
        [label, *(number(value) for value in structure[key])]
        for label, key in (("whole", "low_rank_error"), ("two segments exact", "far_low_rank_error"))
    ]
    errors = [[kind, *(number(value) for value in row)] for kind, row in structure["performer_error"].items()]
    per_layer = ", ".join(f"{rank:.1f}" for rank in structure["effective_rank"])
    return (
        f"# The heads of `{name}`\n\nOver {heads['questions']} training questions whose answers it knows (mean log-"
        f"probability {heads['log_probability']:.3f}). Changes are of that, in nats, with one head silent, everywhere "
        f"or only from where the answer is read; to look at all alike would give the name "
        f"{percent(heads['heads'][0]['uniform'])}.\n\n{markdown_table(columns, rows)}\nHeads that copy (over 80 % on "
        f"the name, and missed there): {copying}; without all of them at once, "
        f"{heads['change_without_copying']:+.3f}.\n\n## Structure\n\nOf the attention on {structure['rows']} rows of "
        f"{structure['tokens']} tokens of biographies. Singular values that hold 90 % of their sum, by layer: "
        f"{per_layer} (looking at all alike: {structure['effective_rank_uniform']}).\n\nLeast relative error of a "
        f"low rank, of the whole matrix, and where segments of {SEGMENT} tokens are read exactly, a query's own and "
        f"the one before:\n\n{markdown_table(['rank', *map(str, structure['ranks'])], ranks)}\nMass inside BigBird's "
        f"pattern (blocks of 4, 1 global, 2 in the window, 1 random):\n\n"
        f"{markdown_table(['part', 'trained', 'all alike'], mass)}\nPerformer's relative error:\n\n"
        f"{markdown_table(['features', *map(str, structure['features'])], errors)}"
    )


def report_model(folder: Path, data: Path, name: str, output: Path) -> dict:
    """Measure a model, write its figures and its results below `output`, and return the numbers.

    Args:
        folder: a finetuned MiniGPT.
        data: a folder in the cs224n layout; its training questions and biographies are read, nothing else.

    Raises:
        ValueError: no such model or data, or a model that knows none of the answers.
    """
    model, tokenizer = load_eager(folder)
    check_folder(data)
    questions = known_questions(model, tokenizer, read_questions(data / FILES["train"]))
    ids = text_rows(tokenizer, read_lines(data / FILES["documents"]), LENGTH, ROWS)
    record = {
        "model": name,
        "heads": measure_heads(model, tokenizer, questions),
        "structure": measure_structure(model, ids),
    }
    figures = open_folder(output / "figures")
    results = open_folder(output / "results")
    shape = model.config.num_hidden_layers, model.config.num_attention_heads
    draw_heads(record["heads"], shape, figures / f"{name}_heads.svg")
    draw_answer_attention(model, tokenizer, questions[0], figures / f"{name}_answer.svg")
    draw_key_norms(record["heads"], figures / f"{name}_key_norms.svg")
    draw_structure(record["structure"], figures / f"{name}_structure.svg")
    (results / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (results / f"{name}.md").write_text(write_tables(name, record), encoding="utf-8")
    return record
