"""Turn results into what people read: a table in the terminal, `report.md` with its plot, the README's table."""

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from evaluation.plots import new_figure, save_figure
from evaluation.tables import markdown_table, percent
from evaluation.trust import trust_table


def accuracy_rows(results: dict) -> list[tuple[str, float | None]]:
    """Return the rows that every table of results carries: baselines, pretrained, ceiling."""
    baselines = results["baselines"]
    return [
        (f"always {baselines['majority_place']}", baselines["majority"]),
        ("no pretraining", baselines["no_pretraining"]),
        ("pretrained", results[results["split"]]["accuracy"]),
        ("ceiling: the documents tell", baselines["ceiling"]),
    ]


def print_results(results: dict, console: Console | None = None) -> None:
    """Print the table of accuracies and the sample questions with their answers."""
    console = console or Console()
    scored = results[results["split"]]
    title = f"{results['dataset']}: {scored['total']} {results['split']} questions, exact match"
    table = Table(title=escape(title))
    table.add_column("model")
    table.add_column("accuracy", justify="right")
    for name, share in accuracy_rows(results):
        table.add_row(escape(name), percent(share))
    console.print(table)
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
        lines += [
            "## Trust\n",
            f"Confidence on these questions, and on {results['trust']['made_up']} about made-up people.\n",
            trust_table(results["trust"]),
            "![Risk and coverage, reliability, confidences](trust.png)\n",
        ]
    lines += [
        "## Some answers\n",
        markdown_table(
            ["question", "answer", "right place"],
            [[s["question"], s["answer"], s["place"] or "(nobody knows)"] for s in results["samples"]],
        ),
    ]
    path = folder / "report.md"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path
