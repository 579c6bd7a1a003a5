"""No certificate on people whose answers the weights have learned, whatever commands trained them."""

import json
import shutil

import pytest
import torch

from artifacts.run_folder import RunFolder
from data_scripts.bios_folder import FILES
from data_scripts.synthetic_bios import invent
from evaluation.trained_on import RECORD, TrainedOn, hash_name, names_in, read_record
from modeling_minigpt import MiniGPTForCausalLM
from tests.running import call

HOLDS_OUT = ("data.calibration_questions=12", "data.withheld_people=6")
NOTHING = ("data.calibration_questions=0", "data.withheld_people=0")


@pytest.fixture
def people(tmp_path):
    """A folder with 100 invented people, for this test to change."""
    folder = tmp_path / "people"
    invent(100, seed=1).write(folder)
    return folder


def results_of(output):
    """Return what a run's results say of trust."""
    return json.loads(RunFolder(output).results.read_text())["trust"]


def finetune_and_score(recipe, people, output, *overrides):
    """Run the second half of a run; return what its results say of trust."""
    assert call("finetune", recipe, people, output, *overrides) == 0
    assert call("evaluate", recipe, people, output, *overrides) == 0
    return results_of(output)


def check_refused(trust, output):
    """Check that nothing is certified, no withheld person is counted, and both have a reason."""
    assert (trust["calibrated"], trust["certificate"], trust["withheld"]) == (False, None, 0)
    assert not (output / "finetune" / "confidence.json").exists()
    assert trust["refusal"]
    assert trust["withheld_refusal"]
    report = (output / "report.md").read_text()
    assert trust["refusal"] in report
    assert trust["withheld_refusal"] in report


@pytest.mark.row("T1")
def test_a_pretraining_that_held_out_nobody_is_no_basis_for_a_calibration(recipe, people, tmp_path, capsys):
    output = tmp_path / "run"
    assert call("pretrain", recipe, people, output, *NOTHING) == 0
    check_refused(finetune_and_score(recipe, people, output, *HOLDS_OUT), output)
    err = " ".join(capsys.readouterr().err.split())
    assert "not calibrated: 12 of the 12 calibration people: their answers were trained on" in err
    assert "withheld people are not counted: 6 of the 6 withheld people: they were trained on" in err


@pytest.mark.row("T1")
def test_people_whom_another_pretraining_held_out_are_calibrated_on(recipe, people, tmp_path):
    output = tmp_path / "run"
    assert call("pretrain", recipe, people, output, *HOLDS_OUT) == 0
    trust = finetune_and_score(recipe, people, output, *HOLDS_OUT)
    assert 0 < trust["withheld"] <= 6  # some of the six are strangers of the calibration
    assert trust["withheld_refusal"] is None
    assert "trained on" not in (trust["refusal"] or "")


@pytest.mark.row("T1")
@pytest.mark.parametrize("place", ["first", "last"])
def test_a_line_between_the_stages_moves_nobody_into_what_is_certified(recipe, people, tmp_path, place):
    output = tmp_path / "run"
    assert call("pretrain", recipe, people, output, *HOLDS_OUT) == 0
    questions = (people / FILES["train"]).read_text().splitlines()
    line = "Where was Somebody New born?\tRome"
    (people / FILES["train"]).write_text(
        "\n".join([line, *questions] if place == "first" else [*questions, line]) + "\n"
    )
    trust = finetune_and_score(recipe, people, output, *HOLDS_OUT)
    assert "trained on" not in (trust["refusal"] or "")
    assert trust["withheld_refusal"] is None


@pytest.mark.row("T1")
def test_another_training_file_between_the_stages_is_noticed(recipe, people, tmp_path):
    output = tmp_path / "run"
    assert call("pretrain", recipe, people, output, *HOLDS_OUT) == 0
    questions = (people / FILES["train"]).read_text().splitlines()
    (people / FILES["train"]).write_text("\n".join(questions[::2]) + "\n")  # other people have the smallest hashes
    check_refused(finetune_and_score(recipe, people, output, *HOLDS_OUT), output)


@pytest.mark.row("T1")
def test_a_chain_of_models_remembers_the_first_one_s_people(recipe, people, tmp_path):
    first = tmp_path / "first"
    assert call("pretrain", recipe, people, first, *NOTHING) == 0
    other = tmp_path / "other"
    invent(60, seed=2).write(other)
    middle = f"pretrain.start_from={first / 'pretrain'}"
    assert call("pretrain", recipe, other, tmp_path / "middle", middle, *HOLDS_OUT) == 0
    last = tmp_path / "last"
    start = (f"finetune.start_from={tmp_path / 'middle' / 'pretrain'}", *HOLDS_OUT)
    check_refused(finetune_and_score(recipe, people, last, *start), last)


@pytest.mark.row("T1")
def test_a_model_without_a_record_is_no_basis_for_a_calibration(recipe, people, tmp_path):
    first = tmp_path / "first"
    assert call("pretrain", recipe, people, first, *HOLDS_OUT) == 0
    (first / "pretrain" / RECORD).unlink()
    trust = finetune_and_score(recipe, people, first, *HOLDS_OUT)
    check_refused(trust, first)
    assert trust["refusal"] == f"pretrain does not say what it was trained on ({RECORD}), perhaps on these people"
    again = tmp_path / "again"
    shutil.copytree(first / "finetune", tmp_path / "copied")  # which has a record, but of its own part alone
    start = f"finetune.start_from={tmp_path / 'copied'}"
    check_refused(finetune_and_score(recipe, people, again, start, *HOLDS_OUT), again)


@pytest.mark.row("T1")
def test_weights_that_were_trained_further_are_no_basis_for_a_calibration(recipe, people, tmp_path):
    first = tmp_path / "first"
    assert call("pretrain", recipe, people, first, *HOLDS_OUT) == 0
    model = MiniGPTForCausalLM.from_pretrained(first / "pretrain")
    shutil.copytree(first / "pretrain", tmp_path / "copied")
    model.save_pretrained(tmp_path / "copied", max_shard_size="20KB")  # as they were, in several files
    (tmp_path / "copied" / "model.safetensors").unlink()
    start = (f"finetune.start_from={tmp_path / 'copied'}", "model.attention_type=window", *HOLDS_OUT)
    trust = finetune_and_score(recipe, people, tmp_path / "again", *start)
    assert trust["withheld_refusal"] is None
    assert "trained on" not in (trust["refusal"] or "")
    with torch.no_grad():  # what more training does, and a model that is saved over another one
        model.lm_head.weight.mul_(0.5)
    model.save_pretrained(first / "pretrain")
    trust = finetune_and_score(recipe, people, first, *HOLDS_OUT)
    check_refused(trust, first)
    assert trust["refusal"].startswith(f"pretrain with these weights does not say what it was trained on ({RECORD})")


@pytest.mark.row("T1")
def test_a_record_that_does_not_say_which_weights_it_is_of_is_believed(run, tmp_path):
    folder = tmp_path / "older"
    shutil.copytree(run / "pretrain", folder)
    record = json.loads((folder / RECORD).read_text())
    assert len(record.pop("weights")) == 64
    (folder / RECORD).write_text(json.dumps(record))
    found = read_record(MiniGPTForCausalLM.from_pretrained(folder))
    assert (found.missing, len(found.documents)) == ((), len(record["documents"]))


@pytest.mark.row("T1")
@pytest.mark.parametrize("text", ["[]", "{", "{}", '{"documents": 1, "questions": [], "missing": []}',
                                  '{"documents": [], "questions": [], "missing": [], "weights": 1}'])  # fmt: skip
def test_a_broken_record_is_one_line(recipe, people, tmp_path, capsys, text):
    output = tmp_path / "run"
    assert call("pretrain", recipe, people, output) == 0
    (output / "pretrain" / RECORD).write_text(text)
    assert call("finetune", recipe, people, output) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert RECORD in last or "what the model to start from was trained on cannot be read" in last


@pytest.mark.row("T2")
def test_a_dev_file_equal_to_the_training_file_is_scored_with_a_warning(recipe, people, tmp_path, capsys):
    shutil.copy(people / FILES["train"], people / FILES["validation"])
    output = tmp_path / "run"
    assert call("pretrain", recipe, people, output) == 0
    assert call("finetune", recipe, people, output) == 0
    assert call("evaluate", recipe, people, output) == 0
    assert json.loads(RunFolder(output).results.read_text())["dev"]["total"] == 50
    assert "answers to 50 of the 50 dev questions were trained on" in capsys.readouterr().err


def test_a_record_has_every_way_in_which_a_document_names_somebody():
    documents = ["Ada Stone. She married Bo Lind, a friend of mary moss .", "王小明。王小明生于北京。"]
    named = set(map(hash_name, names_in(documents, ["mary moss", "Eva Quint"])))
    assert named >= set(map(hash_name, ["Ada Stone", "Bo Lind", "Mary Moss", "王小明"]))
    assert hash_name("Eva Quint") not in named


def test_a_hash_is_of_the_person_not_of_the_spelling():
    assert hash_name("Béla Nagy Jr.") == hash_name("be\u0301la\u00a0nagy Jr")
    assert hash_name("Béla Nagy") != hash_name("Bela Nagy")


def test_records_are_united_and_read_back():
    one = TrainedOn(frozenset("a"), frozenset("b"), ("x",)) | TrainedOn(frozenset("c"), frozenset("b"), ("x", "y"))
    assert one == TrainedOn(frozenset("ac"), frozenset("b"), ("x", "y"))
    assert TrainedOn.from_json(one.to_json()) == one
