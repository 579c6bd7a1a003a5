"""Find the phrases of a biography that are worth asking for: names, places, and whatever answers a question."""

from collections.abc import Iterable, Set
from functools import lru_cache

from data_scripts.name_finder import goes_on_after, goes_on_before
from data_scripts.words import IS_UNSPACED, WORD, find_words

Spans = list[tuple[int, int]]


def capitalised_phrases(text: str, words: Spans | None = None) -> Spans:
    """Return (start, end) of the runs of capitalised words, those joined by a hyphen too.

    Args:
        words: (start, end) of the text's words, where they are known.
    """
    phrases: Spans = []
    for start, end in find_words(text) if words is None else words:
        if not text[start].isupper():
            continue
        # "New York" and "Saint-Denis" are one phrase; "Paris, Texas" is two, as a comma separates its words.
        if phrases and text[phrases[-1][1] : start] in (" ", "-"):
            phrases[-1] = (phrases[-1][0], end)
        else:
            phrases.append((start, end))
    return phrases


class AnswerFinder:
    """Finds answers in texts, as whole words, by looking each word up: of any number of answers at once.

    "Rio de Janeiro" is found under its first word, "Rio", and "'s-Hertogenbosch" under "s", which begins after one
    character. Without capitals, or in a script that has none, this is all that separates a place from other words.

    Args:
        answers: of the training questions.
    """

    def __init__(self, answers: Iterable[str]):
        self.by_first_word: dict[str, list[tuple[int, str]]] = {}
        # The longest first: of "York" and "York County", the text may have the latter.
        for answer in sorted(answers, key=lambda answer: (-len(answer), answer)):
            if words := find_words(answer):
                start, end = words[0]
                self.by_first_word.setdefault(answer[start:end], []).append((start, answer))

    def find(self, text: str, words: Spans | None = None) -> Spans:
        """Return (start, end) of the answers in a text, none of which overlap; `words` as `capitalised_phrases`."""
        if words is None:
            words = find_words(text)
        found: Spans = []
        ends: set[int] = set()  # of the words; found only where something begins as an answer does
        reached = 0
        for start, end in words:
            for offset, answer in self.by_first_word.get(text[start:end], ()):
                first = start - offset
                last = first + len(answer)
                if first < reached or not text.startswith(answer, first):
                    continue
                ends = ends or {end for _, end in words}
                # An answer that begins and ends with the text's words is whole. Around any other it has to be seen:
                # "Rom." is not in "Rom.ania", nor "'s-Hertogenbosch" in "Jan's-Hertogenbosch".
                if (offset and goes_on_before(text, first)) or (last not in ends and goes_on_after(text, last)):
                    continue
                found.append((first, last))
                reached = last
                break
        return found


def salient_phrases(
    title: str,
    body: str,
    answers: AnswerFinder | None = None,
    words: Spans | None = None,
    known: Set[str] | None = None,
) -> Spans:
    """Return (start, end) of the body's phrases that say more than the title.

    These are runs of capitalised words that do not open the body, and answers that are not part of such a run.

    Args:
        words: (start, end) of the body's words, where they are known.
        known: the title's words, where they are known.
    """
    if words is None:
        words = find_words(body)
    if known is None:
        known = set(WORD.findall(title))
    phrases = [(start, end) for start, end in capitalised_phrases(body, words) if start > 0]
    for start, end in answers.find(body, words) if answers is not None else ():
        crossed = [phrase for phrase in phrases if phrase[0] < end and start < phrase[1]]
        # "Rome" in "Rome West" is part of the longer name; "Rio de Janeiro" replaces the two names in it.
        if not any(first <= start and end <= last for first, last in crossed):
            phrases = [phrase for phrase in phrases if phrase not in crossed] + [(start, end)]
    return [span for span in sorted(phrases) if not is_known(body[slice(*span)], title, known)]


@lru_cache(maxsize=2**16)  # places are in many biographies
def words_to_know(phrase: str) -> frozenset[str]:
    """Return the words of a phrase; none where every character is a word."""
    return frozenset() if IS_UNSPACED.search(phrase) else frozenset(WORD.findall(phrase))


def is_known(phrase: str, title: str, words: Set[str]) -> bool:
    """Return whether somebody who has read a title, of these words, can copy a phrase, or a part of it, from there."""
    # Whoever reads "Ada Stone. Stone was born in Rome" can copy Stone, but has to know Rome. Where every character is
    # a word, one that a name shares with a place gives nothing away.
    if phrase_words := words_to_know(phrase):
        return not words.isdisjoint(phrase_words)
    return phrase in title
