"""The peers benchmark: subjects are alike, the plain one is right, and what is written follows from what was run."""

import json
import math

import pytest
import torch
from accelerate.state import AcceleratorState

from benchmarks import harness, peers
from benchmarks.harness import Point, results_of
from benchmarks.peer_models import GPT2, OUR_RECIPES, OURS, PLAIN, TRAINERS, Settings, Texts, build_model
from benchmarks.peer_tasks import ANSWERERS, SUBJECTS
from benchmarks.peers import BARS, QUANTITIES, judge, report, times_better, values_of
from benchmarks.plain_mingpt import MASK, PAD, CorruptedLines, PlainGPT, PlainLoop, Shape, number_characters, sample
from data_scripts.bios_folder import FILES
from data_scripts.synthetic_bios import invent
from modeling_minigpt.tokenization_minigpt import build_character_tokenizer

TINY = Shape(layers=2, heads=2, width=32, block=96)
SETTINGS = Settings(shape=TINY, batch_size=4, warmup=1, steps=8, plain_questions=2, new_tokens=5, threads=1)


@pytest.fixture(scope="module")
def bios():
    """Return a few invented people."""
    return invent(40)


@pytest.fixture(scope="module")
def texts(bios):
    """Return their documents and questions."""
    return Texts(bios.documents, [question.text for question in bios.validation])


@pytest.fixture
def tokenizer(texts):
    """Return the tokenizer that MiniGPT and GPT-2 read them with."""
    return build_character_tokenizer(texts.lines, TINY.block)


@pytest.fixture(scope="module")
def record(bios, tmp_path_factory):
    """Return what a run as short as can be wrote."""
    folder = tmp_path_factory.mktemp("peers")
    bios.write(folder)
    sizes = ["--shape", "1", "2", "16", "96", "--batch-size", "2", "--questions", "4", "--plain-questions", "2"]
    speed = ["--rounds", "1", "--warmup", "1", "--data-seconds", "0.05", "--threads", "1", "--device", "cpu"]
    output = folder / "results" / "peers.json"

    def in_this_process(measure, *arguments):
        AcceleratorState._reset_state(reset_partial_state=True)  # which takes one precision, and the subjects two
        return harness.catch_errors(measure, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(harness, "in_fresh_process", in_this_process)
        patch.setattr(peers, "has_fast_bfloat16", lambda device: True)
        status = peers.main([*sizes, *speed, "--data", str(folder), "--output", str(output)])
    AcceleratorState._reset_state(reset_partial_state=True)
    record = json.loads(output.read_text())
    assert status == int(not all(bar.holds for bar in judge(results_of(record), list(SUBJECTS))))
    return {**record, "table": output.with_suffix(".md").read_text(encoding="utf-8")}


def test_all_subjects_have_the_same_shape_and_about_as_many_parameters(tokenizer):
    shape = Shape()
    sizes = []
    for subject in TRAINERS:
        model = build_model(subject, shape, tokenizer)
        sizes.append(sum(parameter.numel() for parameter in model.parameters()))
        if subject == PLAIN:
            found = (len(model.blocks), model.blocks[0].attention.heads, *model.embedding.weight.shape[::-1])
        else:
            config = model.config
            found = (config.num_hidden_layers, config.num_attention_heads, config.hidden_size, config.vocab_size)
            assert config.max_position_embeddings == shape.block
        assert found == (4, 8, 256, 256)
    assert max(sizes) < 1.05 * min(sizes)


def test_all_read_a_text_as_the_same_ids(texts, tokenizer):
    numbers = number_characters(texts.lines)
    assert numbers == tokenizer.get_vocab()
    text = texts.documents[0] + MASK
    assert tokenizer(text)["input_ids"] == [numbers[character] for character in text]


def test_the_plain_model_is_causal():
    torch.manual_seed(0)
    model = PlainGPT(TINY).eval()
    ids = torch.randint(2, 200, (2, 20))
    changed = ids.clone()
    changed[:, 12:] = torch.randint(2, 200, (2, 8))
    with torch.no_grad():
        before, after = model(ids)[0], model(changed)[0]
    torch.testing.assert_close(before[:, :12], after[:, :12])
    assert not torch.allclose(before[:, 12:], after[:, 12:])


def test_the_plain_loop_learns_a_batch(texts):
    torch.manual_seed(0)
    lines = CorruptedLines(texts.documents, number_characters(texts.lines), TINY.block)
    ids, targets = (torch.stack(parts) for parts in zip(*(lines[index] for index in range(8)), strict=True))
    loop = PlainLoop(PlainGPT(TINY), total_tokens=10**6)
    losses = [loop.step(ids, targets) for _ in range(60)]
    assert losses[0] == pytest.approx(math.log(TINY.vocabulary), rel=0.1)
    assert losses[-1] < 0.7 * losses[0]


def test_the_plain_loops_learning_rate_climbs_and_falls_to_a_tenth():
    loop, rates = PlainLoop(PlainGPT(TINY), total_tokens=100_000), []
    for loop.tokens in (0, 5120, 10240, 55120, 100_000, 200_000):
        rates.append(loop.rate())
    assert rates == pytest.approx([0.0, 0.5, 1.0, 0.5, 0.1, 0.1], abs=1e-3)


def test_a_plain_sample_is_the_argmax_of_its_own_full_forward():
    torch.manual_seed(0)
    model = PlainGPT(TINY)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    ids = sample(model, torch.randint(2, 200, (1, 10)), 30)
    assert ids.shape == (1, 40)
    with torch.no_grad():
        greedy = model(ids)[0].argmax(-1)
    assert torch.equal(ids[:, 10:], greedy[:, 9:-1])


def test_plain_examples_fill_the_block_and_have_targets_up_to_the_padding(texts):
    numbers = number_characters(texts.lines)
    letters = {index: character for character, index in numbers.items()}
    lines = CorruptedLines(texts.documents, numbers, TINY.block)
    for index, document in enumerate(texts.documents):
        ids, targets = lines[index]
        assert ids.shape == targets.shape == (TINY.block - 1,)
        assert torch.equal(ids[1:], targets[:-1])
        text = "".join(letters[number] for number in [ids[0].item(), *targets.tolist()])
        real = text.rstrip(PAD)
        prefix, suffix, masked = real.split(MASK)
        assert document.startswith(prefix + masked + suffix)
        assert masked
        assert 4 <= len(real) - 2 <= 7 * TINY.block // 8
        assert (targets != 0).sum() == len(real) - 1


@pytest.mark.parametrize("subject", TRAINERS)
def test_every_subject_trains_on_all_it_reads(subject, texts, tokenizer, any_precision):
    any_precision()
    training = TRAINERS[subject](subject, texts, tokenizer, SETTINGS)
    before = [parameter.clone() for parameter in training.model.parameters()]
    batch = next(training.batches)
    targets, positions = training.count(batch)
    ids = batch[0] if subject == PLAIN else batch["input_ids"]
    real = (ids != 0).sum().item()
    assert targets == real - len(ids)  # a row's first character is not predicted
    assert positions == ids.numel()
    training.step(batch)
    assert any(not torch.equal(old, new) for old, new in zip(before, training.model.parameters(), strict=True))
    if subject in OUR_RECIPES:
        assert len(list(training.batches)) >= SETTINGS.steps


@pytest.mark.parametrize("subject", ANSWERERS)
def test_no_subject_stops_before_the_last_new_token(subject, texts, tokenizer):
    model = build_model(subject, TINY, tokenizer).eval()
    head = model.head if subject == PLAIN else model.lm_head
    with torch.no_grad():
        head.weight[1] = 100 * head.weight[1]  # much of the time the sentinel
    calls = []
    reader = model if subject == PLAIN else model.base_model
    reader.register_forward_hook(lambda *_: calls.append(1))
    found = ANSWERERS[subject](model, texts.questions[:3], tokenizer, SETTINGS)
    assert len(found) == 3
    assert len(calls) == SETTINGS.new_tokens * (3 if subject == PLAIN else 1)


def test_labels_of_the_dev_file_are_dropped(bios, tmp_path):
    bios.write(tmp_path)
    read = Texts.read(tmp_path)
    path = tmp_path / FILES["validation"]
    for label in ("\tJUNK", "\t", ""):
        path.write_text("".join(f"{question}{label}\n" for question in read.questions), encoding="utf-8")
        assert Texts.read(tmp_path) == read
    assert read.questions == [question.text for question in bios.validation]


def test_every_subject_is_measured_in_every_way(record):
    results = results_of(record)
    for task, field, *_ in QUANTITIES:
        for subject in SUBJECTS[task]:
            (value,) = values_of(results, task, subject, field)
            assert 0 < value < math.inf
    assert record["settings"]["shape"] == vars(Shape(1, 2, 16, 96))
    assert all(name in record["table"] for name in (OURS, GPT2, PLAIN, "answered 2 of 4"))


def test_a_ratio_says_how_many_times_better_ours_is(record):
    results = results_of(record)
    for task, field, *_, more_is_better in QUANTITIES:
        (ours,) = values_of(results, task, OURS, field)
        for subject in SUBJECTS[task]:
            (theirs,) = values_of(results, task, subject, field)
            expected = ours / theirs if more_is_better else theirs / ours
            assert times_better(results, task, subject, field) == [pytest.approx(expected)]


def invented(ratio):
    """Return two rounds of results in which ours is so many times better in all that has a bar."""
    results = {}
    for task, field, peer, _ in BARS:
        for subject, value in ((OURS, ratio), (peer, 1.0)):
            results[Point(subject, task)] = [{field: value * speed} for speed in (1.0, 7.0)]
    return results


@pytest.mark.parametrize(("ratio", "good"), [(21.0, True), (1.1, False)], ids=["good", "bad"])
def test_bars_follow_the_ratios_within_rounds(ratio, good):
    bars = judge(invented(ratio), list(SUBJECTS))
    assert len(bars) == len(BARS)
    for bar in bars:
        assert bar.found == pytest.approx(ratio)
        assert bar.holds is good


def test_what_failed_misses_its_bar_and_is_named():
    results = invented(21.0)
    results[Point(PLAIN, "data path")] = [{"error": "killed"}]
    bars = {bar.what: bar.holds for bar in judge(results, list(SUBJECTS))}
    assert [what for what, holds in bars.items() if not holds] == [f"data path: examples/s over {PLAIN}'s"]
    settings = {**vars(SETTINGS), "shape": vars(TINY), "documents": 9, "questions": 4}
    machine = {"device": "x", "threads": 1, "torch": "2"}
    points = [{**point.key(), "rounds": rounds} for point, rounds in results.items()]
    text = report({"machine": machine, "data": "x", "settings": settings, "points": points})
    assert f"- {PLAIN}, data path: killed" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--steps", "9"], "a multiple of 8"), (["--rounds", "0"], "at least 1")],
    ids=["steps", "rounds"],
)
def test_senseless_counts_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        peers.parse_arguments(arguments)
    assert message in capsys.readouterr().err


def test_texts_that_do_not_fit_are_refused_in_one_line(tmp_path, bios, capsys):
    bios.write(tmp_path)
    assert peers.main(["--data", str(tmp_path), "--shape", "1", "1", "16", "48"]) == 2
    assert "does not fit a block of 48" in capsys.readouterr().err
    assert peers.main(["--data", str(tmp_path / "none")]) == 2
    assert "cannot be read" in capsys.readouterr().err
