"""A pipeline around a model of random weights, for the tests of what it is asked and of where it is loaded from."""

from modeling_minigpt import build_bpe_tokenizer
from tests.attention_variants import tiny_model

PLACES = ["Rome", "Romeo", "Rome West", "Ada"]
NAMES = [
    f"{first} {last}" for first in ("Ada", "Bo", "Béla", "Cyd") for last in ("Stone", "Quint", "Nagy", "Moss-Lind")
]
LINES = [f"{name}. {name} was born in {place} ." for name in NAMES for place in PLACES]


def random_parts():
    """Return the parts of a pipeline around a model of random weights."""
    tokenizer = build_bpe_tokenizer(LINES, 320, 128)
    model = tiny_model("vanilla", vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id)
    model.generation_config.max_new_tokens = 6
    return {"model": model, "tokenizer": tokenizer, "device": "cpu"}
