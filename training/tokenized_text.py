"""A text that is tokenised once, and whose tokens can be looked up by the positions of its characters."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from transformers import PreTrainedTokenizerBase


class TokenizedText:
    """Texts one after the other, and a sentinel behind the last, as token ids.

    Args:
        tokenizer: gives ids; its mask token is the sentinel.
        text: all texts.
        starts: position of each text's first character, and the last one's end; (N + 1,).
        phrases: positions where phrases start; a phrase has the tokens that it has alone, whatever stands before it.

    Attributes:
        ids: the tokens of all texts, and the sentinel's; (tokens + 1,).
        place: for each position in the text, the place in `ids` of the first token that begins there or after it,
            white space at its front aside; for the sentinel's position, `len(text)`, and the one after it too.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, text: str, starts: np.ndarray, phrases: Sequence[int] = ()):
        after_no_space = {start for start in phrases if start and not text[start - 1].isspace()}
        bounds = sorted({*starts.tolist(), *after_no_space})
        parts = [text[first:end] for first, end in pairwise(bounds)]
        encoded = encode(tokenizer, parts, return_offsets_mapping=True)
        ids, begins = [], []
        for first, part, own, offsets in zip(
            bounds, parts, encoded["input_ids"], encoded["offset_mapping"], strict=False
        ):
            ids += own
            begins += [first + start + count_spaces(part[start:end]) for start, end in offsets]
        self.ids = np.array([*ids, tokenizer.mask_token_id], np.int64)
        self.place = np.searchsorted(np.array([*begins, len(text)]), np.arange(len(text) + 2))


def encode(tokenizer: PreTrainedTokenizerBase, texts: list[str], **options) -> Mapping[str, list]:
    """Tokenise texts, whatever their number and length."""
    if not texts:
        return defaultdict(list)
    return tokenizer(texts, return_attention_mask=False, verbose=False, **options)  # it would warn of long ones


def count_spaces(piece: str) -> int:
    """Return how many characters of white space a piece begins with; 0 where it is nothing else."""
    return len(piece) - len(piece.lstrip()) if piece.strip() else 0
