"""A text that is tokenised once, and whose tokens can be looked up by the positions of its characters."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from tokenizers import Encoding
from transformers import BatchEncoding, PreTrainedTokenizerBase

from data_scripts.words import unspaced_places

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
        tokenizer: gives ids; its mask token is the sentinel.
        text: all texts.
        starts: position of each text's first character, and the last one's end; (N + 1,).
        phrases: (start, end) of phrases, which have the tokens that they have alone, as if a space stood before them:
            also after an opening bracket or quotation mark, and in scripts without spaces.

    Attributes:
        ids: the tokens of all texts, and the sentinel's; (tokens + 1,).
        place: for each position in the text, the place in `ids` of the first token that begins there or after it,
            white space at its front aside; for the sentinel's position, `len(text)`, and the one after it too.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, text: str, starts: np.ndarray, phrases: Spans = ()):
        bounds = sorted({*starts.tolist(), *find_bounds(text, phrases)})
        parts = cut(text, bounds)
        encoded = encode(tokenizer, parts, return_offsets_mapping=True)
        ids = []
        begins = []
        # Tokenised part by part: no token may reach over the end of a text, or over the beginning of a phrase that has
        # the tokens of the phrase alone.
        for number, (first, part) in enumerate(zip(bounds, parts, strict=False)):
            ids += encoded["input_ids"][number]
            begins += [first + begin for begin in find_begins(part, encoded.encodings[number])]
        self.ids = np.array([*ids, tokenizer.mask_token_id], np.int64)
        # `begins` rises, so the first token at or after each position is found by bisection.
        place = np.searchsorted(np.array([*begins, len(text)]), np.arange(len(text) + 2))
        self.place = place.astype(np.min_scalar_type(len(self.ids)))  # there is one for each character


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


def encode(tokenizer: PreTrainedTokenizerBase, texts: list[str], **options) -> BatchEncoding:
    """Tokenise texts, whatever their number and length."""
    if not texts:
        return BatchEncoding({"input_ids": []})
    return tokenizer(texts, return_attention_mask=False, verbose=False, **options)  # it would warn of long ones


def find_begins(text: str, encoding: Encoding) -> list[int]:
    """Return where each token of a text begins, white space at its front aside.

    A token that is nothing but the space before a word begins where the word does.
    """
    # From the back, because a token of white space alone begins where the token after it does.
    begins = []
    following = len(text)
    following_word = None
    for (start, end), word in zip(reversed(encoding.offsets), reversed(encoding.word_ids), strict=True):
        piece = text[start:end]
        if piece.strip():
            following = start + len(piece) - len(piece.lstrip())
            following_word = word
        elif word != following_word:
            following = start
            following_word = word
        begins.append(following)
    return begins[::-1]
