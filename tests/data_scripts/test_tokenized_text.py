"""Texts tokenised once: pieces of them, in turn, are all their tokens, and phrases have those of answers."""

import numpy as np
import pytest

from data_scripts.tokenized_text import TokenizedText, tokenize
from modeling_minigpt import build_bpe_tokenizer, build_character_tokenizer

TEXTS = ["Ada Stone. Painter in Bern (Győr) ,  twice .", "Béla. Born in N'Djamena ."]
WHOLE = "".join(TEXTS)
STARTS = np.array([0, len(TEXTS[0]), len(WHOLE)])


def tokenized(tokenizer, text, starts, phrases=()):
    ids, begins, _ = tokenize(tokenizer, text, starts, phrases)
    return TokenizedText(ids, begins, len(text), tokenizer.mask_token_id)


def read(tokenizer, phrases=()):
    """Return a function that decodes the tokens of text[first:end]."""
    text = tokenized(tokenizer, WHOLE, STARTS, phrases)
    return lambda first, end: tokenizer.convert_ids_to_tokens(text.ids[text.place[first] : text.place[end]].tolist())


def test_characters_are_their_own_tokens():
    tokens = read(build_character_tokenizer(TEXTS, 64))
    for first in range(0, len(WHOLE), 3):
        for end in range(first, len(WHOLE) + 1, 4):
            assert "".join(tokens(first, end)) == WHOLE[first:end]


def test_behind_the_last_text_stands_a_sentinel():
    tokenizer = build_character_tokenizer(TEXTS, 64)
    assert read(tokenizer)(len(WHOLE), len(WHOLE) + 1) == [tokenizer.mask_token]


@pytest.mark.parametrize("size", [258, 290, 400])
@pytest.mark.parametrize("phrase", ["Bern", "Győr", "Painter in Bern"])
def test_a_phrase_has_the_tokens_that_it_has_as_an_answer(size, phrase):
    tokenizer = build_bpe_tokenizer(TEXTS, size, 64)
    first = WHOLE.index(phrase)
    spans = [(WHOLE.index(word), WHOLE.index(word) + len(word)) for word in ("Bern", "Győr")]
    tokens = read(tokenizer, spans)
    assert tokens(first, first + len(phrase)) == tokenizer.tokenize(phrase)


@pytest.mark.parametrize("size", [258, 290, 400])
def test_pieces_in_turn_are_the_whole_text(size):
    tokenizer = build_bpe_tokenizer(TEXTS, size, 64)
    tokens = read(tokenizer)
    for cut in range(len(WHOLE)):
        assert tokens(0, cut) + tokens(cut, len(WHOLE)) == tokens(0, len(WHOLE))
    assert tokens(0, len(TEXTS[0])) == tokenizer.tokenize(TEXTS[0])


def test_no_texts_are_a_sentinel_alone():
    tokenizer = build_character_tokenizer(TEXTS, 64)
    text = tokenized(tokenizer, "", np.array([0]))
    assert text.ids.tolist() == [tokenizer.mask_token_id]
    assert text.place.tolist() == [0, 1]
