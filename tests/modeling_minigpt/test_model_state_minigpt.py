"""A calibration is used for the model that it was made for, and no longer once that model is changed in memory."""

import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from modeling_minigpt import ClosedBookPipeline
from modeling_minigpt import knowledge_minigpt as knowledge
from modeling_minigpt.fingerprint_minigpt import weights_digest
from modeling_minigpt.model_state_minigpt import model_key
from tests.pipelines import NAMES, RELATIONS, calibration, pipeline_factory

WEIGHTS = "its weights, or their number format, are not those that it was calibrated with"
FUNCTION = "its config computes another function than the one that was calibrated"


@pytest.fixture
def ask():
    """A calibrated pipeline around a model of its own."""
    return pipeline_factory()()


def add_noise(ask):
    with torch.no_grad():
        for parameter in ask.model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)


def add_noise_in_inference_mode(ask):
    with torch.inference_mode():
        ask.model.lm_head.weight.add_(0.1)


def write_through_data(ask):
    ask.model.model.layers[0].mlp.down_proj.weight.data += 0.1


def replace_a_weight(ask):
    head = ask.model.lm_head
    head.weight = torch.nn.Parameter(head.weight.detach() * 2)


def load_other_weights(ask):
    ask.model.load_state_dict({name: one * 1.1 for name, one in ask.model.state_dict().items()})


def change_the_tokens_of_an_answer(ask):
    ask.model.generation_config.max_new_tokens = 1


def change_the_config(ask):
    ask.model.config.norm_eps = 0.5


CHANGES = [
    (add_noise, WEIGHTS),
    (add_noise_in_inference_mode, WEIGHTS),
    (write_through_data, WEIGHTS),
    (replace_a_weight, WEIGHTS),
    (load_other_weights, WEIGHTS),
    (lambda ask: ask.model.to(torch.bfloat16), WEIGHTS),
    (change_the_tokens_of_an_answer, FUNCTION),
    (change_the_config, FUNCTION),
]


@pytest.mark.parametrize(("change", "reason"), CHANGES)
def test_a_model_that_is_changed_in_memory_is_no_longer_calibrated(ask, change, reason):
    before = ask(NAMES)
    assert all(result["calibrated"] and not result["abstained"] for result in before)
    change(ask)
    results = ask([*NAMES, RELATIONS[1].format(NAMES[0])])
    for result in results:
        assert not result["calibrated"]
        assert result["answer"] is result["known"] is None
        assert result["reason"] == f"not calibrated: {reason} (threshold=0 answers always)"
    assert ask.uncalibrated == ask.facts["studied"].uncalibrated == reason


def compile_whole(model):
    return torch.compile(model, backend="eager")


def compile_blocks(model):
    for index, block in enumerate(model.model.layers):
        model.model.layers[index] = torch.compile(block, backend="eager")
    return model


@pytest.mark.parametrize("wrap", [compile_whole, compile_blocks])
def test_a_model_in_a_wrapper_is_the_one_that_was_calibrated(ask, tmp_path, wrap):
    expected = ask(NAMES)
    ask.save_pretrained(tmp_path)
    model = type(ask.model).from_pretrained(tmp_path)
    wrapped = ClosedBookPipeline(model=wrap(model), tokenizer=ask.tokenizer)
    assert wrapped.uncalibrated is None
    assert wrapped(NAMES) == expected
    ask.model = wrap(ask.model)
    assert ask.fingerprint() == wrapped.fingerprint()
    assert ask(NAMES) == expected


def test_a_model_that_was_compiled_is_saved_with_its_calibration(ask, tmp_path):
    expected = ask(NAMES)
    ask.save_pretrained(tmp_path / "before")
    model = type(ask.model).from_pretrained(tmp_path / "before")
    loaded = ClosedBookPipeline(model=model, tokenizer=ask.tokenizer)
    loaded.model = compile_whole(loaded.model)
    loaded.save_pretrained(tmp_path / "after")
    model = type(ask.model).from_pretrained(tmp_path / "after")
    assert ClosedBookPipeline(model=model, tokenizer=ask.tokenizer)(NAMES) == expected


def test_the_digest_of_weights_sees_through_wrappers_without_a_config(ask):
    """As DDP, which needs a process group, and DataParallel name them."""
    expected = weights_digest(ask.model)
    assert weights_digest(torch.nn.DataParallel(ask.model)) == expected
    assert weights_digest(torch.nn.DataParallel(compile_whole(ask.model))) == expected
    add_noise(ask)
    assert weights_digest(torch.nn.DataParallel(ask.model)) != expected


def quantise(model):
    """Return a copy whose linear layers have weights of 8 bits, in a form that is no tensor."""
    return torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)


class OpaqueWeight(torch.Tensor):
    """A weight as a library of number formats has it: of all functions it knows those of a linear layer."""

    PRODUCTS = ("linear", "mm")
    VIEWS = ("detach", "alias", "t.default")

    @staticmethod
    def __new__(cls, weight):
        return torch.Tensor._make_wrapper_subclass(cls, weight.shape, dtype=weight.dtype)

    def __init__(self, weight):
        self.plain = weight

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), settings=None):
        if not any(name in str(function) for name in cls.PRODUCTS + cls.VIEWS):
            raise NotImplementedError(f"{function} of an opaque weight")
        plain = [one.plain if isinstance(one, cls) else one for one in arguments]
        found = function(*plain, **(settings or {}))
        return found if any(name in str(function) for name in cls.PRODUCTS) else cls(found)


def make_opaque(model):
    head = model.lm_head
    head.weight = torch.nn.Parameter(OpaqueWeight(head.weight.detach()), requires_grad=False)
    return model


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated")
@pytest.mark.parametrize(("convert", "kind"), [(quantise, "tuple"), (make_opaque, "OpaqueWeight of torch.float32")])
def test_weights_that_cannot_be_compared_are_not_calibrated_and_answer(ask, tmp_path, convert, kind):
    ask.save_pretrained(tmp_path)
    model = convert(type(ask.model).from_pretrained(tmp_path))
    loaded = ClosedBookPipeline(model=model, tokenizer=ask.tokenizer)
    ask(NAMES[0])
    ask.model = model
    for one in (loaded, ask):
        result = one(NAMES[0])
        assert (result["answer"], result["calibrated"]) == (None, False)
        assert result["reason"] == f"not calibrated: {one.uncalibrated} (threshold=0 answers always)"
        assert one.uncalibrated.startswith("its weights cannot be compared with those that it was calibrated with: lm")
        assert one.uncalibrated.endswith(f" is a {kind}, as in a quantised model")
        assert one(NAMES[0], threshold=0)["answer"]


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated")
def test_a_calibration_of_weights_that_cannot_be_compared_ends_with_any_change(ask):
    confidence = {relation.name: calibration(relation) for relation in RELATIONS}
    parts = {"model": quantise(ask.model), "tokenizer": ask.tokenizer, "relations": RELATIONS}
    quantised = ClosedBookPipeline(**parts, confidence=confidence)
    assert quantised(NAMES[0])["calibrated"]
    change_the_config(quantised)
    assert not quantised(NAMES[0])["calibrated"]


def test_a_model_that_cannot_be_compared_is_saved_without_its_calibration(ask, tmp_path, monkeypatch, caplog):
    def refuse(*parts):
        raise ValueError("its weights are not in memory")

    monkeypatch.setattr(knowledge, "fingerprint_model", refuse)
    ask.save_pretrained(tmp_path)
    assert (tmp_path / "facts.json").exists()
    assert not (tmp_path / "confidence.json").exists()
    assert "birthplace: saved without its calibration: its weights are not in memory" in caplog.text


def test_a_change_between_two_batches_of_one_call_is_seen(ask):
    results = ask(iter(NAMES), batch_size=1)
    assert next(results)["calibrated"]
    add_noise(ask)
    assert not next(results)["calibrated"]


def test_a_stored_calibration_is_dropped_with_a_warning_and_not_saved(ask, tmp_path, caplog):
    ask.save_pretrained(tmp_path)
    model = ask.model
    loaded = ClosedBookPipeline(model=type(model).from_pretrained(tmp_path), tokenizer=ask.tokenizer)
    assert loaded(NAMES[0])["calibrated"]
    assert (tmp_path / "confidence.json").is_file()
    add_noise(loaded)
    assert not loaded(NAMES[0])["calibrated"]
    assert f"birthplace: not calibrated, so no question gets an answer unless threshold=0 is given: {WEIGHTS}" in (
        caplog.text
    )
    add_noise(ask)
    ask.save_pretrained(tmp_path)
    assert not (tmp_path / "confidence.json").exists()


def test_a_calibration_that_is_made_after_a_change_is_of_the_changed_model(ask):
    add_noise(ask)
    ask.set_confidence("studied", calibration(RELATIONS[1]))
    assert [ask(NAMES[0], relation=name)["calibrated"] for name in ask.facts] == [False, True]


def test_a_certificate_is_of_one_calibration(ask, tmp_path):
    """Its thresholds say nothing of another model's scores, nor of the same model's after it was calibrated again."""
    asked = NAMES[0]
    refusal = "the certificate given is of another calibration than this model's (threshold=0 answers always)"
    certificates = [ask.threshold_for(risk=0.5, stranger_rate=1.0), ask.confidence.threshold_for(risk=0.5)]
    expected = [ask(asked, threshold=one) for one in certificates]
    assert all(result["reason"] != refusal for result in expected)
    ask.save_pretrained(tmp_path)
    model = type(ask.model).from_pretrained(tmp_path)
    loaded = ClosedBookPipeline(model=model, tokenizer=ask.tokenizer)
    copies = [pickle.loads(pickle.dumps(one)) for one in certificates]  # as kept by a service, or sent to a process
    assert [loaded(asked, threshold=one) for one in copies] == expected
    lenient = replace(ask.confidence.correct, bias=9.0)
    half = replace(ask.confidence.certification, strangers=[(0.2, 0.9)] * 100)
    for change in ({"known": lenient}, {"correct": lenient}, {"selection": half}, {"certification": half}):
        loaded.confidence = replace(ask.confidence, **change)
        for one in certificates:
            result = loaded(asked, threshold=one)
            assert (result["answer"], result["reason"]) == (None, refusal)
        own = loaded.threshold_for(risk=0.5, stranger_rate=1.0)
        assert loaded(asked, threshold=own)["reason"] != refusal
        expected_of_own = loaded(asked, threshold=own)
        del vars(own)["calibration"]  # as in a pickle of an older version, which does not say of which one it is
        assert loaded(asked, threshold=own) == expected_of_own


def test_use_moves_and_equal_weights_change_nothing_and_are_digested_once(ask, monkeypatch):
    digested = []
    fingerprint_model = knowledge.fingerprint_model
    monkeypatch.setattr(knowledge, "fingerprint_model", lambda *parts: digested.append(1) or fingerprint_model(*parts))
    for _ in range(3):
        assert ask(NAMES[0])["calibrated"]
    assert not digested
    ask.model.load_state_dict({name: one.clone() for name, one in ask.model.state_dict().items()})
    for _ in range(3):
        assert ask(NAMES[0])["calibrated"]
    assert len(digested) == 1


def test_threads_that_find_a_changed_model_get_abstentions_and_one_warning(ask, caplog):
    add_noise(ask)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(ask, NAMES * 8))
    assert not any(result["calibrated"] or result["answer"] for result in results)
    assert caplog.text.count("birthplace: not calibrated") == 1


def test_weights_of_inference_mode_have_a_key_that_sees_a_change(ask):
    with torch.inference_mode():
        for module in ask.model.modules():
            for name, weight in list(module.named_parameters(recurse=False)):
                setattr(module, name, torch.nn.Parameter(weight.clone(), requires_grad=False))
    assert ask.model.lm_head.weight.is_inference()
    assert ask(NAMES[0])["calibrated"]
    key = model_key(ask.model)
    assert model_key(ask.model) == key
    with torch.inference_mode():
        ask.model.lm_head.weight.mul_(1.5)
    assert model_key(ask.model) != key
    assert not ask(NAMES[0])["calibrated"]


def test_the_key_is_a_small_part_of_a_call(ask):
    def seconds(call):
        call()
        start = time.perf_counter()
        for _ in range(5):
            call()
        return time.perf_counter() - start

    assert seconds(lambda: model_key(ask.model)) < 0.2 * seconds(lambda: ask(NAMES[0]))


def test_a_model_whose_weights_are_not_numbers_has_one_key(ask):
    with torch.no_grad():
        ask.model.lm_head.weight.fill_(float("nan"))
    assert model_key(ask.model) == model_key(ask.model)
