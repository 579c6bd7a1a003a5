"""What a run publishes, how it loads from a Hub, and what is said when that cannot be."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM

from tests.loopback_hub import LoopbackHub
from tests.running import ROOT, contents
from training import publish

NAME = "somebody/minigpt-test"


@pytest.fixture
def hub():
    """A Hub on loopback, and its address."""
    hub = LoopbackHub()
    with hub.serve() as address:
        yield hub, address


def outside(address, home, token="hf_test"):
    """Return the environment of a process that knows no Hub but this one."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON"))}
    named = {"HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return {**environment, **named, **({"HF_TOKEN": token} if token else {})}


def push(run, address, home, *options, token="hf_test", name=NAME):
    command = [sys.executable, "-m", "training.publish", str(run), name, *options]
    environment = outside(address, home, token)
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


def test_a_dry_run_writes_a_folder_that_loads_and_tells_about_itself(run, tmp_path):
    before = contents(run)
    assert publish.main([str(run), NAME, "--dry-run", str(tmp_path / "out")]) == 0
    assert contents(run) == before
    names = set(contents(tmp_path / "out"))
    assert names >= {
        "README.md", "model.safetensors", "config.json", "generation_config.json", "tokenizer.json",
        "birthplaces.json", "modeling_minigpt.py", "pipeline_minigpt.py", "results.json", "recipe.json", "losses.png",
        "trust.png",
    }  # fmt: skip
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.model_type == "minigpt"
    results = json.loads((run / "results.json").read_text())
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.eval_results[0].metric_value == round(results["dev"]["accuracy"], 4)
    assert card.data.eval_results[0].dataset_name == results["dataset"]
    assert card.text.count("```python") == 3
    assert card.text.count(NAME) >= 4
    assert "## Limits" in card.text


def test_what_is_published_tells_nothing_of_the_machine(run, data, tmp_path):
    assert publish.main([str(run), NAME, "--dry-run", str(tmp_path / "out")]) == 0
    for name, content in contents(tmp_path / "out").items():
        for secret in (str(run), str(data), str(ROOT), str(tmp_path)):
            assert secret.encode() not in content, name


def test_a_push_is_one_commit_that_a_stranger_can_load_and_ask(run, hub, tmp_path):
    server, address = hub
    pushed = push(run, address, tmp_path / "home")
    assert pushed.returncode == 0, pushed.stderr
    assert "/commit/" in pushed.stdout
    assert server.commits == {NAME: 1}
    expected = tmp_path / "expected"
    publish.write_release(run, NAME, expected)
    assert server.repositories[NAME] == contents(expected)
    script = f"""
import sys
for name in ("modeling_minigpt", "datasets", "accelerate", "sklearn", "torchmetrics"):
    sys.modules[name] = None
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, pipeline
trusted = {{"trust_remote_code": True}}
assert AutoConfig.from_pretrained("{NAME}", **trusted).model_type == "minigpt"
assert AutoModel.from_pretrained("{NAME}", **trusted).config.hidden_size == 32
assert AutoTokenizer.from_pretrained("{NAME}")("Ada")["input_ids"]
print(pipeline("text-generation", model="{NAME}", **trusted)("Ada", max_new_tokens=3)[0]["generated_text"])
print(pipeline("birthplace-qa", model="{NAME}", **trusted)(["Ada Stone", None])[1]["reason"])
"""
    environment = outside(address, tmp_path / "other", token=None)
    command = [sys.executable, "-c", script]
    asked = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=180)
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.splitlines()[-1] == "not a text but NoneType"


def test_a_push_can_be_repeated_after_the_network_failed(run, hub, tmp_path):
    server, address = hub
    server.refusal = ("/commit/", 0)
    failed = push(run, address, tmp_path / "home")
    assert failed.returncode == 2
    assert "the Hub cannot be reached" in failed.stderr
    assert server.repositories == {NAME: {}}  # made, and nothing half-published
    server.refusal = None
    assert push(run, address, tmp_path / "home").returncode == 0
    assert server.commits == {NAME: 1}


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        pytest.param(("/api/repos/create", 401), "the token is missing, wrong or expired (status 401)", id="expired"),
        pytest.param(("/api/repos/create", 403), "the token may not write there (status 403)", id="no-right"),
        pytest.param(("/preupload/", 403), "the token may not write there (status 403)", id="read-only"),
    ],
)
def test_a_refusal_is_one_clear_line(run, hub, tmp_path, refusal, message):
    server, address = hub
    server.refusal = refusal
    failed = push(run, address, tmp_path / "home")
    assert failed.returncode == 2
    assert failed.stderr.splitlines()[-1].startswith(f"error: {NAME}: ")
    assert message in failed.stderr
    assert not any(server.repositories.values())


def test_without_a_token_nothing_is_asked_of_the_hub(run, hub, tmp_path):
    server, address = hub
    failed = push(run, address, tmp_path / "home", token=None)
    assert failed.returncode == 2
    assert "no token" in failed.stderr
    assert not server.repositories


@pytest.mark.parametrize("name", ["no-user", "a/b/c", "some body/x", "me/bad--name", "me/" + "x" * 100])
def test_names_that_the_hub_would_not_take_are_refused(run, tmp_path, name, capsys):
    assert publish.main([str(run), name, "--dry-run", str(tmp_path / "out")]) == 2
    assert "is no repository's name" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_is_no_finished_run_is_refused(run, tmp_path, capsys):
    out = ["--dry-run", str(tmp_path / "out")]
    assert publish.main([str(tmp_path), NAME, *out]) == 2
    assert "no finetuned model" in capsys.readouterr().err
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "finetune" / "pytorch_model.bin").write_bytes(b"")
    assert publish.main([str(copy), NAME, *out]) == 2
    assert "pytorch_model.bin may hold code" in capsys.readouterr().err
    (copy / "finetune" / "pytorch_model.bin").unlink()
    (copy / "results.json").unlink()
    assert publish.main([str(copy), NAME, *out]) == 2
    assert "no results; run `train.py evaluate` first" in capsys.readouterr().err
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    assert publish.main([str(run), NAME, *out]) == 2
    assert "is not empty" in capsys.readouterr().err
