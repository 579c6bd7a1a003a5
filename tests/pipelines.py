"""A tiny calibrated pipeline of two relations, for the tests of those who call one from many threads or requests."""

import itertools
from collections.abc import Callable, Sequence

from transformers import PreTrainedTokenizerBase

from modeling_minigpt import ClosedBookPipeline, build_bpe_tokenizer
from modeling_minigpt.confidence_minigpt import Confidence, Head
from modeling_minigpt.features_minigpt import feature_names
from modeling_minigpt.relations_minigpt import BIRTHPLACE, Relation
from modeling_minigpt.risk_control_minigpt import CalibrationScores, Certificate
from tests.attention_variants import tiny_model

STUDIED = Relation("studied", "Where did {name} study?", ("{name}. studied at",), ("{name}'s university?",), "school")
RELATIONS = [BIRTHPLACE, STUDIED]
WORDS = ["Rome", "West", "Ada", "Nagy", "Moss", "Bo"]
# More birthplaces than are scored in full, so one relation searches for the best and the other scores all.
CANDIDATES = {
    "birthplace": [" ".join(words) for words in itertools.permutations(WORDS, 4)],
    "studied": ["Oslo", "Rome", "Rome West"],
}
NAMES = ["Ada Stone", "Béla Moss-Lind", "Bo Nagy", "Cyd Stone"]
QUESTIONS = [relation.format(name) for name in NAMES for relation in RELATIONS]
# As they are in training, and as people type them: without capitals, accents and hyphens, and of other lengths.
TYPED = [text.lower().replace("é", "e").replace("-", " ") for text in QUESTIONS]
TEXTS = [*QUESTIONS, *TYPED, "Bo Bo Bo Stone Stone", "???"]
HALVES = [CalibrationScores([(0.9, 0.9, True)] * 40 + [(0.9, 0.01, False)] * 10, [(0.001, 0.9)] * 100)] * 2


def calibration(relation: Relation) -> Confidence:
    """Return a made-up calibration whose thresholds everybody reaches."""
    certificate = Certificate(0.01, 0.02, 0.1, 0.05, 0.95, 50, 40, 0, 100, 0)
    head = Head(dict.fromkeys(feature_names(relation), 0.05), 1.0)
    return Confidence(head, head, *HALVES, certificate)


def build_bpe(lines: Sequence[str]) -> PreTrainedTokenizerBase:
    """Return the tokenizer that a pipeline has by default."""
    return build_bpe_tokenizer(lines, 320, 128)


def pipeline_factory(build_tokenizer: Callable[[Sequence[str]], PreTrainedTokenizerBase] = build_bpe):
    """Return a function that gives a fresh pipeline at each call, always of the same model of random weights."""
    tokenizer = build_tokenizer([f"{text} {' '.join(WORDS)} Oslo. studied at university?" for text in TEXTS])
    model = tiny_model("vanilla", vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id)
    model.generation_config.max_new_tokens = 6
    confidence = {relation.name: calibration(relation) for relation in RELATIONS}
    knowledge = {"relations": RELATIONS, "candidates": CANDIDATES, "confidence": confidence, "names": NAMES}
    return lambda: ClosedBookPipeline(model=model, tokenizer=tokenizer, device="cpu", **knowledge)
