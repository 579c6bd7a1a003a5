"""Turn results into what people read: a table in the terminal, `report.md` with its plots, and the same as a page."""

import sys
import textwrap
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from artifacts.files import write_text
from configuration.data_schema import INVENTED_SOURCES
from configuration.rich_console import TolerantConsole
from evaluation.errors_report import errors_line, errors_section, wrong_answers_section
from evaluation.plots import BLUE, label_plainly, new_figure, save_figure
from evaluation.pretraining_plot import Comparison, plot_pretraining
from evaluation.provenance import find_command, machine_line, provenance_line, source_line
from evaluation.question_sets_report import sets_lines, sets_section
from evaluation.report_page import write_page
from evaluation.tables import CHANCES, chance, literal, markdown_table, page_table, percent
from evaluation.trust_report import promise_line, threshold_line, trust_section
from modeling_minigpt.results_minigpt import describe_result

ACCURACY_COLUMNS = ["always the top answer", "no pretraining", "pretrained", "upper bound: answer is in a document"]
FEW_POINTS = 20  # of a curve, below which each is marked


def by_relation(results: dict) -> dict[str, dict]:
    """Return each relation's results in the form of the whole, by the relations' names.

    Those of the first relation are the whole: its figures are at the top of `results.json`.
    """
    split = results["split"]
    names = list(results.get("relations", {"": None}))  # of before there were several
    views = {names[0]: results}
    for name in names[1:]:
        values = results["relations"][name]
        views[name] = {
            "dataset": results["dataset"],
            "split": split,
            "source": results.get("source", {}),
            split: values,
            "baselines": {**values, "majority_place": values["majority_answer"]},
            "wrong_answers": values.get("wrong_answers", []),
            **{key: values[key] for key in ("trust", "exposure", "samples")},
            "errors": values.get("errors", {}),  # not there before there was such a section
            "reliability_by_exposure": values.get("reliability_by_exposure", []),
            "example": values.get("example"),
        }
    return views


def is_invented(results: dict) -> bool:
    """Return whether all people of a run's data are invented."""
    return results.get("source", {}).get("source") in INVENTED_SOURCES


def training_minutes(results: dict) -> float:
    """Return the minutes of what was trained for the answers: not those of the model without pretraining."""
    return sum(results["train_minutes"].get(stage, 0.0) for stage in ("pretrain", "finetune"))


def accuracy_rows(results: dict) -> list[tuple[str, float | None]]:
    """Return the rows that every table of results carries: baselines, pretrained, ceiling."""
    baselines = results["baselines"]
    return [
        (f"always {baselines['majority_place']}", baselines["majority"]),
        ("no pretraining", baselines["no_pretraining"]),
        ("pretrained", results[results["split"]]["accuracy"]),
        ("upper bound: answer is in a document", baselines["ceiling"]),
    ]


def accuracy_table(results: dict) -> str:
    """Return the Markdown table of accuracies; with several relations, one row for each."""
    views = by_relation(results)
    if len(views) == 1:
        rows = [[name, percent(share)] for name, share in accuracy_rows(results)]
        return page_table(["model", "accuracy"], rows)
    rows = []
    for name, view in views.items():
        majority, *shares = (percent(share) for _, share in accuracy_rows(view))
        rows.append([name, f"{view['baselines']['majority_place']}: {majority}", *shares])
    return page_table(["relation", *ACCURACY_COLUMNS], rows)


def print_results(results: dict, console: Console | None = None) -> None:
    """Print the table of accuracies and the sample questions with their answers, of each relation."""
    console = TolerantConsole(console)
    views = by_relation(results)
    for name, view in views.items():
        _render(view, name if len(views) > 1 else None, console)
    for line in sets_lines(results.get("sets", {})):
        console.print(escape(line), highlight=False)


def _render(results: dict, relation: str | None, console: Console) -> None:
    """Print as `print_results` one relation's results, with its name where there are several."""
    scored = results[results["split"]]
    what = results["split"] if relation is None else f"{results['split']} {relation}"
    title = f"{results['dataset']}: {scored['total']} {what} questions, exact match"
    table = Table(title=escape(title))
    table.add_column("model")
    table.add_column("accuracy", justify="right")
    for name, share in accuracy_rows(results):
        table.add_row(escape(name), percent(share))
    console.print(table)
    trust = results.get("trust")
    if trust:
        console.print(escape(threshold_line(trust)), highlight=False)
    if line := errors_line(results.get("errors", {})):
        console.print(escape(line), highlight=False)
    for sample in results["samples"]:
        line = f"{escape(sample['question'])}  [bold]{escape(said(sample))}[/bold] {escape(verdict(sample))}"
        console.print(line, highlight=False)


def said(sample: dict) -> str:
    """Return a sample's answer as people read it; results of older versions have no chances beside it."""
    return describe_result(sample) if "abstained" in sample else sample["answer"]


def verdict(sample: dict) -> str:
    """Say what is true of a sample: the right answer, or that nobody has it."""
    if sample["place"] is None:
        return "– a made-up person"
    if sample["answer"] is None:
        return f"– it is {sample['place']}"
    is_right = sample["answer"] in sample.get("accepted", [sample["place"]])
    return "– right" if is_right else f"– wrong, it is {sample['place']}"


def plot_losses(histories: dict[str, list], path: Path) -> None:
    """Draw each stage's loss against its steps, a panel each: `histories` maps a stage to [step, loss] points."""
    figure, _ = new_figure(1, len(histories), width=3.6 * len(histories), height=3.2)
    for axes, (stage, points) in zip(figure.axes, histories.items(), strict=True):
        marker = "o" if len(points) < FEW_POINTS else None
        axes.plot([step for step, _ in points], [loss for _, loss in points], color=BLUE, marker=marker)
        axes.set(title=stage.replace("_", " "), xlabel="step")
        label_plainly(axes)
    figure.axes[0].set_ylabel("loss, nats per target token")
    save_figure(figure, path)


def exposure_section(rows: list[dict], kind: str, heading: str) -> list[str]:
    """Return the report's lines on what the model was shown of people and answers, which are of a kind, "place"."""
    models = [key for key in rows[0] if isinstance(rows[0][key], dict)]
    columns = [name for model in models for name in (f"{model.replace('_', ' ')}: right", "confidence")]
    cells = [[percent(row[model][what]) for model in models for what in ("accuracy", "confidence")] for row in rows]
    seen = [f"{kind if row['seen'] == 'place' else row['seen']}: {row['times']}" for row in rows]
    return [
        f"{heading}\n",
        "Right answers, and the mean probability that the model gives to its answer (not calibrated): by how many "
        f"documents name the person, how many documents and training answers name the {kind}, and how many documents "
        "name both.\n",
        page_table(
            ["seen", "questions", *columns],
            [[what, str(row["questions"]), *own] for what, row, own in zip(seen, rows, cells, strict=True)],
        ),
    ]


def reliability_section(rows: list[dict], heading: str) -> list[str]:
    """Return the report's lines on both chances by how often the person was seen."""
    columns = ["documents of the person", "questions", "chance to be known", "chance to be right"]
    cells = [[row["times"], str(row["questions"]), *(percent(row[key]) for key in ("known", "correct", "accuracy"))]
             for row in rows]  # fmt: skip
    return [
        f"{heading}\n",
        "If the calibration is good, the mean chance to be right is close to the share of right answers in every row, "
        "and the mean chance to be known is close to 100 % wherever a document names the person.\n",
        page_table([*columns, "right answers"], cells),
    ]


def relation_section(results: dict, kind: str, heading: str, picture: str) -> list[str]:
    """Return one relation's part of the report.

    Args:
        results: the relation's, of `by_relation`.
        kind: of its answers, "place".
        heading: "##", or what its sections' headings begin with below another one.
        picture: the file of its plot of confidences.
    """
    lines = []
    if "trust" in results:
        lines += trust_section(results["trust"], f"{heading} Trust", picture, False, is_invented(results))
    if results.get("exposure"):
        lines += exposure_section(results["exposure"], kind, f"{heading} What was there to learn from")
    if results.get("reliability_by_exposure"):
        lines += reliability_section(results["reliability_by_exposure"], f"{heading} Calibration by exposure")
    if results.get("errors"):
        lines += errors_section(results["errors"], results[results["split"]]["total"], heading)
    lines += wrong_answers_section(results.get("wrong_answers", []), heading)
    return [*lines, *samples_section(results["samples"], kind, heading)]


def samples_section(samples: list[dict], kind: str, heading: str) -> list[str]:
    """Return the lines on some answers, as the pipeline gives them; kind is of the answers, "place"."""
    rows = [
        [
            one["question"],
            answer_or_guess(one),
            *(chance(one.get(name)) for name in CHANCES),
            one["place"] or "(made-up person)",
        ]
        for one in samples
    ]
    columns = ["question", "answer", *CHANCES, f"right {kind}"]
    return [f"{heading} Some answers\n", page_table(columns, rows, left=(0, 1, 5))]


def answer_or_guess(sample: dict) -> str:
    """Return a sample's answer; where none is given, its best candidate as a question."""
    if sample["answer"] is not None:
        return sample["answer"]
    guess = next((one["answer"] for one in sample.get("candidates", ())), "")
    return f"I don't know ({guess}?)" if guess else "I don't know"


def trust_picture(number: int, relation: str) -> str:
    """Return the file of a relation's plot of confidences; that of the first is as if there were no other."""
    return f"trust.{relation}.png" if number else "trust.png"


def describe_scores(results: dict, relation: str = "") -> str:
    """Say in one sentence how many questions were right."""
    scored = results[results["split"]]
    what = literal(" ".join(filter(None, (results["split"], relation))))
    return f"{scored['correct']} of {scored['total']} {what} questions right, by exact match."


def promise_lines(views: dict[str, dict]) -> list[str]:
    """Return what is certified for each relation, or why nothing is."""
    several = len(views) > 1
    return [
        f"**{literal(f'{name}: ' if several else '')}{literal(promise_line(view['trust']))}**\n"
        for name, view in views.items()
        if view.get("trust")
    ]


def head_lines(results: dict, views: dict[str, dict]) -> list[str]:
    """Return the lines that a report begins with: scores, model, when, where and by what it was made."""
    scores = " ".join(describe_scores(view, name if len(views) > 1 else "") for name, view in views.items())
    found = results.get("provenance", {})
    minutes = f" Training took {training_minutes(results):.1f} minutes." if results["train_minutes"] else ""
    started = results.get("start_from")
    command = find_command(sys.argv)  # in the report alone: the results are published, without this machine's paths
    return [
        f"# {literal(results['dataset'])}\n",
        f"{scores} Model: {literal(results['model'])}, {results['parameters']:,} parameters; recipe seed "
        f"{results['seed']}.{minutes}\n",
        *([f"{literal(provenance_line(found))}\n"] if found else []),
        *([f"{textwrap.indent(command, '    ')}\n"] if command else []),
        *source_line(results.get("source", {})),
        *([f"Training started from the weights of {literal(started)}.\n"] if started else []),
    ]


def pretraining_section(views: dict[str, dict], table: str, folder: Path) -> list[str]:
    """Draw `pretraining.png` and return the lines with it and the table of accuracies."""
    comparisons = [
        Comparison(
            name if len(views) > 1 else "",
            [share for _, share in accuracy_rows(view)],
            view[view["split"]]["total"],
            view.get("exposure", []),
        )
        for name, view in views.items()
    ]
    plot_pretraining(comparisons, folder / "pretraining.png")
    return [
        "## Why pretraining matters\n",
        "![Accuracy with and without pretraining, its bounds, and accuracy by exposure](pretraining.png)\n",
        "Error bars are 95 % Wilson intervals.\n",
        table,
    ]


def write_report(results: dict, histories: dict[str, list], folder: Path) -> Path:
    """Write `report.md`, `report.html` and their plots; return the path of the first.

    `losses.png` is drawn where a stage was trained here; the plots of confidences have to be in the folder already.
    """
    views = by_relation(results)
    several = len(views) > 1
    lines = [
        *head_lines(results, views),
        *promise_lines(views),
        *pretraining_section(views, accuracy_table(results), folder),
    ]
    if results["train_minutes"]:
        lines += [
            "## Training\n",
            markdown_table(
                ["stage", "minutes"],
                [[stage.replace("_", " "), f"{minutes:.1f}"] for stage, minutes in results["train_minutes"].items()],
            ),
            *machine_line(results.get("machine", {})),
        ]
    histories = {stage: points for stage, points in histories.items() if points}
    if histories:
        plot_losses(histories, folder / "losses.png")
        lines.append("![Loss against steps, by stage](losses.png)\n")
    for number, (name, view) in enumerate(views.items()):
        known = results.get("relations", {}).get(name, {})
        if several:
            question = known["question"].replace("{name}", "NAME")
            lines.append(f"## {literal(f'{name}: “{question}”')}\n")
        heading = "###" if several else "##"
        lines += relation_section(view, known.get("answers", "place"), heading, trust_picture(number, name))
    lines += sets_section(results.get("sets", {}))
    path = folder / "report.md"
    write_text(path, "\n".join(lines))
    write_page(path)
    return path
