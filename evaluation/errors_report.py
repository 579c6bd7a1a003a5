"""What people read of the wrong answers: a section of the report, and a line in the terminal."""

import re

from evaluation.errors import CLASSES
from evaluation.tables import markdown_table, percent

LARGEST = 2  # classes in the terminal
MARKS = re.compile(r"[\\`*_\[\]<>&#~$!]")


def literal(text: str) -> str:
    """Write text so that Markdown shows it as it is: no emphasis, link, HTML or formula in it is one."""
    # Not the bar, which `markdown_table` escapes.
    return MARKS.sub(r"\\\g<0>", text)


def label_of(name: str) -> str:
    """Return what people read of a class; of one that another version has, its name."""
    return CLASSES[name].label if name in CLASSES else name


def why(example: dict) -> str:
    """Say by what an example is in its class."""
    if "whose" in example:
        return example["whose"]
    if "phrase" in example:
        return f"“{example['phrase']}”"
    if "documents" in example:
        return f"documents of the person: {example['documents']}"
    return ""


def errors_section(errors: dict[str, dict], total: int, heading: str) -> list[str]:
    """Return the report's lines on the wrong answers of a relation; none where all are right.

    Args:
        errors: of `find_errors`, for the relation.
        total: how many questions of it were asked.
        heading: "##", or what its sections' headings begin with below another one.
    """
    wrong = sum(row["count"] for row in errors.values())
    if not wrong:
        return []
    rows = [
        [label_of(name), str(row["count"]), *map(percent, (row["share"], row["count"] / total, row["by_chance"]))]
        for name, row in errors.items()
    ]
    lines = [
        f"{heading} What went wrong\n",
        f"{wrong} of {total} answers are wrong. Each is in the first class that fits, from top to bottom; what the "
        "first class has could not be learned. By chance: the share of a class if each person is given the wrong "
        "answer about another; where that is as large, it does not matter who is asked about.\n",
        markdown_table(["class", "wrong answers", "share of them", "share of all", "by chance"], rows),
        f"The surest of each class, at most {max(len(row['examples']) for row in errors.values())}, with the "
        "probability that the model gives to its answer (not calibrated):\n",
    ]
    for name, row in errors.items():
        if row["examples"]:
            cells = [example_cells(example) for example in row["examples"]]
            lines += [
                f"{heading}# {label_of(name).capitalize()}\n",
                markdown_table(["question", "answer", "right", "probability", "why"], cells),
            ]
    return lines


def example_cells(example: dict) -> list[str]:
    """Return the cells of an example's row."""
    right = " or ".join(example.get("accepted", [example["right"]]))
    texts = [literal(text) for text in (example["question"], example["answer"], right, why(example))]
    return [*texts[:3], percent(example["probability"]), texts[3]]


def errors_line(errors: dict[str, dict]) -> str | None:
    """Say which classes most of the wrong answers are in; None where there are none."""
    largest = sorted(errors.items(), key=lambda item: -item[1]["count"])[:LARGEST]
    parts = [f"{label_of(name)} ({percent(row['share'])})" for name, row in largest if row["count"]]
    return f"Of the wrong answers: {', '.join(parts)}." if parts else None
