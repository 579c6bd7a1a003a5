"""A pipeline computes what was calibrated, also in training mode, with checkpoints, under autocast and in threads.

Nor does it depend on the number format in which torch makes new tensors.
"""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments

from evaluation.calibration import rank_and_measure
from modeling_minigpt.drift_minigpt import ks_p_value
from modeling_minigpt.evaluation_mode_minigpt import as_calibrated
from modeling_minigpt.risk_control_minigpt import CalibrationScores, threshold_for
from tests.attention_variants import VARIANTS, draw_tokens, left_pad, tiny_model
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


@pytest.fixture(params=[torch.bfloat16, torch.float16, torch.float64], ids=str)
def in_default_dtype(request):
    """A function that calls another one while the number format of new tensors is another one."""

    def call(function, *arguments, **settings):
        torch.set_default_dtype(request.param)
        try:
            return function(*arguments, **settings)
        finally:
            torch.set_default_dtype(torch.float32)

    return call


@pytest.mark.parametrize("settings", [{}, {"free_form": True}, {"cutoff": 0.01}], ids=["usual", "free-form", "cutoff"])
def test_the_number_format_of_new_tensors_changes_no_score(fresh, in_default_dtype, settings):
    ask = fresh()
    assert in_default_dtype(ask, QUESTIONS, threshold=0, **settings) == ask(QUESTIONS, threshold=0, **settings)


def test_the_number_format_of_new_tensors_changes_no_certificate_and_no_drift(in_default_dtype):
    people = [(number / 700, 1.0 - (number % 300) / 300, number % 300 < 270) for number in range(700)]
    halves = [CalibrationScores(people, [(0.001 * number, 0.5) for number in range(300)]) for _ in range(2)]
    target = {"risk": 0.2, "stranger_rate": 0.3}
    assert in_default_dtype(threshold_for, *halves, **target) == threshold_for(*halves, **target)
    logged, calibrated = ([number / scale for number in range(300)] for scale in (320, 300))
    assert in_default_dtype(ks_p_value, logged, calibrated) == ks_p_value(logged, calibrated)


def test_the_number_format_of_new_tensors_changes_no_loss(in_default_dtype):
    model = tiny_model("vanilla")
    ids, mask = left_pad([draw_tokens(length, seed=length) for length in (50, 60, 61)])
    batch = {"attention_mask": mask, "labels": ids.masked_fill(mask == 0, 5)}
    batch["num_items_in_batch"] = torch.tensor(3 * 60)
    assert torch.equal(in_default_dtype(model, ids, **batch).loss, model(ids, **batch).loss)
