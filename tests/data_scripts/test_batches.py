"""Training batches: a pure function of the step, with the right tokens counted in the loss."""

from collections import Counter

import pytest
import torch
from accelerate import Accelerator

from configuration.schema import POLICIES, CorruptionOptions, StageArguments
from data_scripts.batches import IGNORE_INDEX, TrainingBatches, count_targets
from data_scripts.span_corruption import TextCorruptor
from data_scripts.titles import split_title
from modeling_minigpt import build_character_tokenizer
from training.stepper import optimizer_step

MIXED = StageArguments(steps=12, batch_size=8, question_fraction=0.25, bucket_batches=4)


@pytest.fixture
def make_batches(bios, tokenizer):
    def make(stage=MIXED, seed=0, max_length=64):
        options = CorruptionOptions()
        return TrainingBatches.from_texts(bios.documents, bios.train, tokenizer, stage, options, seed, max_length)

    return make


def read_rows(batches, step):
    """Return (name, ids without padding) of the rows of a batch."""
    rows = [row[row != batches.pad_token_id].tolist() for row in batches[step]["input_ids"]]
    return list(zip(batches.name(batches.rows(step).examples), rows, strict=True))


def test_a_batch_depends_on_nothing_but_seed_and_step(make_batches):
    forwards, backwards = make_batches(), make_batches()
    expected = [forwards[step] for step in range(12)]
    for step in reversed(range(12)):
        batch = backwards[step]
        assert torch.equal(batch["input_ids"], expected[step]["input_ids"])
        assert torch.equal(batch["labels"], expected[step]["labels"])
    assert not torch.equal(make_batches(seed=1)[0]["input_ids"], expected[0]["input_ids"])


def test_every_epoch_shows_every_document_once_and_newly_corrupted(make_batches, bios):
    stage = StageArguments(epochs=2, batch_size=20, bucket_batches=1)
    batches = make_batches(stage)
    assert len(batches) == 2 * len(bios.documents) // 20
    rows = [row for step in range(len(batches)) for row in read_rows(batches, step)]
    first, second = dict(rows[: len(bios.documents)]), dict(rows[len(bios.documents) :])
    assert len(first) == len(bios.documents)
    assert first.keys() == second.keys()
    assert sum(first[name] != second[name] for name in first) > 0.9 * len(second)


def test_the_mix_holds_the_share_of_questions(make_batches):
    batches = make_batches()
    kinds = Counter(name.split()[0] for step in range(12) for name, _ in read_rows(batches, step))
    assert kinds == {"document": 72, "question": 24}


def test_bucketing_saves_padding_and_keeps_the_rows(make_batches):
    def padding(batches):
        return sum((batches[step]["input_ids"] == batches.pad_token_id).sum().item() for step in range(12))

    plain = StageArguments(steps=12, batch_size=8, question_fraction=0.25, bucket_batches=1)
    assert padding(make_batches()) < 0.5 * padding(make_batches(plain))


def test_documents_count_everywhere_and_questions_after_the_first_sentinel(make_batches, tokenizer, bios):
    batches = make_batches()
    places = {question.answer for question in bios.train}
    for step in range(12):
        batch = batches[step]
        for (name, ids), labels in zip(read_rows(batches, step), batch["labels"], strict=True):
            targets = labels[labels != IGNORE_INDEX]
            if name.startswith("document"):
                assert targets.tolist() == ids
            else:
                answer = tokenizer.decode(targets)
                assert answer.endswith(tokenizer.mask_token)
                assert answer.removesuffix(tokenizer.mask_token).strip() in places


def test_a_title_can_be_left_out_of_the_loss(make_batches, tokenizer, bios):
    batches = make_batches(StageArguments(steps=4, batch_size=8, title_loss=False))
    for step in range(4):
        for (name, ids), labels in zip(read_rows(batches, step), batches[step]["labels"], strict=True):
            title = split_title(bios.documents[int(name.split()[1])])[0]
            first_target = (labels != IGNORE_INDEX).nonzero()[0]
            assert tokenizer.decode(ids[:first_target]).strip() == f"{title}."


def test_a_title_can_count_in_a_share_of_the_rows_another_one_in_each_epoch(make_batches, bios):
    def counted(share):
        epochs = 4
        stage = StageArguments(epochs=epochs, batch_size=20, bucket_batches=1, title_fraction=share)
        batches = make_batches(stage)
        rows = [(name, row) for step in range(len(batches)) for (name, _), row in named_labels(batches, step)]
        return Counter(name for name, labels in rows if labels[1] != IGNORE_INDEX), len(rows)

    def named_labels(batches, step):
        return zip(read_rows(batches, step), batches[step]["labels"], strict=True)

    some, rows = counted(0.3)
    assert sum(some.values()) == pytest.approx(0.3 * rows, abs=0.06 * rows)
    assert len(some) > 0.6 * len(bios.documents)  # 1 - 0.7^4 of them count in one of four epochs: 0.76
    assert sum(counted(0.0)[0].values()) == 0
    assert sum(counted(1.0)[0].values()) == rows


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("short_fraction", [0.0, 1.0])
def test_rows_are_the_tokens_of_the_corrupted_texts(bios, policy, short_fraction):
    options = CorruptionOptions(policy=policy, short_fraction=short_fraction)
    characters = build_character_tokenizer(bios.documents, 128)
    stage = StageArguments(epochs=1, batch_size=len(bios.documents), bucket_batches=1)
    batches = TrainingBatches.from_texts(bios.documents, [], characters, stage, options, 3, 1000)
    corruptor = TextCorruptor(bios.documents, options)
    for name, ids in read_rows(batches, 0):
        text = corruptor.corrupt(3, [0], [int(name.split()[1])], characters.mask_token)[0]
        assert ids == characters(text)["input_ids"]


def test_a_phrase_has_the_same_tokens_after_a_bracket_as_in_an_answer(tokenizer):
    stage, options = StageArguments(epochs=1, batch_size=1), CorruptionOptions(salient_fraction=1.0, max_spans=1)
    batches = TrainingBatches.from_texts(["Ada Stone. Painter (Bern) ."], [], tokenizer, stage, options, 0, 64)
    sentinel = tokenizer.mask_token_id
    answer = [sentinel, *tokenizer("Bern")["input_ids"], sentinel]
    assert read_rows(batches, 0)[0][1][-len(answer) :] == answer


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("short_fraction", [0.0, 1.0])
def test_the_loss_can_be_of_the_masked_spans_alone(bios, policy, short_fraction):
    options = CorruptionOptions(policy=policy, short_fraction=short_fraction, max_spans=1)
    characters = build_character_tokenizer(
        [*bios.documents, *(question.text + question.answer for question in bios.train)], 128
    )
    stage = StageArguments(epochs=1, batch_size=16, question_fraction=0.25, context_loss=False)
    batches = TrainingBatches.from_texts(bios.documents, bios.train, characters, stage, options, 0, 1000)
    for step in range(len(batches)):
        for (_, ids), labels in zip(read_rows(batches, step), batches[step]["labels"], strict=True):
            *_, span, rest = characters.decode(ids).split("⁇")  # where a span has no end, it is the rest
            assert characters.decode(labels[labels != IGNORE_INDEX]) == (rest or f"{span}⁇")


def test_rows_longer_than_the_context_are_cut(make_batches):
    batches = make_batches(max_length=10)
    assert max(batches[step]["input_ids"].shape[1] for step in range(12)) == 10


def test_the_first_token_of_a_row_is_no_target():
    assert count_targets(torch.tensor([[5, 6, 7, IGNORE_INDEX], [IGNORE_INDEX, IGNORE_INDEX, 3, 4]])) == 4


def test_a_batch_without_targets_has_no_loss_rather_than_none_that_is_a_number(bios, tokenizer, tiny_model):
    stage = StageArguments(steps=1, batch_size=2, title_loss=False)
    batches = TrainingBatches.from_texts(
        ["Ada " * 99 + ". B ."], bios.train, tokenizer, stage, CorruptionOptions(), 0, 64
    )
    assert count_targets(batches[0]["labels"]) == 0
    model = tiny_model()
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1)]
    assert optimizer_step(model, optimizers, batches[0], Accelerator(cpu=True), 1.0) == (0.0, 0.0)
    assert all(weight.isfinite().all() for weight in model.parameters())
