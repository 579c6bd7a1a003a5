"""Precision and compilation: the faster format, to the end of a run; compiled blocks that compute the same."""

import json
from dataclasses import asdict

import pytest
import torch
from accelerate import PartialState
from torch._dynamo.utils import counters

from artifacts.run_folder import RunError, RunFolder
from configuration.recipe import load_recipe
from modeling_minigpt.attention_minigpt import ATTENTION_CLASSES
from tests.running import command_line, finish, patched, start_torchrun
from training import precision
from training.machine_speed import Speeds
from training.precision import NumberFormats, can_compile, choose_formats, compiled_parts

CPU = torch.device("cpu")
FAST = Speeds({"float32": 1e11, "bfloat16": 5e11}, {"float32": 0.012, "bfloat16": 0.007}, {})


@pytest.fixture
def load(recipe, data, tmp_path):
    """Return a function that loads the tiny recipe with `auto`, or what else is set."""
    PartialState(cpu=True)
    paths = [f"data.path={data}", f"output={tmp_path / 'run'}", 'run.mixed_precision="auto"']
    return lambda *overrides: load_recipe(recipe, [*paths, *overrides])


def begin(folder, formats):
    """Leave what a run that was stopped leaves."""
    (folder.checkpoints / "pretrain-00000001").mkdir(parents=True)
    folder.machine.write_text(json.dumps(asdict(formats)), encoding="utf-8")


@pytest.mark.parametrize(("speeds", "chosen"), [(FAST, "bfloat16"), (Speeds(), "float32")], ids=["fast", "slow"])
def test_the_format_is_the_faster_one_unless_the_recipe_fixes_it(load, monkeypatch, tmp_path, speeds, chosen):
    monkeypatch.setattr(precision, "measure_recipe", lambda recipe, device: speeds)
    folder = RunFolder(tmp_path / "run")
    assert choose_formats(load(), folder).model == chosen
    assert choose_formats(load('run.mixed_precision="no"'), folder).precision == "no"
    assert choose_formats(load('run.mixed_precision="bf16"'), folder).precision == "bf16"


def test_what_was_measured_is_said_in_one_line(load, monkeypatch, tmp_path):
    monkeypatch.setattr(precision, "measure_recipe", lambda recipe, device: FAST)
    formats = choose_formats(load(), RunFolder(tmp_path / "run"))
    assert str(formats) == "bfloat16, Muon in float32 (float32 12 ms, bfloat16 7 ms per layer)"
    assert formats.rates == {"float32": 100.0, "bfloat16": 500.0}
    assert formats.muon_dtype is torch.float32


def test_a_resumed_run_continues_in_its_format_and_warns_where_that_is_slow(load, monkeypatch, tmp_path, caplog):
    caplog.set_level("WARNING", "training")
    folder = RunFolder(tmp_path / "run")
    monkeypatch.setattr(precision, "measure_recipe", lambda recipe, device: FAST)
    began = choose_formats(load(), folder)
    begin(folder, began)
    assert choose_formats(load(), folder) == began
    monkeypatch.setattr(precision, "measure_recipe", lambda recipe, device: Speeds())  # too busy to be measured
    assert choose_formats(load(), folder) == began
    assert not caplog.records
    monkeypatch.setattr(precision, "measure_recipe", lambda recipe, device: Speeds(given_up={"bfloat16": "slow"}))
    assert choose_formats(load(), folder) == began
    (record,) = caplog.records
    assert "continues in the number format that it began in, bfloat16" in record.getMessage()
    assert "this machine is faster in float32 (bfloat16: slow)" in record.getMessage()
    assert choose_formats(load('run.mixed_precision="no"'), folder).model == "float32"


def test_a_run_that_left_nothing_to_resume_is_measured_again(load, monkeypatch, tmp_path):
    folder = RunFolder(tmp_path / "run")
    begin(folder, NumberFormats("bfloat16", "float32", "measured elsewhere"))
    (folder.checkpoints / "pretrain-00000001").rmdir()
    assert choose_formats(load(), folder).model == "float32"


@pytest.mark.parametrize(
    "record",
    [
        '{"model": "float8", "muon": "float32", "reason": ""}',
        '{"model": "float32", "muon": "float32", "reason": "", "rates": {"float32": "fast"}}',
        '{"format": 1}',
        "[]",
    ],
)
def test_a_damaged_record_is_refused_in_one_line(load, tmp_path, record):
    folder = RunFolder(tmp_path / "run")
    begin(folder, NumberFormats("float32", "float32", ""))
    folder.machine.write_text(record)
    with pytest.raises(RunError, match=r"machine.json: .*(float8|format|list)"):
        choose_formats(load(), folder)


DISAGREE = """
import os, sys
from training import precision, run_context
faster = {"float32": 2.0, "bfloat16": 1.0} if os.environ["RANK"] == "0" else {"float32": 1.0, "bfloat16": 2.0}
precision.measure_recipe = lambda recipe, device: precision.Speeds(layer=faster)
original = run_context.start_accelerator
def start_accelerator(chosen, *arguments):
    sys.stderr.write(f"rank {os.environ['RANK']} computes in {chosen}\\n")
    return original(chosen, *arguments)
run_context.start_accelerator = start_accelerator
"""


def test_all_processes_compute_in_what_the_main_one_has_chosen(recipe, data, tmp_path):
    words = command_line("pretrain", recipe, data, tmp_path / "run", 'run.mixed_precision="auto"')
    done = finish(start_torchrun(words, program=patched(tmp_path, DISAGREE)))
    assert done.returncode == 0, done.stderr
    assert {f"rank {rank} computes in bf16" for rank in (0, 1)} <= set(done.stderr.splitlines())
    assert done.stderr.count("number format: bfloat16") == 1


def test_the_format_is_in_the_results_and_the_report(run):
    recorded = json.loads((run / "machine.json").read_text())
    assert json.loads((run / "results.json").read_text())["machine"] == recorded
    line = f"Number format: {recorded['model']}, Muon's products in {recorded['muon']}"
    assert line in (run / "report.md").read_text(encoding="utf-8").split("## Training")[1]


# What turns scores into weights: torch's kernel or softmax, the Performer's exponentials, or the system that the delta
# rule solves. The Linformer's are in bfloat16.
KERNEL = (torch.nn.functional, "scaled_dot_product_attention")
WEIGHTING = [  # attention, whether with a cache, and what computes its weights
    ("vanilla", False, KERNEL),
    ("bigbird", False, KERNEL),
    ("window", False, KERNEL),
    ("performer", False, (torch.Tensor, "exp")),
    ("gated_deltanet", False, (torch.linalg, "solve_triangular")),
    ("selected", False, KERNEL),
    ("selected", True, (torch.Tensor, "softmax")),
]


@pytest.mark.parametrize(("attention", "use_cache", "function"), WEIGHTING)
def test_attention_weights_are_computed_in_float32_under_cpu_autocast(
    tiny_model, attention, use_cache, function, monkeypatch
):
    owner, name = function
    original = getattr(owner, name)
    seen = []

    def record(*tensors, **settings):
        result = original(*tensors, **settings)
        seen.append(result.dtype)
        if owner is KERNEL[0]:  # whose gradient is slow in bfloat16, so its operands are float32 as well
            seen.extend(tensor.dtype for tensor in tensors)
            assert not torch.is_autocast_enabled("cpu")
        return result

    monkeypatch.setattr(owner, name, record)
    ids = torch.arange(48).reshape(2, 24)
    with torch.autocast("cpu", torch.bfloat16):
        tiny_model(attention_type=attention)(ids, labels=ids, use_cache=use_cache).loss.backward()
    assert set(seen) == {torch.float32}


@pytest.fixture
def compiler():
    if not can_compile(CPU):
        pytest.skip("needs a C++ compiler")
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def loss_and_gradients(model, batch):
    model.zero_grad()
    labels = batch.masked_fill(torch.arange(batch.shape[1]) < 5, -100)  # as the loop has it: no loss on titles
    loss = model(batch, labels=labels, num_items_in_batch=batch.numel() - 1, use_cache=False, skip_logits=True).loss
    loss.backward()
    return [loss.detach(), *(parameter.grad.clone() for parameter in model.parameters())]


# Two kinds in one model, and each of the others alone.
MODELS = [["vanilla", "linformer"], *(name for name in ATTENTION_CLASSES if name not in ("vanilla", "linformer"))]


@pytest.mark.parametrize("attention", MODELS, ids=str)
def test_compiled_parts_compute_the_same_at_every_length_and_are_the_models_own_again(tiny_model, compiler, attention):
    model = tiny_model(attention_type=attention)
    batches = [
        torch.randint(2, 300, size, generator=torch.Generator().manual_seed(0))
        for size in ((3, 19), (8, 20), (20, 20), (8, 7), (5, 33), (8, 60), (2, 12))
    ]
    expected = [loss_and_gradients(model, batch) for batch in batches]
    own = [set(vars(module)) for module in model.modules()]
    with compiled_parts(model, CPU, rows=8):
        assert all("forward" in vars(block) for block in model.model.layers)
        counters.clear()
        found = [loss_and_gradients(model, batch) for batch in batches]
        assert not counters["stats"], "what the warm-up compiled was not used"
    assert [set(vars(module)) for module in model.modules()] == own
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_warming_up_leaves_no_trace(tiny_model, compiler):
    model = tiny_model(residual_dropout=0.1)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with compiled_parts(model, CPU, rows=8):
        assert torch.equal(torch.get_rng_state(), before)
        assert all(parameter.grad is None for parameter in model.parameters())


def test_without_a_compiler_a_warning_says_so_and_training_continues(tiny_model, monkeypatch, caplog):
    monkeypatch.setenv("CXX", "no-such-compiler")
    PartialState(cpu=True)  # Accelerate's loggers ask it whether this process is the one that speaks
    model = tiny_model()
    with compiled_parts(model, CPU, rows=8):
        loss_and_gradients(model, torch.full((2, 5), 5))
    assert "run.compile needs a compiler" in caplog.text
