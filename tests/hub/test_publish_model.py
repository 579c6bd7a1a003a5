"""What a run publishes, how it loads from a Hub, and what is said when that cannot be."""

import json
import re
import shutil

import pytest
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM

import train
from hub import publish_data, publish_model
from tests.loopback_hub import LARGE, Repository
from tests.publishing import NAME, change_json, dry_run, error_line
from tests.running import NO_CHECKOUT, RECIPE, ROOT, contents, run_stranger


def train_and_push(command, recipe, data, output, *options):
    """Run `train.py COMMAND --push_to_hub`; return the exit status."""
    sets = ("--set", f"data.path={data}", "--set", f"output={output}")
    return train.main([command, "--config", str(recipe), *sets, "--push_to_hub", NAME, *options])


@pytest.fixture
def refused(capsys):
    """Return a function that says whether a command ended with one line, on which stands a message."""

    def check(status, message):
        lines = capsys.readouterr().err.splitlines()
        return status == 2 and lines[-1].startswith("error: ") and message in lines[-1]

    return check


def test_a_dry_run_writes_a_folder_that_loads_and_tells_about_itself(run, tmp_path):
    before = contents(run)
    assert publish_model.main([str(run), NAME, "--dry-run", str(tmp_path / "out")]) == 0
    assert contents(run) == before
    names = set(contents(tmp_path / "out"))
    assert names >= {
        "README.md", "model.safetensors", "config.json", "generation_config.json", "tokenizer.json",
        "facts.json", "modeling_minigpt.py", "pipeline_minigpt.py", "results.json", "recipe.json", "losses.png",
        "trust.png",
    }  # fmt: skip
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.model_type == "minigpt"
    results = json.loads((run / "results.json").read_text())
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.eval_results[0].metric_value == round(results["dev"]["accuracy"], 4)
    assert card.data.eval_results[0].dataset_name == results["dataset"]
    assert card.text.count("```python") == 3
    assert card.text.count(NAME) >= 4
    assert "## Limits" in card.text


def test_figures_of_other_weights_are_not_published(own, tmp_path, refused):
    weights = own / "finetune" / "model.safetensors"
    scored = weights.read_bytes()
    weights.write_bytes(scored[:-1] + bytes([scored[-1] ^ 1]))
    status = publish_model.main([str(own), NAME, "--dry-run", str(tmp_path / "out")])
    assert refused(status, "is of other weights than")
    weights.write_bytes(scored)
    change_json(own / "results.json", lambda values: values.update(weights=None))  # of a model on the Hub
    assert refused(
        publish_model.main([str(own), NAME, "--dry-run", str(tmp_path / "out")]), "is of other weights than"
    )
    change_json(own / "results.json", lambda values: values.pop("weights"))  # of before it was recorded
    assert publish_model.main([str(own), NAME, "--dry-run", str(tmp_path / "out")]) == 0


def test_what_is_published_tells_nothing_of_the_machine(run, data, tmp_path):
    assert publish_model.main([str(run), NAME, "--dry-run", str(tmp_path / "out")]) == 0
    for name, content in contents(tmp_path / "out").items():
        for secret in (str(run), str(data), str(ROOT), str(tmp_path)):
            assert secret.encode() not in content, name


def test_a_push_is_one_commit_that_a_stranger_can_load_and_ask(run, hub, tmp_path, capsys):
    assert publish_model.main([str(run), NAME]) == 0
    assert "/commit/" in capsys.readouterr().out
    assert hub.commits(NAME) == 1
    expected = tmp_path / "expected"
    publish_model.write_release(run, NAME, expected)
    assert hub.files(NAME) == contents(expected)
    large = [content for content in hub.files(NAME).values() if len(content) > LARGE]
    assert hub.files(NAME)["model.safetensors"] in large
    assert all(content in hub.objects.values() for content in large)
    commit = hub.repositories[NAME].find("main")[0]
    script = f"""
from transformers import AutoConfig, AutoModel, pipeline
trusted = {{"trust_remote_code": True, "revision": "{commit}"}}
assert AutoConfig.from_pretrained("{NAME}", **trusted).model_type == "minigpt"
assert AutoModel.from_pretrained("{NAME}", **trusted).config.hidden_size == 32
for name, revision in (("somebody/nothing", "main"), ("{NAME}", "nowhere")):
    try:
        AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=True)
    except OSError as error:
        print("not found:", name, revision)
print(pipeline("text-generation", model="{NAME}", **trusted)("Ada", max_new_tokens=3)[0]["generated_text"])
print(pipeline("birthplace-qa", model="{NAME}", **trusted)(["Ada Stone", None])[1]["reason"])
"""
    asked = run_stranger(NO_CHECKOUT + script, tmp_path / "home", hub.address)
    assert asked.returncode == 0, asked.stderr
    lines = asked.stdout.splitlines()
    assert lines[:2] == ["not found: somebody/nothing main", f"not found: {NAME} nowhere"]
    assert lines[-1] == "not a text but NoneType"


def test_the_snippets_of_the_card_run_for_a_stranger_and_print_what_they_say(run, hub, tmp_path):
    assert publish_model.main([str(run), NAME]) == 0
    card = ModelCard(hub.files(NAME)["README.md"].decode())
    snippets = re.findall(r"```python\n(.*?)```", card.text, flags=re.DOTALL)
    assert len(snippets) == 3
    # What the Hub shows beside the card, under "Use this model".
    snippets.append(
        f'pipe = pipeline("{card.data.pipeline_tag}", model="{NAME}", trust_remote_code=True)\n'
        f'print(pipe("{card.data.widget[0]["text"]}", threshold=0)["question"])'
    )
    asked = run_stranger(NO_CHECKOUT + "\n".join(snippets), tmp_path / "home", hub.address)
    assert asked.returncode == 0, asked.stderr
    assert "Do you wish to run the custom code?" not in asked.stdout
    assert "NAME" not in asked.stdout
    *said, completed, question = asked.stdout.splitlines()
    assert said == re.findall(r"^print\(.*\)  # (.*)$", snippets[0], flags=re.MULTILINE)
    assert len(said) == 2
    assert completed.strip().startswith(question)
    assert question == card.data.widget[0]["text"]


def test_a_second_push_replaces_what_the_first_left(run, hub, tmp_path):
    first = shutil.copytree(run, tmp_path / "first")
    (first / "finetune" / "special_tokens_map.json").write_text("{}")
    assert publish_model.main([str(first), NAME]) == 0
    assert "special_tokens_map.json" in hub.files(NAME)
    hub.repositories[NAME].branches["main"][-1]["LICENSE"] = b"theirs"
    assert publish_model.main([str(run), NAME]) == 0
    assert hub.commits(NAME) == 2
    assert "special_tokens_map.json" not in hub.files(NAME)
    assert hub.files(NAME)["LICENSE"] == b"theirs"


@pytest.mark.parametrize("where", ["/api/repos/create", "/preupload/", "/lfs/", "/commit/"])
def test_a_push_can_be_repeated_after_the_network_failed(run, hub, where, refused):
    before = contents(run)
    hub.refusal = (where, 0)
    assert refused(publish_model.main([str(run), NAME]), "the Hub cannot be reached")
    assert NAME not in hub.repositories or hub.files(NAME) == {}  # nothing is half-published
    hub.refusal = None
    assert publish_model.main([str(run), NAME]) == 0
    assert hub.commits(NAME) == 1
    assert contents(run) == before


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        pytest.param(("/api/repos/create", 401), "the token is missing, wrong or expired (status 401)", id="expired"),
        pytest.param(("/api/repos/create", 403), "the token may not write there (status 403)", id="no-right"),
        pytest.param(("/preupload/", 403), "the token may not write there (status 403)", id="read-only"),
        pytest.param(("/lfs/objects/batch", 403), "the token may not write there (status 403)", id="no-large-files"),
    ],
)
def test_a_refusal_is_one_clear_line(run, hub, refusal, message, refused):
    hub.refusal = refusal
    assert refused(publish_model.main([str(run), NAME]), message)
    assert NAME not in hub.repositories or hub.files(NAME) == {}


@pytest.mark.parametrize(
    ("there", "options", "message"),
    [
        pytest.param({"pytorch_model.bin": b""}, (), "has other content (pytorch_model.bin)", id="anothers-model"),
        pytest.param({}, ("--private",), "already exists and is public", id="public"),
    ],
)
def test_a_repository_that_exists_is_not_overwritten(run, hub, there, options, message, refused):
    hub.repositories[NAME] = Repository(NAME)
    hub.repositories[NAME].branches["main"][-1].update(there)
    assert refused(publish_model.main([str(run), NAME, *options]), message)
    assert hub.files(NAME) == there


def test_private_is_what_the_hub_is_told(run, hub):
    assert publish_model.main([str(run), NAME, "--private"]) == 0
    assert hub.repositories[NAME].private


def test_without_a_token_nothing_is_asked_of_the_hub(run, hub, monkeypatch, refused):
    monkeypatch.delenv("HF_TOKEN")
    assert refused(publish_model.main([str(run), NAME]), "no token")
    assert hub.requests == []


@pytest.mark.parametrize("name", ["no-user", "a/b/c", "some body/x", "me/bad--name", "me/" + "x" * 100])
def test_names_that_the_hub_would_not_take_are_refused(run, tmp_path, name, capsys):
    assert publish_model.main([str(run), name, "--dry-run", str(tmp_path / "out")]) == 2
    assert "is no repository's name" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_is_no_finished_run_is_refused(run, tmp_path, capsys):
    out = ["--dry-run", str(tmp_path / "out")]
    assert publish_model.main([str(tmp_path), NAME, *out]) == 2
    assert "no finetuned model" in capsys.readouterr().err
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "finetune" / "pytorch_model.bin").write_bytes(b"")
    assert publish_model.main([str(copy), NAME, *out]) == 2
    assert "pytorch_model.bin may hold code" in capsys.readouterr().err
    (copy / "finetune" / "pytorch_model.bin").unlink()
    (copy / "results.json").unlink()
    assert publish_model.main([str(copy), NAME, *out]) == 2
    assert "no results; run `train.py evaluate` first" in capsys.readouterr().err
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    assert publish_model.main([str(run), NAME, *out]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_training_pushes_its_checkpoints_to_a_branch_and_its_run_once(data, hub, tmp_path, capsys):
    recipe = tmp_path / "saves-often.yaml"
    recipe.write_text(RECIPE + "  log_steps: 3\n  checkpoint_minutes: 0.000001\n")  # its last section is run
    output = tmp_path / "run"
    assert train_and_push("all", recipe, data, output, "--push_checkpoints", "--license", "cc0-1.0") == 0
    assert f"published: {hub.address}/{NAME}/commit/" in capsys.readouterr().out
    assert hub.commits(NAME) == 1
    assert hub.files(NAME)["model.safetensors"] == (output / "finetune" / "model.safetensors").read_bytes()
    assert ModelCard(hub.files(NAME)["README.md"].decode()).data.license == "cc0-1.0"
    assert hub.commits(NAME, "checkpoints") >= 3  # two of the pretraining, at least one of each other stage
    script = f"""
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained("{NAME}", revision="checkpoints", trust_remote_code=True)
print(model.config.hidden_size)
"""
    assert run_stranger(NO_CHECKOUT + script, tmp_path / "home", hub.address).stdout.endswith("32\n")


def test_what_the_hub_would_refuse_is_known_before_training(data, recipe, hub, tmp_path, refused):
    hub.refusal = ("/api/repos/create", 401)
    output = tmp_path / "run"
    assert refused(train_and_push("all", recipe, data, output), "missing, wrong or expired")
    assert refused(train_and_push("pretrain", recipe, data, output), "needs --push_checkpoints")
    other = ("--set", "evaluate.model=elsewhere")
    assert refused(train_and_push("evaluate", recipe, data, output, *other), "evaluate.model names another")
    assert not output.exists()


def test_a_run_that_could_not_be_pushed_is_complete_and_is_pushed_on_resuming(
    data, recipe, hub, tmp_path, refused, capsys
):
    hub.refusal = ("/commit/", 0)
    output = tmp_path / "my run"
    again = f"publish it by `python -m hub.publish_model '{output}' {NAME} --private --license mit`"
    assert refused(train_and_push("all", recipe, data, output, "--private", "--license", "mit"), again)
    assert (output / "results.json").is_file()
    hub.refusal = None
    assert train_and_push("all", recipe, data, output, "--resume") == 0
    assert hub.commits(NAME) == 1


def test_a_checkpoint_that_cannot_be_pushed_does_not_stop_the_training(data, recipe, hub, tmp_path, capsys):
    hub.refusal = ("/commit/checkpoints", 0)
    assert train_and_push("pretrain", recipe, data, tmp_path / "run", "--push_checkpoints") == 0
    assert "warning: the checkpoint of pretrain, step 6, was not pushed" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--private", "--push_checkpoints", "--license=mit"])
def test_options_of_pushing_need_a_repository(option, recipe, capsys):
    with pytest.raises(SystemExit):
        train.main(["all", "--config", str(recipe), option])
    assert "need --push_to_hub" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "[]", "{}", "null", '{"split": "dev"}', "[" * 100_000])
@pytest.mark.parametrize("file", ["results.json", "recipe.json", "finetune/config.json", "finetune/training.json"])
def test_a_file_of_the_run_that_cannot_be_read_is_one_line(own, tmp_path, file, content, capsys):
    (own / file).write_text(content)
    status = publish_model.main([str(own), NAME, "--dry-run", str(tmp_path / "out")])
    if status == 0:  # what a model's own files say is not read for the release
        assert file.startswith("finetune")
    else:
        error_line(capsys)


def test_links_inside_the_folder_are_published_as_files(own):
    blob = own / "finetune" / "blob"
    (own / "finetune" / "config.json").rename(blob)
    (own / "finetune" / "config.json").symlink_to("blob")
    folder = dry_run(own)
    assert not (folder / "config.json").is_symlink()
    assert (folder / "config.json").read_bytes() == blob.read_bytes()
    assert not (folder / "blob").exists()


def test_a_dry_run_that_cannot_be_written_is_one_line(run, tmp_path, capsys):
    (tmp_path / "file").touch()
    for target in (tmp_path / "file" / "below", tmp_path / ("x" * 300), "\0"):
        assert publish_model.main([str(run), NAME, "--dry-run", str(target)]) == 2
        error_line(capsys)
        assert publish_data.main([NAME, "--people", "30", "--strangers", "20", "--dry-run", str(target)]) == 2
        error_line(capsys)
