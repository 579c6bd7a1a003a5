"""`minigpt serve`: the pipeline's own results over HTTP, batched, limited, and never an error of the server."""

import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import hypothesis
import pytest
import schemathesis
from fastapi.testclient import TestClient

from modeling_minigpt import cli_minigpt
from modeling_minigpt.server_minigpt import MAX_BODY, MAX_QUESTIONS, build_app
from tests.pipelines import NAMES, TEXTS, pipeline_factory

JSON = {"Content-Type": "application/json"}
BAD_THRESHOLDS = [float("nan"), float("inf"), "0.5", True, -0.1, 1.1]


@pytest.fixture(scope="module")
def pipeline():
    """A pipeline whose results have one more key, as a later version's may."""
    ask = pipeline_factory()()
    original = ask.postprocess
    ask.postprocess = lambda *arguments, **options: [
        {**result, "evidence": ["a line"]} for result in original(*arguments, **options)
    ]
    return ask


@pytest.fixture(scope="module")
def client(pipeline):
    with TestClient(build_app(pipeline, "tiny", max_batch=8)) as client:
        yield client


def same(found, expected):
    """Check that results are equal but for what a batch rounds in another way."""
    rounded = dict.fromkeys(["known", "correct", "score", "candidates"])
    assert [{**one, **rounded} for one in found] == [{**one, **rounded} for one in expected]
    for name in ("known", "correct", "score"):
        assert [one[name] for one in found if one[name] is not None] == pytest.approx(
            [one[name] for one in expected if one[name] is not None], rel=1e-3
        )


def test_a_text_gives_the_pipelines_result_and_a_list_a_list_of_them(client, pipeline):
    found = client.post("/ask", json={"question": NAMES[0]})
    assert found.status_code == 200
    same([found.json()], [pipeline(NAMES[0])])
    assert found.json()["evidence"] == ["a line"]
    same(client.post("/ask", json={"question": TEXTS}).json(), pipeline(TEXTS, batch_size=8))


def test_options_are_the_pipelines(client, pipeline):
    options = {"relation": "studied", "threshold": 1.0}
    found = client.post("/ask", json={"question": NAMES[0], **options}).json()
    same([found], [pipeline(NAMES[0], **options)])
    assert (found["abstained"], found["relation"]) == (True, "studied")


def test_clients_that_ask_at_once_get_their_own_answers_and_none_is_abstained_from(client, pipeline):
    def ask(text):
        return client.post("/ask", json={"question": text}).json()

    with ThreadPoolExecutor(16) as pool:
        same(list(pool.map(ask, TEXTS)), [pipeline(text) for text in TEXTS])


@pytest.mark.parametrize(
    ("body", "place"),
    [
        pytest.param({}, "question", id="nothing"),
        pytest.param({"question": 7}, "question", id="number"),
        pytest.param({"question": []}, "question", id="empty"),
        pytest.param({"question": ["Ada"] * (MAX_QUESTIONS + 1)}, "question", id="many"),
        pytest.param({"question": "a" * 1_001}, "question", id="long"),
        pytest.param({"question": "Ada \ud800"}, "question", id="half a character"),
        pytest.param({"question": "Ada", "relations": "studied"}, "relations", id="unknown field"),
        pytest.param({"question": "Ada", "\ud800": 1}, "body", id="half a character as field"),
        *(
            pytest.param({"question": "Ada", "threshold": value}, "threshold", id=repr(value))
            for value in BAD_THRESHOLDS
        ),
    ],
)
def test_what_is_no_request_is_refused_by_the_field(client, body, place):
    found = client.post("/ask", content=json.dumps(body), headers=JSON)
    assert found.status_code == 422
    assert place in [part for problem in found.json()["detail"] for part in problem["loc"]]


def test_an_unknown_relation_is_refused_by_the_names_of_those_that_exist(client):
    found = client.post("/ask", json={"question": "Ada", "relation": "died"})
    assert found.status_code == 422
    assert "'birthplace' or 'studied'" in found.json()["detail"][0]["msg"]


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 100_000, b'{"threshold": 1' + b"0" * 5_000 + b"}", b""])
def test_bytes_that_are_no_json_are_refused(client, content):
    assert client.post("/ask", content=content, headers=JSON).status_code in (400, 422)


@pytest.mark.parametrize("in_chunks", [False, True], ids=["whole", "chunks"])
def test_a_body_over_the_limit_is_refused(client, in_chunks):
    body = b" " * (MAX_BODY + 1)
    found = client.post("/ask", content=iter([body[:9], body[9:]]) if in_chunks else body, headers=JSON)
    assert (found.status_code, found.json()) == (413, {"detail": "the body is larger than 4,194,304 bytes"})
    body = json.dumps({"question": NAMES[0]}).encode().rjust(MAX_BODY)
    assert client.post("/ask", content=body, headers=JSON).status_code == 200


def test_what_is_not_answered_in_time_is_refused_and_the_next_is_answered(pipeline, monkeypatch):
    pauses = [1.0]
    original = pipeline.rank

    def rank(*arguments):
        time.sleep(pauses.pop() if pauses else 0)
        return original(*arguments)

    monkeypatch.setattr(pipeline, "rank", rank)
    with TestClient(build_app(pipeline, "tiny", timeout=0.5)) as client:
        found = client.post("/ask", json={"question": NAMES[0]})
        assert (found.status_code, found.json()) == (504, {"detail": "no answer within 0.5 seconds"})
        assert client.get("/health").status_code == 200
    with TestClient(build_app(pipeline, "tiny")) as client:
        assert client.post("/ask", json={"question": NAMES[0]}).status_code == 200


def test_health_says_what_can_be_asked(client, pipeline):
    pipeline.facts["studied"].confidence, stored = None, pipeline.facts["studied"].confidence
    try:
        found = TestClient(build_app(pipeline, "tiny")).get("/health").json()
    finally:
        pipeline.facts["studied"].confidence = stored
    assert (found["status"], found["model"], found["revision"]) == ("ok", "tiny", None)
    birthplace, studied = found["relations"]
    assert (birthplace["name"], birthplace["question"]) == ("birthplace", "Where was NAME born?")
    assert (birthplace["known_threshold"], birthplace["correct_threshold"]) == (0.01, 0.02)
    assert "at most 10 % of the answers are wrong" in birthplace["promise"]
    assert (studied["calibrated"], studied["known_threshold"]) == (False, None)
    assert "I don't know" in studied["promise"]
    assert client.get("/docs").status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
def test_schemathesis_finds_nothing(pipeline, mode):
    schema = schemathesis.openapi.from_asgi("/openapi.json", build_app(pipeline, "tiny"))
    operations = {result.ok().label: result.ok() for result in schema.get_all_operations()}
    assert set(operations) == {"POST /ask", "GET /health"}

    @hypothesis.settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @hypothesis.given(case=operations["POST /ask"].as_strategy(generation_mode=mode))
    def check(case):
        case.call_and_validate()

    check()
    operations["GET /health"].Case().call_and_validate()


def post(address, question):
    """Ask a server in another process."""
    body = json.dumps({"question": question}).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{address}/ask", body, JSON), timeout=120) as answer:
        return json.load(answer)


def test_the_command_serves_until_it_is_asked_to_end_and_answers_what_it_has(tmp_path):
    pipeline_factory()().save_pretrained(tmp_path / "model")
    command = [sys.executable, "-m", "modeling_minigpt", "serve", str(tmp_path / "model"), "--port", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*command, "--timeout", "120"], **pipes) as server:
        try:
            line = server.stdout.readline()
            address = re.fullmatch(r"serving model at (http://127\.0\.0\.1:\d+)/docs\n", line).group(1)
            assert post(address, NAMES[0])["question"] == "Where was Ada Stone born?"
            with urllib.request.urlopen(f"{address}/health", timeout=60) as answer:
                assert str(tmp_path) not in answer.read().decode()
            with ThreadPoolExecutor(1) as pool:
                asking = pool.submit(post, address, TEXTS * 5)
                time.sleep(0.2)
                server.send_signal(signal.SIGTERM)
                assert len(asking.result()) == 5 * len(TEXTS)
            assert server.wait(60) == 0
            assert server.stderr.read() == ""
        finally:
            server.kill()


def test_the_code_beside_a_models_weights_needs_no_library_of_the_server(tmp_path):
    pipeline_factory()().save_pretrained(tmp_path)
    names = {path.name for path in tmp_path.glob("*.py")}
    assert "pipeline_minigpt.py" in names
    assert not names & {"server_minigpt.py", "batching_minigpt.py", "request_limits_minigpt.py", "cli_minigpt.py"}
    assert not [name for name in names if name.startswith("cli_")]


def test_without_the_extra_the_command_names_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "fastapi", None)
    monkeypatch.delitem(sys.modules, "modeling_minigpt.server_minigpt")
    monkeypatch.delattr("modeling_minigpt.server_minigpt")
    assert cli_minigpt.main(["serve", "nowhere"]) == 2
    assert capsys.readouterr().err == "error: serve needs fastapi: pip install 'minigpt-lab[serve]'\n"


@pytest.mark.parametrize(
    "words", [["--max-batch", "0"], ["--max-batch", "1.5"], ["--timeout", "nan"], ["--timeout", "-1"], ["--port", "x"]]
)
def test_options_out_of_range_are_refused(words, capsys):
    with pytest.raises(SystemExit) as ended:
        cli_minigpt.main(["serve", "nowhere", *words])
    assert ended.value.code == 2
    assert f"argument {words[0]}" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["70000", "-1"])
def test_an_address_that_cannot_be_used_is_refused_in_one_line(port, capsys):
    assert cli_minigpt.main(["serve", "nowhere", "--port", port]) == 2
    assert re.fullmatch(rf"error: --host 127\.0\.0\.1 --port {port}: .+\n", capsys.readouterr().err)
