"""A text that is tokenised once, and whose tokens can be looked up by the positions of its characters."""

from collections.abc import Iterable, Sequence
from itertools import chain, pairwise

import numpy as np
from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase

from data_scripts.words import SPACE, classify, unspaced_places

Spans = Sequence[tuple[int, int]]
OPENERS = '([{<"“„«`'  # after these a word has other tokens than after a space


class TokenizedText:
    """Token ids of texts one after the other, and a sentinel after the last.

    A span is chosen by its characters and looked up here, so that nothing is tokenised twice. "Ada. Born in Rome" with
    one token a word:

        token        Ada.  Born  in  Rome  sentinel
        begins at       0     5  10    13        17

    `place[13]` is 3 and `place[17]` is 4, so the characters 13 … 16, "Rome", are the tokens `ids[3:4]`. `place[12]` is
    3 as well: the space before a word belongs to the word's token.

    Args:
        ids: the tokens of all texts; (tokens,).
        begins: where each token begins, white space at its front aside; rising, (tokens,).
        length: characters of all texts.
        sentinel: the id of the sentinel.

    Attributes:
        ids: the tokens of all texts, and the sentinel's; (tokens + 1,).
        place: for each position in the text, the place in `ids` of the first token that begins there or after it; for
            the sentinel's position, `length`, and the one after it too.
    """

    def __init__(self, ids: np.ndarray, begins: np.ndarray, length: int, sentinel: int):
        self.ids = np.append(ids, sentinel)
        # How many tokens begin before each position: those that begin at it are counted from the next one on.
        counts = np.bincount(begins + 1, minlength=length + 2)
        counts[length + 1] += 1  # the sentinel
        self.place = np.cumsum(counts)


def tokenize(
    tokenizer: PreTrainedTokenizerBase, text: str, starts: np.ndarray, phrases: Spans = ()
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the tokens of texts, where each begins, as `TokenizedText` wants them, and how many each text has.

    Args:
        tokenizer: gives ids.
        text: all texts.
        starts: position of each text's first character, and the last one's end; (N + 1,).
        phrases: (start, end) of phrases, which have the tokens that they have alone, as if a space stood before them:
            also after an opening bracket or quotation mark, and in scripts without spaces.
    """
    # Tokenised part by part: no token may reach over the end of a text, or over the beginning of a phrase that has the
    # tokens of the phrase alone.
    bounds = sorted({*starts.tolist(), *find_bounds(text, phrases)})
    parts = encode(tokenizer, cut(text, bounds))
    length = np.array([len(part) for part in parts], np.int64)
    ids = flat_array((number for part in parts for number in part.ids), length.sum())
    offsets = flat_array((bound for part in parts for bound in chain.from_iterable(part.offsets)), 2 * length.sum())
    words = flat_array((-1 if word is None else word for part in parts for word in part.word_ids), length.sum())
    limits = np.array(bounds, np.int64)
    spans = offsets.reshape(-1, 2) + np.repeat(limits[: len(parts)], length)[:, None]
    # A token of no word at the end, as a tokenizer may add one, is after the part's text.
    last = np.cumsum(length)[length > 0] - 1
    is_added = words[last] < 0
    spans[last[is_added]] = limits[1:][length > 0][is_added, None]
    # A word of one part is none of the next one's.
    words += np.repeat(np.arange(len(parts)) << 32, length)
    until = np.concatenate([[0], np.cumsum(length)])[np.searchsorted(limits, starts)]
    return ids, find_begins((classify(text) & SPACE) > 0, spans, words), np.diff(until)


def flat_array(numbers: Iterable[int], count: int) -> np.ndarray:
    """Return that many numbers as an array."""
    return np.fromiter(numbers, np.int64, count)


def cut(text: str, bounds: Sequence[int]) -> list[str]:
    """Return the parts of a text between bounds."""
    return [text[first:end] for first, end in pairwise(bounds)]


def find_bounds(text: str, phrases: Spans) -> set[int]:
    """Return the positions at which a text is cut, so that its phrases have the tokens that they have alone."""
    unspaced = unspaced_places(text)
    bounds = set()
    for start, end in phrases:
        before = text[start - 1 : start]
        # Of 生于北京市 the phrase 北京 is cut out on both sides; punctuation and spaces are tokens anyway.
        if before and (before in OPENERS or (unspaced[start] and not before.isspace())):
            bounds.add(start)
        if end < len(text) and unspaced[end]:
            bounds.add(end)
    return bounds


def encode(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[Encoding]:
    """Tokenise texts, whatever their number and length, each on its own."""
    # Not by calling the tokenizer, which takes as long again to put ids and offsets into dictionaries.
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    return backend.encode_batch(texts)


def find_begins(space: np.ndarray, spans: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Return where each token begins, white space at its front aside; (tokens,).

    A token that is nothing but the space before a word begins where the word does.

    Args:
        space: whether each character of the text is white space; (characters,).
        spans: (start, end) of each token; (tokens, 2).
        words: the word of the text that each token is of; -1 is none; (tokens,).
    """
    position = np.arange(len(space) + 1)
    following = np.minimum.accumulate(np.where(np.append(space, False), len(space), position)[::-1])[::-1]
    begins = following[spans[:, 0]]
    is_blank = begins >= spans[:, 1]
    begins[is_blank] = spans[is_blank, 0]
    # Space, space, word, all of one word of the tokenizer: both begin where the third does.
    copies = np.append(is_blank[:-1] & (words[:-1] == words[1:]), False)
    number = np.arange(len(begins))
    source = np.minimum.accumulate(np.where(copies, len(begins), number)[::-1])[::-1]
    return begins[source]
