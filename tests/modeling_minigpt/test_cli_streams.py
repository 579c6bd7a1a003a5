"""Every command with a stream that is closed, that nobody reads or that cannot write most letters: no traceback."""

import json

import pytest
from transformers import GPT2Config, GPT2LMHeadModel

from tests.streams import STREAMS, minigpt_with_streams

NAMES = ("Zoé Hikdo", "Brihi Hikdo")
COMMANDS = {
    "ask": ["ask", "RUN", *NAMES],
    "json": ["ask", "RUN", *NAMES, "--json"],
    "file": ["ask", "RUN", "--file", "NAMES"],
    "stdin": ["ask", "RUN"],
    "info": ["info", "RUN"],
    "convert": ["convert", "gpt2", "GPT2", "CONVERTED"],
    "serve": ["serve", "RUN", "--port", "99999"],
    "help": ["ask", "--help"],
}


@pytest.fixture(scope="module")
def places(run, tmp_path_factory):
    """What the commands' words stand for."""
    folder = tmp_path_factory.mktemp("streams")
    GPT2LMHeadModel(GPT2Config(vocab_size=9, n_positions=8, n_embd=4, n_layer=1, n_head=1)).save_pretrained(
        folder / "gpt2"
    )
    (folder / "names.txt").write_text("".join(f"{name}\n" for name in NAMES), encoding="utf-8")
    return {"RUN": run, "NAMES": folder / "names.txt", "GPT2": folder / "gpt2"}


@pytest.mark.parametrize("streams", STREAMS)
@pytest.mark.parametrize("command", COMMANDS)
def test_no_stream_makes_a_command_fail(command, streams, places, tmp_path):
    places = {**places, "CONVERTED": tmp_path / "converted"}
    words = [str(places.get(word, word)) for word in COMMANDS[command]]
    status, out, err = minigpt_with_streams(words, streams, tmp_path)
    failing = command == "serve" or (command == "stdin" and streams == "closed-stdin")
    if failing:
        assert (status, out) == (2, "")
        assert err.startswith("error: --host" if command == "serve" else "error: stdin is closed: ")
        assert len(err.splitlines()) == 1
        return
    assert err == ""
    # `ask` without any question writes nothing.
    assert status == (141 if streams == "unread" and command != "stdin" else 0)
    assert bool(out) == (streams in ("closed-stdin", "ascii") and command != "stdin")
    assert command != "convert" or (tmp_path / "converted" / "config.json").is_file()


def test_what_an_encoding_lacks_is_escaped_in_texts_and_in_json(places, tmp_path):
    _, out, _ = minigpt_with_streams(["ask", str(places["RUN"]), *NAMES], "ascii", tmp_path)
    assert out.startswith("Where was Zo\\xe9 Hikdo born?  I don't know")
    assert len(out.splitlines()) == 2
    _, out, _ = minigpt_with_streams(["ask", str(places["RUN"]), *NAMES, "--json"], "ascii", tmp_path)
    questions = [json.loads(line)["question"] for line in out.splitlines()]
    assert questions == [f"Where was {name} born?" for name in NAMES]
