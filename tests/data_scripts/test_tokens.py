"""Token tables: what is read back at random makes the batches that the texts themselves make."""

import pickle

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from configuration.schema import POLICIES, CorruptionOptions, StageArguments
from data_scripts import record_file
from data_scripts.annotated_texts import Annotator
from data_scripts.batches import TrainingBatches
from data_scripts.bios_folder import DataError
from data_scripts.question_checks import VocabularyError
from data_scripts.questions import question_about
from data_scripts.record_file import RecordFile
from data_scripts.span_corruption import SpanCorruptor, TextCorruptor
from data_scripts.tokenized_text import TokenizedText, tokenize
from data_scripts.tokens import DocumentTable, QuestionTable, document_rows, question_rows, write_table
from modeling_minigpt import build_bpe_tokenizer, build_character_tokenizer

LATIN = ["Ada Stone. Ada Stone was a Swiss painter (Győr) who lived in New York .", "Bo. B ", "", "no title, no end"]
HAN = ["王小明.王小明生于北京市, 后来住在上海.", "李大海.李大海生于上海. Lee lived in Rome."]
DEVANAGARI = ["सीता देवी. सीता देवी का जन्म वाराणसी में हुआ था .", "राम. वह पटना में रहते थे ."]
SCRIPTS = {"latin": LATIN, "han": HAN, "devanagari": DEVANAGARI}
ANSWERS = ["Győr", "北京", "上海", "वाराणसी", "New York"]
QUESTIONS = [question_about("Ada Stone", answer) for answer in ANSWERS]


def build(kind: str, texts: list[str]) -> PreTrainedTokenizerFast:
    asked = [question.text + question.answer for question in QUESTIONS]
    if kind == "characters":
        return build_character_tokenizer([*texts, *asked], 128)
    return build_bpe_tokenizer([*texts, *asked], 330, 128)


def write(path, rows, entries=400) -> RecordFile:
    write_table(lambda: path.open("wb"), rows, entries)
    return RecordFile.open(path)


@pytest.mark.parametrize("kind", ["bpe", "characters"])
@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("max_length", [12, 100])
def test_rows_read_at_random_corrupt_as_the_whole_texts_do(tmp_path, monkeypatch, kind, script, policy, max_length):
    monkeypatch.setattr(record_file, "ROWS", 3)
    monkeypatch.setattr("data_scripts.tokens.ROWS", 3)
    texts = SCRIPTS[script] * 3
    tokenizer = build(kind, texts)
    options = CorruptionOptions(policy=policy, max_length=max_length, answer_fraction=0.5)
    annotator = Annotator.for_questions(QUESTIONS, options)
    table = DocumentTable(write(tmp_path / "t.arrow", lambda dtype: document_rows(texts, tokenizer, annotator, dtype)))
    assert len(table) == len(texts)
    whole = TextCorruptor(texts, options, annotator.answers, annotator.names)
    annotated, alone = annotator.annotate(texts)
    ids, begins, _ = tokenize(tokenizer, whole.text, annotated.starts, alone)
    reference = TokenizedText(ids, begins, len(whole.text), tokenizer.mask_token_id)
    examples = np.random.default_rng(0).integers(len(texts), size=200)
    epochs = np.arange(200)
    expected, restored = whole.pieces(7, epochs, examples)
    some, tokens = table.read(examples, tokenizer.mask_token_id)
    found, found_restored = SpanCorruptor(some, options).pieces(7, epochs, examples, np.arange(200))
    assert np.array_equal(restored, found_restored)
    for one, other in zip(expected, found, strict=True):
        wanted = [reference.ids[slice(*reference.place[piece])].tolist() for piece in one]
        assert [tokens.ids[slice(*tokens.place[piece])].tolist() for piece in other] == wanted


@pytest.fixture
def batches_of(bios, tokenizer, tmp_path):
    """Return batches of texts, in memory or from files."""

    def make(on_disk: bool) -> TrainingBatches:
        stage = StageArguments(steps=12, batch_size=8, question_fraction=0.25, bucket_batches=4)
        options = CorruptionOptions()
        if not on_disk:
            return TrainingBatches.from_texts(bios.documents, bios.train, tokenizer, stage, options, 0, 64)
        annotator = Annotator.for_questions(bios.train, options)
        documents = write(tmp_path / "d", lambda dtype: document_rows(bios.documents, tokenizer, annotator, dtype))
        questions = write(tmp_path / "q", lambda dtype: question_rows(bios.train, tokenizer, 64))
        return TrainingBatches(DocumentTable(documents), QuestionTable(questions), tokenizer, stage, options, 0, 64)

    return make


@pytest.mark.parametrize("copied", [False, True], ids=["here", "in-another-process"])
def test_batches_from_files_are_those_of_the_texts(batches_of, copied):
    batches = batches_of(on_disk=True)
    if copied:
        batches = pickle.loads(pickle.dumps(batches))
    expected = batches_of(on_disk=False)
    for step in range(12):
        assert torch.equal(batches[step]["input_ids"], expected[step]["input_ids"])
        assert torch.equal(batches[step]["labels"], expected[step]["labels"])


def test_a_document_too_long_for_16_bits_is_written_in_32(tmp_path, tokenizer):
    texts = ["Ada. Born in Rome .", "Bo. " + "Born in Oslo . " * 6000]
    annotator = Annotator(CorruptionOptions())
    records = write(tmp_path / "t", lambda dtype: document_rows(texts, tokenizer, annotator, dtype), len(tokenizer))
    assert records.dtype == np.uint32
    annotated, tokens = DocumentTable(records).read(np.array([1]), tokenizer.mask_token_id)
    assert annotated.starts.tolist() == [0, len(texts[1])]
    assert tokens.ids[:-1].tolist() == tokenizer(texts[1], verbose=False)["input_ids"]


def test_a_question_that_leaves_no_room_for_an_answer_is_named_by_its_number(tokenizer):
    asked = [question_about("Ada", "Rome"), question_about("Ada " * 60, "Rome")]
    with pytest.raises(DataError, match=r"question 2, 'Where was Ada .*', is \d+ tokens long, the model reads 48"):
        list(question_rows(asked, tokenizer, 48))
    asked[1] = question_about("Bo", "Rome " * 60)
    with pytest.raises(DataError, match=r"answer 2, 'Rome .*', is \d+ tokens long, the model reads 48"):
        list(question_rows(asked, tokenizer, 48))


def test_a_character_that_the_tokenizer_does_not_know_is_named_with_its_question():
    tokenizer = build_character_tokenizer(["Where was Ada born? Rome"], 64)
    asked = [question_about("Ada", "Rome"), question_about("Ada", "Győr")]
    with pytest.raises(VocabularyError, match=r"question 2, .*: character 'G'"):
        list(question_rows(asked, tokenizer, 48))


def test_nothing_is_written_for_no_texts(tmp_path, tokenizer):
    annotator = Annotator(CorruptionOptions())
    records = write(tmp_path / "t", lambda dtype: document_rows([], tokenizer, annotator, dtype))
    assert len(records) == 0
    annotated, tokens = DocumentTable(records).read(np.zeros(0, np.int64), tokenizer.mask_token_id)
    assert len(annotated) == 0
    assert tokens.ids.tolist() == [tokenizer.mask_token_id]


@pytest.mark.parametrize("keep", [0, 1, 500])
def test_a_file_that_is_cut_off_is_refused_by_its_name(tmp_path, tokenizer, keep):
    path = tmp_path / "t.arrow"
    write(path, lambda dtype: question_rows([question_about("Ada", "Rome")] * 40, tokenizer))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"t\.arrow: not a whole file of tokens; remove it"):
        RecordFile.open(path)
