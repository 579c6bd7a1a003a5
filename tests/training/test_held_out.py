"""A run that holds questions out says at each checkpoint how many of them are answered, and trains as without."""

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from configuration.recipe import load_recipe
from tests.running import call
from training import held_out
from training.checkpoints import Progress
from training.held_out import held_out_accuracy
from training.run_context import build_run, init_model

HELD_OUT = "data.validation_questions=6"
EVERY_STEP = "run.checkpoint_minutes=1e-9"


def test_each_checkpoint_is_asked_and_the_accuracy_is_tracked(recipe, data, tmp_path, monkeypatch, capfd):
    answered = iter([0.0, 0.5, 0.5, 0.5, 0.5, 1.0])
    monkeypatch.setattr(held_out, "fraction", lambda right: next(answered))
    assert call("pretrain", recipe, data, tmp_path / "run", HELD_OUT, EVERY_STEP) == 0
    log = EventAccumulator(str(tmp_path / "run" / "logs" / "pretrain"))
    log.Reload()
    points = [(point.step, point.value) for point in log.Scalars("pretrain/held_out_accuracy")]
    assert points == [(1, 0.0), (2, 0.5), (3, 0.5), (4, 0.5), (5, 0.5), (6, 1.0)]
    assert "pretrain 6: held-out accuracy 100.0 % (6 questions)" in capfd.readouterr().err


def test_the_held_out_questions_of_every_relation_are_asked_about_the_same_people_each_time(
    recipe, data, tmp_path, monkeypatch
):
    asked = []
    ask = held_out.ask_model
    monkeypatch.setattr(
        held_out, "ask_model", lambda model, tokenizer, questions, how: asked.append(questions) or ask(
            model, tokenizer, questions, how
        ),
    )  # fmt: skip
    run = build_run(load_recipe(recipe, [f"data.path={data}", f"output={tmp_path / 'run'}", HELD_OUT]))
    for _ in range(2):
        held_out_accuracy(run, "pretrain", init_model(run), Progress())
    assert asked == [list(run.data.held_out)] * 2
    monkeypatch.setattr(held_out, "MAX_PEOPLE", 3)
    chosen = held_out.chosen_questions(run)
    assert len(chosen) == 3
    assert set(chosen) < set(run.data.held_out)


def test_questions_that_cannot_be_asked_do_not_end_training(recipe, data, tmp_path, monkeypatch, capfd):
    def fail(*arguments):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(held_out, "ask_model", fail)
    assert call("pretrain", recipe, data, tmp_path / "run", HELD_OUT, EVERY_STEP) == 0
    assert "pretrain 6: the held-out questions were not asked: out of memory" in capfd.readouterr().err


def test_nothing_is_asked_where_nothing_is_held_out(recipe, data, tmp_path, capfd):
    assert call("pretrain", recipe, data, tmp_path / "run", EVERY_STEP) == 0
    assert "held-out" not in capfd.readouterr().err


def test_asking_draws_no_random_number_and_changes_no_weight(recipe, data, tmp_path):
    run = build_run(load_recipe(recipe, [f"data.path={data}", f"output={tmp_path / 'run'}", HELD_OUT]))
    model = init_model(run).train()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    state = torch.get_rng_state()
    found = held_out_accuracy(run, "pretrain", model, Progress())
    assert 0 <= found["held_out_accuracy"] <= 1
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
