"""The capacity benchmark: what models read, which points a budget takes, and a tiny run from end to end."""

import json

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

from benchmarks import capacity, capacity_texts, capacity_training
from benchmarks.capacity import list_cases, name_point, parse_arguments, plan
from benchmarks.capacity_report import draw, report
from benchmarks.capacity_texts import QUESTIONS, ROW, SENTINEL, Case, Lessons, Writer
from benchmarks.capacity_training import (
    build_model,
    recall_texts,
    run_case,
    score_questions,
    score_storage,
    spread,
    take_steps,
)
from benchmarks.harness import Point
from data_scripts.batches import IGNORE_INDEX
from data_scripts.sources.bios_uniform import PAPER, join_pieces
from evaluation.stored_bits import SpanScore

PEOPLE = 30


@pytest.fixture(scope="module")
def writer():
    """Return what writes about a few people, of the paper's lists."""
    return Writer(0, PEOPLE, PAPER)


@pytest.fixture
def small_batches(monkeypatch):
    """Put few texts into a batch."""
    for module in (capacity_texts, capacity_training):
        monkeypatch.setattr(module, "BATCH", 8)
    monkeypatch.setattr(capacity_texts, "QUESTION_BATCH", 16)


def case_of(exposures=2, people=PEOPLE, **fields) -> Case:
    return Case("vanilla", 16, 1, people, exposures, **fields)


def words_of(writer: Writer, ids: list[int]) -> str:
    """Return the words of tokens; those that are no word as "|"."""
    words = {token: word for word, token in writer.ids.items()}
    return " ".join(words.get(token, "|") for token in ids)


def test_a_token_is_a_word(writer):
    numbers = np.arange(PEOPLE)
    texts = writer.biographies(numbers, numbers)
    for facts, pieces, text in zip(writer.facts, writer.population.biographies(numbers, numbers), texts, strict=True):
        assert words_of(writer, text.ids) == f"{join_pieces(pieces)} |"
        for fact, start, end in text.spans:
            assert words_of(writer, text.ids[start:end]) == facts[fact]
    for relation, question in QUESTIONS.items():
        facts = writer.facts[3]
        text = writer.question(3, relation)
        assert words_of(writer, text.ids) == f"{question.format(name=facts['name'])} | {facts[relation]} |"
        assert words_of(writer, text.ids[text.first_target :]) == f"{facts[relation]} |"
    assert writer.vocabulary == max(writer.ids.values()) + 1


def test_the_employer_is_said_before_its_city_where_that_is_asked_for():
    numbers = np.arange(PEOPLE)
    for employer_first in (False, True):
        texts = Writer(0, PEOPLE, PAPER, employer_first).biographies(numbers, numbers)
        orders = {tuple(fact for fact, *_ in text.spans if fact not in ("name", "pronoun")) for text in texts}
        assert len(orders) > PEOPLE / 2
        assert all(order.index("worked") < order.index("workplace") for order in orders) == employer_first


def test_rows_have_whole_texts_and_learn_of_a_question_its_answer(writer):
    numbers = np.arange(12)
    texts = [*writer.biographies(numbers, numbers), *(writer.question(n, "field") for n in range(12))]
    rows = writer.pack(texts)
    assert rows.input_ids.shape[1] == 1 + max(len(text.ids) for text in texts) <= ROW
    assert len(rows.input_ids) < 24 / 2 + 6  # twelve biographies; questions share rows
    assert set(rows.input_ids[:, 0].tolist()) == {SENTINEL}
    learned = rows.labels[:, 1:] != IGNORE_INDEX
    assert int(learned.sum()) == sum(len(text.ids) - text.first_target for text in texts)
    assert torch.equal(rows.labels[:, 1:][learned], rows.input_ids[:, 1:][learned])
    for text, spans in zip(texts, rows.spans, strict=True):
        said = {fact: text.ids[start:end] for fact, start, end in text.spans}
        assert {span.fact: rows.input_ids[span.row, span.start : span.end].tolist() for span in spans} == said
    with pytest.raises(ValueError, match="less than 80 tokens, found 90"):
        writer.pack([texts[0]._replace(ids=[5] * 90)])


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("wordings", [None, 1, 3])
def test_every_person_is_seen_as_often_as_there_are_exposures(writer, wordings, monkeypatch):
    seen = {}
    real = writer.biographies

    def listen(numbers, versions):
        for number, version in zip(numbers.tolist(), versions.tolist(), strict=True):
            seen.setdefault(number, []).append(version)
        return real(numbers, versions)

    monkeypatch.setattr(writer, "biographies", listen)
    lessons = Lessons(case_of(4, wordings=wordings), writer)
    assert len(lessons) == 15
    batches = [lessons[step] for step in range(15)]
    wanted = {None: [0, 1, 2, 3], 1: [0, 0, 0, 0], 3: [0, 1, 2, 0]}[wordings]
    assert seen == dict.fromkeys(range(PEOPLE), wanted)
    assert torch.equal(lessons[7].input_ids, batches[7].input_ids)
    assert not torch.equal(Lessons(case_of(4, seed=1), writer)[0].input_ids, batches[0].input_ids)


@pytest.mark.usefixtures("small_batches")
def test_questions_are_about_the_first_half_alone(writer, monkeypatch):
    asked = []
    real = writer.question

    def listen(number, relation):
        asked.append((number, relation))
        return real(number, relation)

    monkeypatch.setattr(writer, "question", listen)
    mixed = Lessons(case_of(questions="mixed"), writer)
    assert len(mixed) == case_of().steps == 8
    rows = mixed[0]
    assert len(rows.spans) == 16
    assert len(asked) == 8
    after = Lessons(case_of(questions="after"), writer)
    assert len(after) == 8 + 45
    for step in range(8, len(after)):
        after[step]
    assert {number for number, _ in asked} == set(range(PEOPLE // 2))
    assert {relation for _, relation in asked} == set(QUESTIONS)


def test_storage_is_of_all_facts_and_a_model_that_knows_all_has_all_bits(writer, monkeypatch):
    case = case_of()
    model = build_model(case, writer).eval()
    first, second = (score_storage(model, case, writer) for _ in range(2))
    assert first == second
    relations = ["pronoun", "birthdate", "birthplace", "studied", "field", "worked"]
    assert list(first) == [*relations, "values", "name", "all"]
    assert first["values"].learned < 0  # untrained, it does not even know what values there are
    perfect = SpanScore(0.0, True)
    monkeypatch.setattr(capacity_training, "score_spans", lambda model, ids, spans: [perfect] * len(spans))
    known = score_storage(model, case, writer)
    assert known["values"].learned == known["values"].offered == pytest.approx(PEOPLE * 47.6, abs=1.5)


def test_the_employers_city_is_counted_with_the_employer(writer, monkeypatch):
    def lacking(model, ids, spans):
        return [SpanScore(-1.0 if span.fact in ("worked", "workplace") else 0.0, True) for span in spans]

    monkeypatch.setattr(capacity_training, "score_spans", lacking)
    found = score_storage(None, case_of(), writer)
    assert found["worked"].offered - found["worked"].learned == pytest.approx(PEOPLE * 2 / np.log(2))
    assert found["birthplace"].offered == found["birthplace"].learned


def test_answers_are_those_of_greedy_decoding(writer):
    case = case_of()
    model = build_model(case, writer).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    text = writer.question(0, "field")
    prompt = torch.tensor([[SENTINEL, *text.ids[: text.first_target]]])
    answer = model.generate(prompt, max_new_tokens=3, do_sample=False, eos_token_id=None)[0, prompt.shape[1] :]
    guessed = text._replace(ids=[*text.ids[: text.first_target], *answer.tolist()])
    guessed = guessed._replace(spans=[("field", text.first_target, len(guessed.ids))])
    other = guessed._replace(ids=[*guessed.ids[:-1], (guessed.ids[-1] + 1) % writer.vocabulary])
    for one, right in ((guessed, True), (other, False)):
        (((_, recall),),) = recall_texts(model, writer, [one])
        assert recall.is_likeliest == right
    accuracy = score_questions(model, case, writer)
    assert list(accuracy) == ["trained", "others"]
    assert all(list(shares) == list(QUESTIONS) for shares in accuracy.values())


def test_samples_are_spread_over_all():
    assert spread(0, 5, 9).tolist() == [0, 1, 2, 3, 4]
    assert spread(10, 20, 2).tolist() == [10, 19]
    assert len(spread(0, 1000, 300)) == 300


@pytest.mark.usefixtures("small_batches")
def test_training_stores_facts_and_a_seed_repeats_it(writer):
    case = case_of(15, people=8, wordings=1)
    runs = [run_case(case, writer) for _ in range(2)]
    for run in runs:
        del run["minutes"]
    assert runs[0] == runs[1]
    bits = runs[0]["bits"]
    untrained = score_storage(build_model(case, writer).eval(), case, writer)
    assert bits["values"]["learned"] > untrained["values"].learned + 100
    assert runs[0]["parameters"] > runs[0]["parameters_without_embeddings"] > 0


@pytest.mark.usefixtures("small_batches")
def test_training_in_bfloat16_is_counted_in_float32(writer):
    ids = torch.tensor([writer.biographies(np.array([0]), np.array([0]))[0].ids])
    trained = {}
    for precision in ("no", "bf16"):
        AcceleratorState._reset_state(reset_partial_state=True)  # a process has one precision
        case = case_of(15, people=8, wordings=1, precision=precision)
        trained[precision] = build_model(case, writer)
        take_steps(trained[precision], Lessons(case, writer), range(3), 1.0, "test")
    AcceleratorState._reset_state(reset_partial_state=True)
    float32, bfloat16 = (dict(model.named_parameters()) for model in trained.values())
    assert any(not torch.equal(float32[name], bfloat16[name]) for name in float32)
    clean = build_model(case, writer)
    clean.load_state_dict(trained["bf16"].state_dict())
    with torch.no_grad():
        assert torch.equal(trained["bf16"](ids).logits, clean(ids).logits)


def test_a_budget_takes_points_in_order_while_they_fit():
    minutes = {Point("a"): 5.0, Point("b"): 20.0, Point("c"): 4.0, Point("d"): 2.0}
    chosen, left_out = plan(minutes, 10.0)
    assert ([point.subject for point in chosen], [point.subject for point in left_out]) == (["a", "c"], ["b", "d"])
    assert plan(minutes, 0.0) == ([], list(minutes))
    assert plan(minutes, 100.0) == (list(minutes), [])


def test_the_most_valuable_points_are_first(monkeypatch):
    monkeypatch.setattr(capacity, "count_people", lambda width, layers, style, bits: round(bits * width))
    sizes = ["--sizes", "32x1", "16x1", "--exposures", "10", "100", "1000", "--bits-offered", "10"]
    arguments = parse_arguments(["--subjects", "vanilla", "window", *sizes, "--seeds", "0", "1"])
    cases = list_cases(arguments)
    assert len({name_point(case) for case in cases}) == len(cases) == 2 * (12 + 4)
    assert [case.seed for case in cases] == [0] * 16 + [1] * 16
    found = [(case.attention, case.width, case.exposures) for case in cases[:16] if case.questions is None]
    assert found[:4] == [("vanilla", 16, 100), ("vanilla", 32, 100), ("vanilla", 16, 1000), ("vanilla", 32, 1000)]
    assert found[4:7] == [("vanilla", 16, 10), ("vanilla", 32, 10), ("window", 16, 100)]
    asked = [(case.wordings, case.questions, case.people) for case in cases[4:8]]
    assert asked == [(1, "after", 80), (5, "after", 80), (1, "mixed", 80), (5, "mixed", 80)]
    # The same people for every variant of a size.
    assert {(case.width, case.people) for case in cases if case.questions is None} == {(16, 160), (32, 320)}
    several = list_cases(parse_arguments(["--subjects", "vanilla", *sizes, "20"]))
    assert [(case.width, case.people) for case in several[:4]] == [(16, 160), (16, 320), (32, 320), (32, 640)]
    assert {case.people for case in several if case.questions is not None} == {80}


OPTIONS = ["--sizes", "8x1", "--exposures", "1", "--extraction-exposures", "1", "--lists", "short"]
OPTIONS += ["--bits-offered", "0.2", "--threads", "1", "--subjects", "vanilla", "window"]


def test_no_budget_trains_nothing_and_names_what_is_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(capacity, "seconds_a_step", lambda case, writer: 60.0)
    monkeypatch.setattr(capacity, "run_case", None)
    assert capacity.main([*OPTIONS, "--budget", "0", "--output", str(tmp_path / "capacity.json")]) == 0
    printed = capsys.readouterr().out
    assert "0 points fit, 0 minutes" in printed
    assert "6 points are left out" in printed
    assert "vanilla, 8x1, 1 exposures, 5 wordings, questions mixed" in printed
    assert json.loads((tmp_path / "capacity.json").read_text())["points"] == []


def test_it_runs_resumes_and_writes_what_it_found(tmp_path, capsys):
    command = [*OPTIONS, "--output", str(tmp_path / "capacity.json")]
    assert capacity.main(command) == 0
    points = json.loads((tmp_path / "capacity.json").read_text())["points"]
    assert [point["subject"] for point in points] == ["vanilla"] * 5 + ["window"]
    runs = [run for point in points for run in point["rounds"]]
    assert sum("accuracy" in run for run in runs) == 4
    for run in runs:
        assert {"values", "name", "all"} <= set(run["bits"])
        assert run["bits"]["all"]["offered"] > run["bits"]["values"]["offered"] > 0
    tables = (tmp_path / "capacity.md").read_text(encoding="utf-8")
    for heading in ("Bits stored", "Share of each fact's bits that is stored", "Storage and extraction"):
        assert f"## {heading}" in tables
    assert "<!-- window, 8x1 -->" in (tmp_path / "capacity.svg").read_text(encoding="utf-8")
    assert capacity.main([*command, "--budget", "0"]) == 0
    assert "0 points are left out" in capsys.readouterr().out
    assert json.loads((tmp_path / "capacity.json").read_text())["points"] == points


def stored(learned: float) -> dict:
    """Return invented bits of one fact, and of all."""
    one = {"offered": 300.0, "learned": learned, "plus_minus": 0.0}
    return {"field": one, "values": one, "name": one, "all": {**one, "offered": 600.0, "learned": 2 * learned}}


def test_what_was_trained_in_another_precision_is_not_continued(tmp_path, capsys):
    command = [*OPTIONS, "--budget", "0", "--output", str(tmp_path / "capacity.json")]
    assert capacity.main(command) == 0
    assert capacity.main([*command, "--mixed-precision", "bf16"]) == 2
    assert "precision was no, now bf16" in capsys.readouterr().err


def test_the_report_has_means_and_ranges_over_seeds(tmp_path):
    shape = {"attention": "vanilla", "width": 8, "layers": 1, "people": 50, "exposures": 100}
    sizes = {"parameters": 200, "parameters_without_embeddings": 100, "minutes": 2.0}
    points = [
        {
            "subject": "vanilla", "task": "x", "size": 50, "seed": seed,
            "rounds": [{**shape, **sizes, "wordings": None, "questions": None, "bits": stored(learned)}],
        }
        for seed, learned in ((0, 90.0), (1, 120.0))
    ]  # fmt: skip
    accuracy = {"trained": {"field": 1.0, "worked": 0.5}, "others": {"field": 0.25, "worked": 0.0}}
    asked = {**shape, **sizes, "wordings": 5, "questions": "mixed", "bits": stored(150.0), "accuracy": accuracy}
    points.append({"subject": "vanilla", "task": "y", "seed": 0, "rounds": [asked]})
    machine = {"device": "x", "threads": 2, "torch": "2"}
    content = {
        "machine": machine,
        "vocabulary": 600,
        "batch": 96,
        "names": 54_000,
        "employer_first": True,
        "points": points,
    }
    text = report(content)
    assert "as drawn from 54,000" in text
    assert "with the employer, which is always named first." in text
    assert "| vanilla, 8x1 | 200 | 100 | 50 | 100 | 3.00 | 1.05 (0.90–1.20) | 0.53 (0.45–0.60) | 2.10" in text
    assert "| vanilla, 8x1, 50 people, 100 times | 35.0 % |" in text
    assert "| bits per person | 6.0 |" in text
    assert "| 5, mixed in | 50 | 100 | 50.0 % | 75.0 % | 12.5 % |" in text
    for name in ("one.svg", "two.svg"):
        draw(content, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
