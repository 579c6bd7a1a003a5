"""Data files of any bytes: data, or one line with file and line; what is accepted can be learned from and scored."""

import json
import re
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st

from configuration.schema import POLICIES, CorruptionOptions, StageArguments
from data_scripts.batches import TrainingBatches
from data_scripts.bios_folder import FILES, DataError, read_lines, read_questions
from data_scripts.question_checks import VocabularyError, check_characters, check_lengths
from data_scripts.questions import Question, question_about
from data_scripts.splits import load_scoring_questions, load_training_data, made_up_people
from evaluation.answers import exact_matches
from evaluation.baselines import ceiling, popular_places
from evaluation.errors import find_errors
from evaluation.exposure import count_exposures, exposure_rows
from evaluation.trust import EvaluatedAnswers, JudgedAnswer, confidence_metrics
from modeling_minigpt import MiniGPTConfig, MiniGPTForCausalLM, build_bpe_tokenizer, build_character_tokenizer
from modeling_minigpt.answers_minigpt import Answer, greedy_answers
from modeling_minigpt.confidence_minigpt import Scores
from modeling_minigpt.relations_minigpt import BIRTHPLACE
from tests.fuzz.cases import assert_one_line, cases, quickly
from tests.running import call, recipe_of
from training.stepper import optimizer_step

PIECES = [
    b"Where was Ada Stone born?", b"\t", b"\t\t", b"\n", b"\r\n", b"\r", b"\n\n", b"Rome", b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\x00", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", "\u2028".encode(), "\u0085".encode(), "⁇".encode(), "□".encode(),
    b"Ada Stone. Ada Stone was born in Rome .", "مرحبا. ولد في .".encode(), b" ", b"\x0b\x0c\x1c", b". ", b"x" * 2000,
    b"Where was  born?", b"?", b"St. Bo. Bo .", "e\u0301\u200d\u202e".encode(), b"Where was Bo Li born?\tOslo\n",
]  # fmt: skip
contents = st.lists(st.sampled_from(PIECES) | st.binary(max_size=6), max_size=8).map(b"".join)
WHOLE = [
    "Where was Bo Li born?\tOslo",
    "Where was ⁇ born?\tRome",
    "Where was Al Ho born?\tRo□me",
    "Where was ! born?\t?",
]
pairs_of_lines = st.lists(st.sampled_from(WHOLE), min_size=3, max_size=6).map(lambda own: "\n".join(own).encode())
lines = st.text(
    st.sampled_from("Ada Stone.Bo?  \t⁇□\u2028\u0085\x00éЖ\U0001f600\u202e") | st.characters(codec="utf-8"),
    max_size=30,
)


long_titles = st.just("Ada " * 40 + ". Bo .")  # whose body the model does not come to read


@cases(300)
@given(name=st.sampled_from(sorted(FILES.values())), content=contents)
def test_any_bytes_are_lines_or_one_line_with_file_and_line(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    refused = []
    for read in (read_lines, read_questions, partial(read_questions, answered=False)):
        try:
            with quickly():
                found = read(path)
        except DataError as error:
            assert_one_line(error, naming=f"{path}:")
            refused.append(str(error))
            continue
        assert found
        for one in found:
            texts = [one] if isinstance(one, str) else [one.text, one.name, *one.answers]
            assert all(text.strip() and "\n" not in text for text in texts)
    assert all(re.match(rf"{re.escape(str(path))}:\d+: (found|byte|the) ", message) for message in refused)


@cases(60)
@given(
    name=st.sampled_from(sorted(FILES.values())),
    content=contents,
    sizes=st.tuples(*[st.integers(0, 2)] * 3),
)
def test_a_folder_with_any_file_loads_or_is_refused(data, tmp_path, name, content, sizes):
    folder, run_data = tmp_path / "bios", tmp_path / "run"
    for used in (folder, run_data):
        shutil.rmtree(used, ignore_errors=True)
    shutil.copytree(data, folder)
    (folder / name).write_bytes(content)
    parts = dict(zip(("validation_questions", "calibration_questions", "withheld_people"), sizes, strict=True))
    try:
        with quickly(30):
            loaded = load_training_data(recipe_of(run_data, path=folder, **parts), run_data)
            made_up_people(loaded, "evaluation", 5)
            _, asked = load_scoring_questions(loaded)
    except DataError as error:
        assert_one_line(error, naming=name)
        return
    assert loaded.train
    assert loaded.documents
    assert not any(
        token in text
        for question in (*asked, *loaded.train)
        for text in (question.text, question.answer)
        for token in "⁇□"
    )


@cases(40)
@given(name=st.sampled_from([FILES["train"], FILES["validation"]]), content=pairs_of_lines)
def test_no_special_token_is_learned_from_or_asked(data, tmp_path, name, content):
    folder, run_data = tmp_path / "bios", tmp_path / "run"
    for used in (folder, run_data):
        shutil.rmtree(used, ignore_errors=True)
    shutil.copytree(data, folder)
    (folder / name).write_bytes(content)
    lines_of_file = content.decode().split("\n")
    fine = [line for line in lines_of_file if not any(token in line for token in "⁇□")]
    try:
        with quickly(30):
            loaded = load_training_data(recipe_of(run_data, path=folder), run_data)
            _, asked = load_scoring_questions(loaded)
    except DataError as error:
        assert_one_line(error, naming=f"{folder / name}")
        assert not fine
        return
    learned = loaded.train if name == FILES["train"] else asked
    assert [f"{question.text}\t{question.answer}" for question in learned] == fine


@pytest.fixture(scope="module")
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


def tiny(tokenizer, **changes) -> MiniGPTForCausalLM:
    """Return a tiny model for a tokenizer."""
    torch.manual_seed(0)
    config = MiniGPTConfig(
        vocab_size=len(tokenizer), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        max_position_embeddings=48, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        **changes,
    )  # fmt: skip
    return MiniGPTForCausalLM(config)


def kept(path: Path, texts: list[str], read) -> list:
    """Return the texts as a file of them gives them; nothing where the file would be refused."""
    path.write_text("\n".join(texts), encoding="utf-8", newline="")
    try:
        return read(path)
    except DataError:
        return []


@cases(150)
@given(
    documents=st.lists(lines, min_size=1, max_size=4) | st.lists(long_titles, min_size=1, max_size=2),
    pairs=st.lists(st.tuples(lines, lines), min_size=1, max_size=3),
    characters=st.booleans(),
    policy=st.sampled_from(POLICIES),
    fraction=st.sampled_from([0.0, 0.5, 1.0]),
    title_loss=st.booleans(),
    learned=st.booleans(),
)
def test_accepted_data_give_a_finite_loss_and_answers_that_can_be_scored(
    accelerator, tmp_path, documents, pairs, characters, policy, fraction, title_loss, learned
):
    documents = kept(tmp_path / "wiki.txt", documents, read_lines) or ["Bo. A ."]
    lines_of_pairs = [f"{BIRTHPLACE.format(name)}\t{place}" for name, place in pairs]
    asked = kept(tmp_path / "train.tsv", lines_of_pairs, read_questions) or [question_about("Bo", "A")]
    questions = [question.text for question in asked]
    try:
        tokenizer = build_character_tokenizer(documents, 48) if characters else build_bpe_tokenizer(documents, 270, 48)
    except ValueError as error:
        assert_one_line(error, naming="is a special token and may not occur in the text")
        return
    try:
        check_characters(tokenizer, [f"{question.text} {question.answer}" for question in asked])
        check_lengths(tokenizer, questions, [question.answer for question in asked], 48)
    except (VocabularyError, DataError) as error:
        assert_one_line(error)
        return
    model = tiny(tokenizer, position_embedding_type="learned" if learned else "rotary")
    stage = StageArguments(steps=1, batch_size=2, bucket_batches=1, question_fraction=fraction, title_loss=title_loss)
    corruption = CorruptionOptions(policy=policy, max_length=40)
    batch = TrainingBatches.from_texts(documents, asked, tokenizer, stage, corruption, 0, 48)[0]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with quickly():
        loss, norm = optimizer_step(model, [optimizer], batch, accelerator, 1.0)
        model.eval()
        answers = greedy_answers(model, tokenizer, questions, 40)
    assert torch.isfinite(loss)
    assert torch.isfinite(norm)
    assert all(weight.isfinite().all() for weight in model.parameters())
    score(answers, asked, documents)


def score(answers: list[Answer], questions: list[Question], documents: list[str]) -> None:
    """Score answers in every way that the report has."""
    right, popular = (
        exact_matches([answer.text for answer in answers], questions),
        popular_places(question.answer for question in questions),
    )
    assert all(0.0 <= answer.probability <= 1.0001 for answer in answers)
    assert 0.0 <= ceiling(documents, questions) <= 1.0
    rows = exposure_rows(count_exposures(questions, documents, questions), {"model": (answers, right)})
    assert sum(row["questions"] for row in rows) == 3 * len(questions)
    errors = find_errors({"birthplace": (questions, answers, right)}, documents, questions)["birthplace"]
    assert sum(row["count"] for row in errors.values()) == len(questions) - sum(right)
    judged = [JudgedAnswer(answer.text, Scores(None, None, min(1.0, answer.probability))) for answer in answers]
    metrics = confidence_metrics(EvaluatedAnswers(judged, right, judged), popular)
    json.dumps([rows, errors, metrics], allow_nan=False)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            FILES["validation"],
            "Where was \u2028x born?\tR\u0085\nWhere was [b] born?\t[/b]\nWhere was \ufeffWho\x00 born?\t\x1b[2J|x|\n",
        ),
        (FILES["validation"], "Where was " + "Ada " * 3000 + "born?\tRome\n"),
        (FILES["test"], "\u2028x\u2028\n"),
    ],
    ids=["odd", "long", "test"],
)
def test_evaluation_ends_with_results_whatever_the_questions_are(run, recipe, data, tmp_path, capfd, name, content):
    folder = shutil.copytree(data, tmp_path / "bios")
    (folder / name).write_text(content, encoding="utf-8")
    with quickly(60):
        status = call("evaluate", recipe, folder, tmp_path / "run", f"evaluate.model={run / 'finetune'}")
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert (status, errors) == (0, [])
    json.dumps(json.loads((tmp_path / "run" / "results.json").read_text()), allow_nan=False)
