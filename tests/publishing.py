"""What tests of publishing share: a run to be changed, answers of the Hub, the one line of an error."""

import json
from pathlib import Path

from hub import publish_model
from tests.loopback_hub import LoopbackHub

NAME = "somebody/minigpt-test"
HTML = b"<html><title>Sign in to the guest network</title></html>"
THEIRS = {  # what the owner of a repository may have put there
    "handler.py": b"h", "onnx/model.json": b"{}", "onnx/model.safetensors": b"s", "samples/a.png": b"p",
    "LICENSE": b"l", "notes.json": b"{}", "extra.safetensors": b"s", "birthplace/mine.parquet": b"m",
    "theirs_minigpt.py": b"t",
}  # fmt: skip


def dry_run(run: Path) -> Path:
    """Write what would be published of a run beside it; return the folder."""
    target = run.parent / "out"
    assert publish_model.main([str(run), NAME, "--dry-run", str(target)]) == 0
    return target


def answer_with(hub: LoopbackHub, part: str, answer: tuple) -> None:
    """Let the hub answer requests whose address has a part with (status, headers, body)."""
    usual = hub.answer
    hub.answer = lambda method, path, *rest: answer if part in path else usual(method, path, *rest)


def head(hub: LoopbackHub, name: str = NAME, branch: str = "main") -> dict[str, bytes]:
    """Return the files at the head of a repository, to be changed as by its owner."""
    return hub.repositories[name].branches[branch][-1]


def error_line(capsys) -> str:
    """Return the only line of stderr that is an error, and check that there is no traceback."""
    lines = capsys.readouterr().err.splitlines()
    assert not any("Traceback" in line for line in lines)
    [found] = [line for line in lines if line.startswith("error: ")]
    return found


def change_json(path: Path, change) -> None:
    """Change the values in a JSON file."""
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def start_from(run: Path, source: str) -> None:
    """Let a run's records say that it started from a model, as training writes them."""
    refusal = f"{source} was trained on other data, perhaps on the calibration people"

    def change_results(values):
        values["start_from"] = source
        values["trust"]["refusal"] = refusal

    change_json(run / "results.json", change_results)
    change_json(run / "recipe.json", lambda values: values["finetune"].update(start_from=source))
    change_json(
        run / "finetune" / "training.json", lambda values: values.update(start_from=source, uncalibrated=refusal)
    )
