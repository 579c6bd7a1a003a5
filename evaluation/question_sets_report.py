"""What people read of public question sets: a section of the report, and a line each in the terminal."""

from collections.abc import Iterator

from evaluation.tables import literal, page_table, percent


def interval(row: dict) -> str:
    """Write a share and its interval: `12.3 % (9.8 – 15.2 %)`."""
    if row["accuracy"] is None:
        return percent(None)
    low, high = (f"{100 * end:.1f}" for end in row["interval"])
    return f"{percent(row['accuracy'])} ({low} – {high} %)"


def each_relation(sets: dict[str, dict]) -> Iterator[tuple[str, dict]]:
    """Yield each set's name, with the relation's where it asks for several, and the figures."""
    for name, of_set in sets.items():
        several = len(of_set["relations"]) > 1
        for relation, values in of_set["relations"].items():
            yield (f"{name}, {relation}" if several else name), values


def sets_lines(sets: dict[str, dict]) -> list[str]:
    """Return the lines of the terminal."""
    return [
        f"{name}: {interval(values)} of {values['total']} questions answered correctly, and "
        f"{interval(values['of_people_in_texts'])} of the {values['in_texts']} about people in the training texts"
        for name, values in each_relation(sets)
    ]


def describe_set(name: str, of_set: dict) -> str:
    """Say in one line where a set is from."""
    version = {"revision": "revision", "license": "licence", "sha256": "SHA-256"}
    parts = [f"{label} {of_set[key]}" for key, label in version.items() if of_set.get(key)]
    source = literal(", ".join([of_set["path"], *parts]))
    return f"- {literal(name)}: {source}. Rows about other properties: {of_set['others']}.\n"


def sets_section(sets: dict[str, dict]) -> list[str]:
    """Return the report's lines on public question sets; none where the recipe names none.

    Args:
        sets: of results.json.
    """
    if not sets:
        return []
    lines = [
        "## Public question sets\n",
        "Accuracy is exact match with any accepted answer, with 95 % Wilson intervals. “Contains” also counts answers "
        "that contain an accepted one. A person is in the texts if a training document has the name; “with an answer” "
        "counts those named in one together with an accepted answer. “Answered” is the fraction of questions answered "
        "at the certified thresholds: of all, of those about people in the texts, and of the others.\n",
        *(describe_set(name, of_set) for name, of_set in sets.items()),
        accuracy_table(sets),
        knowledge_table(sets),
    ]
    for name, values in each_relation(sets):
        lines += popularity_section(name, values["by_popularity"])
        lines += documents_section(name, values["by_documents"])
    return lines


def accuracy_table(sets: dict[str, dict]) -> str:
    """Return the accuracies, and what happens at the certified thresholds."""
    columns = [
        "set",
        "questions",
        "accuracy",
        "contains",
        "answered",
        "accuracy if answered",
        "answered: in texts",
        "answered: others",
    ]
    shares = ("contains", "answered", "answered_right", "answered_in_texts", "answered_not_in_texts")
    rows = [
        [name, str(values["total"]), interval(values), *(percent(values[key]) for key in shares)]
        for name, values in each_relation(sets)
    ]
    return page_table(columns, rows)


def knowledge_table(sets: dict[str, dict]) -> str:
    """Return how many of the people the texts name, and what the model had seen or could not read."""
    columns = ["set", "in texts", "accuracy, in texts", "by alias only", "with an answer", "trained on", "not asked"]
    counts = ("only_by_alias", "answer_in_texts", "trained", "not_asked")
    rows = [
        [
            name,
            str(values["in_texts"]),
            interval(values["of_people_in_texts"]),
            *(str(values[key]) for key in counts),
        ]
        for name, values in each_relation(sets)
    ]
    return page_table(columns, rows)


def popularity_section(name: str, rows: list[dict]) -> list[str]:
    """Return the table by popularity, in bins of about equally many questions; nothing for a set without any."""
    if not rows:
        return []
    cells = [[f"{row['min']:,} – {row['max']:,}", str(row["total"]), interval(row)] for row in rows]
    return [
        f"### {literal(name)}, by popularity\n",
        page_table(["page views per month", "questions", "accuracy"], cells),
    ]


def documents_section(name: str, rows: list[dict]) -> list[str]:
    """Return the table by how many documents name the person."""
    cells = [[row["times"], str(row["total"]), interval(row)] for row in rows]
    columns = ["documents that name the person", "questions", "accuracy"]
    return [f"### {literal(name)}, by number of training documents\n", page_table(columns, cells)]
