"""A pipeline computes what was calibrated, also in training mode, with checkpoints, under autocast and in threads."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments

from evaluation.calibration import rank_and_measure
from modeling_minigpt.evaluation_mode_minigpt import as_calibrated
from tests.attention_variants import VARIANTS, tiny_model
from tests.pipelines import NAMES, QUESTIONS, pipeline_factory


@pytest.fixture(scope="module")
def fresh():
    """A function that gives a fresh calibrated pipeline."""
    return pipeline_factory()


@pytest.fixture
def ask(fresh):
    """A calibrated pipeline of a model of its own, in training mode and with dropout."""
    ask = fresh()
    with_dropout(ask.model).train()
    return ask


def with_dropout(model):
    """Turn dropout on in a model that was built without."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.5
    return model


def modes(model):
    """Return which modules are in training mode."""
    return [module.training for module in model.modules()]


def test_a_model_in_training_mode_answers_as_in_evaluation_mode(fresh, ask):
    expected = fresh()(QUESTIONS)
    ask.model.model.layers[0].eval()  # frozen by its owner
    before = modes(ask.model)
    assert ask(QUESTIONS) == ask(QUESTIONS) == expected
    assert all(result["calibrated"] for result in expected)
    assert ask.rank(NAMES) == fresh().rank(NAMES)
    assert modes(ask.model) == before
    assert len(set(before)) == 2


def test_features_are_measured_in_evaluation_mode_too(fresh, ask):
    (ranked, features), (wanted_ranked, wanted) = (rank_and_measure(one, NAMES) for one in (ask, fresh()))
    assert ranked == wanted_ranked
    assert (features == wanted).all()


def test_the_mode_is_put_back_after_an_error(ask, monkeypatch):
    def break_down(*arguments, **settings):
        assert not any(modes(ask.model))
        raise RuntimeError("the machine is full")

    monkeypatch.setattr(ask.model.model, "forward", break_down)
    with pytest.raises(RuntimeError, match="the machine is full"):
        ask(NAMES)
    assert all(modes(ask.model))


def test_between_the_batches_of_a_stream_a_model_has_its_own_mode(ask):
    results = ask(iter(NAMES), batch_size=1)
    for _ in NAMES:
        assert next(results)["calibrated"]
        assert all(modes(ask.model))


def test_the_last_of_several_threads_puts_the_mode_back(ask):
    """A call that ends must not give dropout to another one that is computing."""
    inside = threading.Event()
    first_ended = threading.Event()

    def compute():
        with as_calibrated(ask.model):
            inside.set()
            assert first_ended.wait(60)
            return modes(ask.model)

    with ThreadPoolExecutor(1) as pool:
        with as_calibrated(ask.model):
            other = pool.submit(compute)
            assert inside.wait(60)
        first_ended.set()
        assert not any(other.result())
    assert all(modes(ask.model))


@pytest.mark.parametrize("variant", [*VARIANTS, "vanilla"])
def test_checkpoints_and_a_config_without_a_cache_change_no_answer(fresh, variant):
    ask = fresh()
    ask.model = tiny_model(variant, vocab_size=len(ask.tokenizer), eos_token_id=ask.tokenizer.eos_token_id)
    ask.model.generation_config.max_new_tokens = 6
    expected = ask(QUESTIONS, threshold=0)
    ask.model.config.use_cache = False
    assert ask(QUESTIONS, threshold=0) == expected
    ask.model.gradient_checkpointing_enable()
    ask.model.train()
    assert ask(QUESTIONS, threshold=0) == expected


def test_a_trainers_model_answers_as_it_is(fresh, tmp_path):
    ask = fresh()
    expected = ask(QUESTIONS)
    settings = TrainingArguments(
        tmp_path,
        max_steps=1,
        learning_rate=0.0,
        gradient_checkpointing=True,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
    )
    collator = DataCollatorForLanguageModeling(ask.tokenizer, mlm=False)
    rows = [{"input_ids": ask.tokenizer(question)["input_ids"]} for question in QUESTIONS]
    trainer = Trainer(with_dropout(ask.model), settings, train_dataset=rows, data_collator=collator)
    trainer.train()
    assert ask.model.training
    assert ask(QUESTIONS) == expected


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_around_a_call_changes_no_score(fresh, dtype):
    ask = fresh()
    expected = ask(QUESTIONS)
    with torch.autocast("cpu", dtype=dtype):
        assert ask(QUESTIONS) == expected
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_autocast_dtype("cpu") == dtype
