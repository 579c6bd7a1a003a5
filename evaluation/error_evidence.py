"""What documents and training answers have of wrong answers, gathered in one pass for all of them.

Only what the wrong answers ask for is remembered: a person's documents, people who have an answer and a part of the
person's name, how often two phrases are written with a comma between. Any number of documents needs the same memory.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Set
from itertools import permutations
from typing import NamedTuple

import regex

from data_scripts.name_finder import NameFinder
from data_scripts.questions import Question
from data_scripts.titles import split_title
from data_scripts.words import OUTSIDE, name_parts
from evaluation.baselines import states

NEAREST_OF = 20  # people with an answer, the first ones found, among which the nearest in name is searched
CONTEXT = 40  # characters of a document before and after an answer
COMMAS = (", ", "，", "、")
MIN_PAIRS = 2  # documents with "Paris, France", from which Paris is in France,
MIN_PAIR_SHARE = 0.1  # and as a share of those that name Paris
SUFFIXES = frozenset(["jr", "sr", "ii", "iii", "iv"])  # which are no last names
SIDES = ("first", "last")


class WrongAnswer(NamedTuple):
    """A wrong answer.

    Attributes:
        question: what was asked.
        text: the answer, without white space around it.
        probability: the model's uncalibrated probability of it.
    """

    question: Question
    text: str
    probability: float

    @property
    def title(self) -> str:
        """The title of the person's documents; the full stop of "Bo Lind Jr." is also the title's."""
        return self.question.name.rstrip(".")


class Evidence:
    """What documents and training answers have of some wrong answers, gathered one by one.

    Args:
        wrong: the answers. What is remembered grows with these alone.

    Attributes:
        named: documents that name each phrase, a wrong or a right answer or two with a comma between.
        trained: wrong answers that are training answers.
        documents: how many there are of each title that is asked about.
        taught: (title, right answer) of those that are in one of them.
        own: by (title, wrong answer), where one of them has it.
        relatives: by (wrong answer, side, part of a name), a person with that part of a name who has the answer.
        others: some people who have each wrong answer.
    """

    def __init__(self, wrong: Iterable[WrongAnswer]):
        self.people: set[str] = set()
        self.accepted: dict[str, set[str]] = defaultdict(set)
        self.wanted: set[tuple[str, str]] = set()
        self.answers: set[str] = set()
        self.relatives: dict[tuple[str, str, str], str | None] = {}
        phrases: set[str] = set()
        for one in wrong:
            text = one.text
            self.people.add(one.question.name)
            self.accepted[one.title].update(one.question.answers)
            if not text:
                continue
            self.answers.add(text)
            self.wanted.add((one.title, text))
            self.relatives.update({(text, *part): None for part in sides(one.title)})
            for right in filter(None, one.question.answers):
                phrases.add(right)
                phrases.update(comma.join(pair) for pair in permutations((right, text)) for comma in COMMAS)
        self.finder = NameFinder(phrases | self.answers)
        self.named: Counter[str] = Counter()
        self.trained: set[str] = set()
        self.documents: Counter[str] = Counter()
        self.taught: set[tuple[str, str]] = set()
        self.own: dict[tuple[str, str], str] = {}
        self.others: dict[str, dict[str, None]] = defaultdict(dict)  # dicts as ordered sets

    def add_document(self, document: str) -> None:
        """Take what a document says."""
        title = split_title(document, self.people)[0].rstrip(".")
        if title in self.accepted:
            self.documents[title] += 1
            # As the ceiling does: what is not in this class is below the ceiling.
            self.taught.update((title, right) for right in self.accepted[title] if states(document, right))
        phrases = self.finder.find(document)
        self.named.update(phrases)
        self._add_person(title, phrases & self.answers, document)

    def add_training_question(self, question: Question) -> None:
        """Take what is learned from a training question."""
        answers = self.answers.intersection(question.answers)
        self.trained |= answers
        self._add_person(question.name.rstrip("."), answers, f"{question.text} {' '.join(question.answers)}")

    def _add_person(self, title: str, answers: Set[str], text: str) -> None:
        """Take that a text about a person, or about nobody, has some of the wrong answers."""
        if not title or not answers:
            return
        parts = sides(title)
        for answer in answers:
            if (title, answer) in self.wanted and (title, answer) not in self.own:
                self.own[title, answer] = excerpt(answer, text)
            for part in parts:
                if self.relatives.get((answer, *part), "") is None:
                    self.relatives[(answer, *part)] = title
            people = self.others[answer]
            if len(people) < NEAREST_OF:
                people[title] = None

    def is_known(self, answer: str) -> bool:
        """Return whether a document or a training answer has a wrong answer."""
        return self.named[answer] > 0 or answer in self.trained

    def relative(self, wrong: WrongAnswer, side: str) -> str | None:
        """Return a person who has the answer, and the first or last name of who is asked about; None without one."""
        found = (self.relatives[(wrong.text, *part)] for part in sides(wrong.title) if part[0] == side)
        return next(found, None)

    def place_around(self, wrong: WrongAnswer) -> str | None:
        """Return the phrase, "Paris, France", by which a right and the wrong answer are in each other; else None.

        Where "France, Paris" is written more than half as often, it is a list.
        """
        pairs = [pair for right in wrong.question.answers for pair in permutations((right, wrong.text))]
        for inner, outer in pairs:
            for comma in COMMAS:
                phrase = f"{inner}{comma}{outer}"
                count = self.named[phrase]
                least = max(MIN_PAIRS, MIN_PAIR_SHARE * self.named[inner], 2 * self.named[f"{outer}{comma}{inner}"])
                if count >= least:
                    return phrase
        return None


def sides(name: str) -> list[tuple[str, str]]:
    """Return ("first", first name) and ("last", last name) of a name of several parts; "Jr." is none."""
    words = name.split(" ")
    while len(words) > 1 and words[-1].rstrip(".").casefold() in SUFFIXES:
        words.pop()
    parts = name_parts(" ".join(words).rstrip(","))
    return [] if parts is None else list(zip(SIDES, parts, strict=True))


def excerpt(answer: str, text: str) -> str:
    """Return an answer with what a text has around it, cut between words."""
    found = regex.search(OUTSIDE[0] + regex.escape(answer) + OUTSIDE[1], text)
    start, end = found.span() if found else (0, 0)
    before = text[:start]
    if len(before) > CONTEXT:
        before = f"… {before[-CONTEXT:].partition(' ')[2]}"
    after = text[end:]
    if len(after) > CONTEXT:
        after = f"{after[:CONTEXT].rpartition(' ')[0]} …"
    return before + text[start:end] + after
