"""One pipeline, called from many threads at once: every answer is the one that a single thread gets."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from modeling_minigpt import build_character_tokenizer
from tests.pipelines import NAMES, TEXTS, build_bpe, pipeline_factory

THREADS = 16


class PausingTokenizer:
    """A `tokenizers.Tokenizer` in which other threads come between what is set and what is encoded."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)

    def encode_batch(self, *arguments, **settings):
        time.sleep(0.001)
        return self.tokenizer.encode_batch(*arguments, **settings)


@pytest.mark.parametrize(
    "build_tokenizer", [build_bpe, lambda lines: build_character_tokenizer(lines, 128)], ids=["bpe", "characters"]
)
def test_threads_that_ask_at_once_get_what_one_thread_gets(build_tokenizer):
    fresh = pipeline_factory(build_tokenizer)
    expected = list(map(fresh(), TEXTS))
    shared = fresh()  # nothing that is built when it is first needed is there yet
    shared.encoder._tokenizer = PausingTokenizer(shared.encoder.backend_tokenizer)
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(shared, TEXTS))
    assert found == expected
    assert [result["question"] for result in expected if result["abstained"]] == ["???"]
    assert {result["matched_name"] for result in expected} == {*NAMES, None}
