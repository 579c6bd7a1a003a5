"""What people read of the wrong answers: a section of the report, and a line in the terminal."""

from evaluation.errors import CLASSES
from evaluation.tables import CHANCES, PAGE_WIDTH, chance, literal, page_table, percent, table_line

LARGEST = 2  # classes in the terminal
MIN_PHRASE_WIDTH = 20  # characters of a phrase around an answer, however long the rest of its row is


def label_of(name: str) -> str:
    """Return the label of a class, or its name if another version wrote it."""
    return CLASSES[name].label if name in CLASSES else name


def shorten_around(phrase: str, answer: str, width: int) -> str:
    """Return at most `width` characters of a phrase, the words around an answer in it, with an ellipsis for each end.

    "… Marquet (born 1981 in Alfortville, France) is a …" is "… in Alfortville, …" in 20 around "Alfortville".
    """
    if len(phrase) <= width:
        return phrase
    middle = max(0, phrase.find(answer)) + len(answer) // 2
    first = max(0, min(middle - width // 2, len(phrase) - width))
    last = first + width
    begin = "… " if first > 0 else ""
    end = " …" if last < len(phrase) else ""
    part = phrase[first + len(begin) : last - len(end)]
    if begin and answer in (rest := part.partition(" ")[2]):  # without what is left of a word that was cut
        part = rest
    if end and answer in (rest := part.rpartition(" ")[0]):
        part = rest
    return f"{begin}{part}{end}"


def why(example: dict, width: int) -> str:
    """Say why an example is in its class; of a phrase, at most `width` characters around the answer."""
    if "whose" in example:
        return example["whose"]
    if "phrase" in example:
        return f"“{shorten_around(example['phrase'], example['answer'], width - 2)}”"
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
        f"{wrong} of {total} answers are wrong. Each is counted in the first class that fits, from top to bottom; "
        "those in the first class could not have been learned. By chance: the share of the class after each person is "
        "given another person's wrong answer; where it is as large as the share of the wrong answers, the class does "
        "not depend on who is asked about.\n",
        page_table(["class", "wrong answers", "of wrong answers", "of all answers", "by chance"], rows),
        f"The most confident of each class, at most {max(len(row['examples']) for row in errors.values())}, with the "
        "model's uncalibrated probability of its answer:\n",
    ]
    for name, row in errors.items():
        if row["examples"]:
            cells = [example_cells(example) for example in row["examples"]]
            lines += [
                f"{heading}# {label_of(name).capitalize()}\n",
                page_table(["question", "answer", "right answer", "probability", "why"], cells, left=(0, 1, 2, 4)),
            ]
    return lines


def example_cells(example: dict) -> list[str]:
    """Return the cells of an example's row."""
    cells = [example["question"], example["answer"], right_answer(example), percent(example["probability"])]
    used = len(table_line([*map(literal, cells), ""]))
    return [*cells, why(example, max(MIN_PHRASE_WIDTH, PAGE_WIDTH - used))]


def right_answer(example: dict) -> str:
    """Return the right answers to an example's question."""
    return " or ".join(example.get("accepted", [example["right"]]))


def wrong_answers_section(rows: list[dict], heading: str) -> list[str]:
    """Return the report's lines on the most confident wrong answers, `surest_wrong`; none where all are right."""
    if not rows:
        return []
    cells = [
        [
            row["question"],
            row["answer"] or "(none)",
            right_answer(row),
            *(chance(row[name]) for name in CHANCES),
            "yes" if row["given"] else "no",
        ]
        for row in rows
    ]
    return [
        f"{heading} Most confident wrong answers\n",
        f"The {len(rows)} with the highest scores, of the pipeline, which chooses among candidates. Known is the "
        "probability that the person is in the training texts, correct the probability that the answer is right if "
        "so, and score their product, or the model's own probability if it is not calibrated. An answer is given if "
        "both reach the certified thresholds.\n",
        page_table(["question", "answer", "right answer", *CHANCES, "given"], cells, left=(0, 1, 2)),
    ]


def errors_line(errors: dict[str, dict]) -> str | None:
    """Say which classes most of the wrong answers are in; None where there are none."""
    largest = sorted(errors.items(), key=lambda item: -item[1]["count"])[:LARGEST]
    parts = [f"{label_of(name)} ({percent(row['share'])})" for name, row in largest if row["count"]]
    return f"Of the wrong answers: {', '.join(parts)}." if parts else None
