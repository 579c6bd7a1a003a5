"""Invented people who are asked where they were born and where they studied: data of two relations for tests."""

import random
from pathlib import Path

from data_scripts.bios_folder import FILES
from data_scripts.synthetic_bios import invent

STUDIED = "relations.studied.question=Where did {name} study?"
SCHOOLS = ("Alpha College", "Beta University", "Gamma Institute", "Delta Academy")


def write_two_relations(folder: Path, people: int = 60, seed: int = 3, birthplaces: bool = True) -> Path:
    """Write the four files of the layout, with where each person studied in one more document and one more question.

    Args:
        birthplaces: whether birthplaces are asked for, too.
    """
    bios = invent(people, seed)
    rng = random.Random(seed)
    bios.write(folder)
    schools: dict[str, str] = {}
    lines = []
    for question in (*bios.train, *bios.validation, *bios.test):
        schools[question.name] = rng.choice(SCHOOLS)
        lines.append(f"{question.name}. {question.name.split()[-1]} studied at {schools[question.name]} .")
    (folder / FILES["documents"]).write_text("\n".join([*bios.documents, *lines]) + "\n", encoding="utf-8")
    for key, questions in (("train", bios.train), ("validation", bios.validation), ("test", bios.test)):
        rows = []
        for question in questions:
            answers = key != "test"
            studied = f"Where did {question.name} study?"
            rows.append(f"{studied}\t{schools[question.name]}" if answers else studied)
            if birthplaces:
                rows.append(f"{question.text}\t{question.answer}" if answers else question.text)
        (folder / FILES[key]).write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder
