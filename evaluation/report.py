"""Turn results into what people read: a table in the terminal, `report.md` with its plot, the README's table."""

import io
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from artifacts.files import write_text
from configuration.errors import show
from evaluation.plots import new_figure, save_figure
from evaluation.tables import markdown_table, percent
from evaluation.trust import trust_table
from modeling_minigpt.risk_control_minigpt import Certificate


def accuracy_rows(results: dict) -> list[tuple[str, float | None]]:
    """Return the rows that every table of results carries: baselines, pretrained, ceiling."""
    baselines = results["baselines"]
    return [
        (f"always {baselines['majority_place']}", baselines["majority"]),
        ("no pretraining", baselines["no_pretraining"]),
        ("pretrained", results[results["split"]]["accuracy"]),
        ("upper bound: answer is in a document", baselines["ceiling"]),
    ]


class EncodedText(io.StringIO):
    """Text in memory for a stream of some encoding, by which a console chooses what it draws lines with."""

    encoding = "utf-8"


def print_results(results: dict, console: Console | None = None) -> None:
    """Print the table of accuracies and the sample questions with their answers."""
    console = console or Console()
    text = EncodedText()
    text.encoding = console.encoding
    terminal = console.is_terminal
    _render(
        results, Console(file=text, width=console.width, force_terminal=terminal, color_system=console.color_system)
    )
    # Not by the console itself, which raises where a name cannot be encoded or nobody reads any more.
    show(text.getvalue(), console.file, end="")


def _render(results: dict, console: Console) -> None:
    """Print as `print_results`."""
    scored = results[results["split"]]
    title = f"{results['dataset']}: {scored['total']} {results['split']} questions, exact match"
    table = Table(title=escape(title))
    table.add_column("model")
    table.add_column("accuracy", justify="right")
    for name, share in accuracy_rows(results):
        table.add_row(escape(name), percent(share))
    console.print(table)
    trust = results.get("trust")
    if trust and trust["threshold"] is not None:
        line = (
            f"At the threshold {trust['threshold']:.2f}: {percent(trust['answered'])} answered, "
            f"{percent(trust['answered_right'])} of that right; {percent(trust['made_up_answered'])} of made-up "
            "people get an answer"
        )
        console.print(line, highlight=False)
    for sample in results["samples"]:
        if sample["place"] is None:
            verdict = "a stranger: no document names this person, the answer is a guess"
        else:
            verdict = "right" if sample["answer"] == sample["place"] else f"wrong, it is {sample['place']}"
        line = f"{escape(sample['question'])} [bold]{escape(sample['answer'])}[/bold] ({escape(verdict)})"
        console.print(line, highlight=False)


def plot_losses(histories: dict[str, list], path: Path) -> None:
    """Draw each stage's loss against its steps: `histories` maps a stage to [step, loss] points."""
    figure, axes = new_figure(1, 1, width=6.4, height=3.6)
    for stage, points in histories.items():
        axes.plot([step for step, _ in points], [loss for _, loss in points], label=stage.replace("_", " "))
    axes.set(xlabel="step", ylabel="loss, nats a target token", yscale="log")
    axes.legend(frameon=False)
    save_figure(figure, path)


def trust_section(trust: dict) -> list[str]:
    """Return the report's lines on confidence, strangers and what is guaranteed."""
    if trust["certificate"] is not None:
        promise = f"Certified on people held out of training: {Certificate(**trust['certificate'])}."
    elif trust["calibrated"]:
        promise = f"No threshold is certified: {trust['refusal']}."
    else:
        reason = f" ({trust['refusal']})" if trust["refusal"] else ""
        promise = (
            f"The model is not calibrated{reason}: its confidence is the probability that it gives to its answer."
        )
    if trust.get("withheld_refusal"):
        promise += f" Withheld people are not counted: {trust['withheld_refusal']}."
    return [
        "## Trust\n",
        f"Confidence on these questions, on {trust['made_up']} about made-up people, and on {trust['withheld']} about "
        f"real people who were withheld from training. {promise}\n",
        trust_table(trust),
        "![Risk and coverage, reliability, confidences](trust.png)\n",
    ]


def exposure_section(rows: list[dict]) -> list[str]:
    """Return the report's lines on what the model was shown."""
    models = [key for key in rows[0] if isinstance(rows[0][key], dict)]
    columns = [f"{model.replace('_', ' ')}, {what}" for model in models for what in ("accuracy", "confidence")]
    cells = [[percent(row[model][what]) for model in models for what in ("accuracy", "confidence")] for row in rows]
    return [
        "## What was there to learn from\n",
        "Accuracy, and the mean probability that the model gives to its answer (not calibrated): by how many "
        "documents name the person, how many documents and training answers name the place, and how many documents "
        "name both.\n",
        markdown_table(
            ["seen", "questions", *columns],
            [[f"{r['seen']}: {r['times']}", str(r["questions"]), *own] for r, own in zip(rows, cells, strict=True)],
        ),
    ]


def write_report(results: dict, histories: dict[str, list], folder: Path) -> Path:
    """Write `report.md`, and `losses.png` where a stage was trained here; return the report's path."""
    scored = results[results["split"]]
    lines = [
        f"# {results['dataset']}\n",
        f"{scored['correct']} of {scored['total']} {results['split']} questions right, by exact match. "
        f"Model: {results['model']}, {results['parameters']:,} parameters; recipe seed {results['seed']}.\n",
        *([f"Training started from the weights of {results['start_from']}.\n"] if results.get("start_from") else []),
        markdown_table(["model", "accuracy"], [[name, percent(share)] for name, share in accuracy_rows(results)]),
    ]
    if results["train_minutes"]:
        lines += [
            "## Training\n",
            markdown_table(
                ["stage", "minutes"],
                [[stage.replace("_", " "), f"{minutes:.1f}"] for stage, minutes in results["train_minutes"].items()],
            ),
        ]
    if histories:
        plot_losses(histories, folder / "losses.png")
        lines.append("![Loss against steps, by stage](losses.png)\n")
    if "trust" in results:
        lines += trust_section(results["trust"])
    if results.get("exposure"):
        lines += exposure_section(results["exposure"])
    lines += [
        "## Some answers\n",
        markdown_table(
            ["question", "answer", "right place"],
            [[s["question"], s["answer"], s["place"] or "(unknown person)"] for s in results["samples"]],
        ),
    ]
    path = folder / "report.md"
    write_text(path, "\n".join(lines))
    return path
