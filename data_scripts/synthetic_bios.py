"""Invent people: biographies and birthplace questions with no network, no licence and no real person.

    python -m data_scripts.synthetic_bios FOLDER --people 800 --seed 0

writes the four files of the cs224n layout. Names and places are put together from syllables, and each person has
several differently worded lines, as in bioS (Allen-Zhu and Li 2023, arXiv 2309.14316). Half of the people with a
question have it in the training file; the others' birthplaces stand in their biographies only. The biographies of a
few do not say the birthplace, so the best possible score, the ceiling, is known and below one.
"""

import argparse
import os
import random
import sys
from dataclasses import dataclass
from pathlib import Path

from configuration.data_schema import MAX_PEOPLE, MIN_PEOPLE
from configuration.errors import run_main, show
from data_scripts.bios_folder import FILES, DataError
from data_scripts.questions import Question, question_about

ONSETS = ("b", "br", "d", "dr", "f", "g", "gr", "h", "j", "k", "l", "m", "n", "p", "r", "s", "st", "t", "tr", "v", "z")
VOWELS = ("a", "e", "i", "o", "u", "ae", "ia", "ou")
CODAS = ("", "", "l", "n", "r", "s", "k", "th", "m")
PLACE_ENDINGS = ("burg", "ford", "haven", "mouth", "stad", "ton", "vale", "wick", "by", "minster")
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July",
    "August", "September", "October", "November", "December",
)  # fmt: skip
TRADES = (
    "painter", "botanist", "composer", "cricketer", "judge", "novelist", "engineer", "bishop", "chemist", "sculptor",
    "journalist", "admiral", "surgeon", "footballer", "architect", "poet", "physicist", "actor", "historian",
)  # fmt: skip
BORN = (
    "{name} (born {day} {month} {year} in {place}) was {a_trade} .",
    "Born in {place}, {last} became {a_trade} in {later} .",
    "{name} was born in {place} on {month} {day}, {year} and worked as {a_trade} .",
    "{last} was born at {place}, where the family had lived since {before} .",
    "By profession {a_trade}, {last} was born in {place} and moved to {home} in {later} .",
    "{name}, {a_trade} from {place}, was born there in {year} .",
)
SILENT = (
    "{name} (born {day} {month} {year}) was {a_trade} .",
    "{last} became {a_trade} in {later} and lived in {home} .",
    "{name} worked as {a_trade} until {later} .",
    "By profession {a_trade}, {last} moved to {home} in {later} .",
)
# As in real data, some questions cannot be answered: their people's lines do not say where they were born.
SILENT_FRACTION = 0.05
TEST_FRACTION = 0.25  # of the people without a training question, those without any answer file


@dataclass(frozen=True)
class SyntheticBios:
    """Invented biographies and questions.

    Attributes:
        documents: `Title. Sentence .` lines, several per person, shuffled.
        train, validation: questions with their places.
        test: questions without answers.
        ceiling: the share of validation questions whose answer is in a document.
    """

    documents: list[str]
    train: list[Question]
    validation: list[Question]
    test: list[Question]
    ceiling: float

    def write(self, folder: Path) -> None:
        """Write the four files of the cs224n layout into `folder`, which is made where it is missing."""
        folder.mkdir(parents=True, exist_ok=True)
        contents = {
            "documents": self.documents,
            "train": [f"{question.text}\t{question.answer}" for question in self.train],
            "validation": [f"{question.text}\t{question.answer}" for question in self.validation],
            "test": [question.text for question in self.test],
        }
        for key, lines in contents.items():
            (folder / FILES[key]).write_text("\n".join(lines) + "\n", encoding="utf-8")


def invent_word(rng: random.Random, syllables: int) -> str:
    """Put together one capitalised word."""
    return "".join(rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS) for _ in range(syllables)).capitalize()


def invent_distinct(count: int, make) -> list[str]:
    """Return `count` different results of `make()`, in order of first appearance."""
    found: dict[str, None] = {}  # a dict as an ordered set
    while len(found) < count:
        found.setdefault(make())
    return list(found)


def invent_lines(name: str, place: str, silent: bool, homes: list[str], lines: int, rng: random.Random) -> list[str]:
    """Write differently worded lines about one person, which agree about the facts."""
    year = rng.randint(1820, 1990)
    trade = rng.choice(TRADES)
    facts = {
        "name": name, "last": name.split()[-1], "place": place, "year": year,
        "a_trade": f"an {trade}" if trade[0] in "aeiou" else f"a {trade}",
        "day": rng.randint(1, 28), "month": rng.choice(MONTHS), "later": year + rng.randint(18, 50),
        "before": year - rng.randint(10, 90), "home": rng.choice([home for home in homes if home != place]),
    }  # fmt: skip
    templates = SILENT if silent else BORN
    # Without repetition: what differs between the lines of a person is the wording, what they share is the facts.
    chosen = rng.sample(templates, min(lines, len(templates)))
    return [f"{name}. {template.format(**facts)}" for template in chosen]


def invent(people: int, seed: int = 0, lines: int = 4) -> SyntheticBios:
    """Invent `people` people with up to `lines` lines each; a pure function of its arguments.

    Places are drawn with weights 1 / (rank + 3), so that a most popular one exists, as in real data.

    Raises:
        DataError: fewer than `MIN_PEOPLE`, too few for every file to have a line; or more than `MAX_PEOPLE`.
    """
    if not MIN_PEOPLE <= people <= MAX_PEOPLE:
        raise DataError(f"wanted {MIN_PEOPLE} to {MAX_PEOPLE:,} people, found {people}")
    # A string seeds Random by its hash, the same on every platform, and apart from other uses of the same number.
    rng = random.Random(f"synthetic bios {seed}")
    firsts = invent_distinct(max(8, people // 8), lambda: invent_word(rng, 2))
    lasts = invent_distinct(
        max(12, people // 3), lambda: invent_word(rng, 2) + rng.choice(("", "", "son", "ez", "ov"))
    )
    names = invent_distinct(people, lambda: f"{rng.choice(firsts)} {rng.choice(lasts)}")
    places = invent_distinct(60, lambda: invent_word(rng, 1) + rng.choice(PLACE_ENDINGS))
    weights = [1 / (rank + 3) for rank in range(len(places))]
    asked = people // 2
    held_back = people - asked
    test = round(held_back * TEST_FRACTION)
    documents = []
    questions = []
    answerable = []
    for name in names:
        place = rng.choices(places, weights)[0]
        silent = rng.random() < SILENT_FRACTION
        documents += invent_lines(name, place, silent, places, lines, rng)
        questions.append(question_about(name, place))
        answerable.append(not silent)
    rng.shuffle(documents)  # else a person's lines would be neighbours, and in one batch without sorting
    validation = slice(asked, people - test)
    return SyntheticBios(
        documents=documents,
        train=questions[:asked],
        validation=questions[validation],
        test=[question._replace(answers=()) for question in questions[people - test :]],
        ceiling=sum(answerable[validation]) / len(answerable[validation]),
    )


def check_free(folder: Path) -> None:
    """Raise DataError where one of the four files is there already: it may be somebody's own."""
    for name in FILES.values():
        if os.path.lexists(folder / name):
            raise DataError(f"{folder / name}: is there already, wanted a folder without {', '.join(FILES.values())}")


def main(argv: list[str] | None = None) -> int:
    """Write the folder; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where to write the four files")
    parser.add_argument("--people", type=int, default=800, help="how many people to invent (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="random seed (%(default)s)")
    arguments = parser.parse_args(argv)

    def command() -> None:
        check_free(arguments.folder)
        bios = invent(arguments.people, arguments.seed)
        try:
            bios.write(arguments.folder)
        except (OSError, ValueError) as error:  # the latter for a NUL in the name
            raise DataError(
                f"{arguments.folder}: cannot be written: {getattr(error, 'strerror', None) or error}"
            ) from error
        show(
            f"{arguments.folder}: {len(bios.documents)} lines about {arguments.people} people, {len(bios.train)} "
            f"training and {len(bios.validation)} dev questions; at best {bios.ceiling:.1%} of the latter can be "
            "answered"
        )

    return run_main(command)


if __name__ == "__main__":
    sys.exit(main())
