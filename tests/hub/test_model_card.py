"""What a visitor of the Hub reads on a model's card: examples, licence, data, and who is real."""

import pytest
from huggingface_hub import ModelCard, ModelCardData

from hub import publish_model
from hub.push import PushError
from tests.publishing import NAME, change_json, dry_run, error_line

HUB = {
    "source": "hub", "path": "somebody/people", "config": None, "split": "train", "revision": "0123abc",
    "license": "cc-by-sa-4.0", "attribution": "Wikipedia",
}  # fmt: skip
ANSWERED = {
    "question": "Where was Ada Stone born?", "answer": "Rome", "score": 0.97, "abstained": False, "reason": None,
    "place": "Rome",
    "calibrated": True, "failed": None,
}  # fmt: skip


@pytest.fixture
def publish(own):
    """Return a function that publishes a run of a source, with options; it returns the card."""

    def card_of(source: dict, *options: str) -> ModelCard:
        change_json(own / "results.json", lambda values: values.update(source=source))
        target = own.parent / "out"
        assert publish_model.main([str(own), NAME, "--dry-run", str(target), *options]) == 0
        return ModelCard.load(target / "README.md")

    return card_of


@pytest.mark.parametrize(
    ("recorded", "options", "wanted", "name"),
    [
        pytest.param("cc-by-sa-3.0", (), "cc-by-sa-3.0", None, id="the-data's"),
        pytest.param("cc-by-sa-3.0, gfdl", (), ["cc-by-sa-3.0", "gfdl"], None, id="two"),
        pytest.param("Our Own Terms, v2", (), "other", "our-own-terms-v2", id="none-of-the-hub's"),
        pytest.param(None, ("--license", "cc0-1.0"), "cc0-1.0", None, id="by-option"),
        pytest.param("cc-by-sa-3.0", ("--license", "mit"), "mit", None, id="by-option-though-recorded"),
    ],
)
def test_the_licence_is_the_datas_or_the_one_asked_for(publish, capsys, recorded, options, wanted, name):
    card = publish({"source": "csv", "license": recorded}, *options)
    assert card.data.license == wanted
    assert card.data.license_name == name
    assert f"the weights are under {options[-1] if options else recorded}." in card.text
    assert "licence" not in capsys.readouterr().err


def test_an_unknown_licence_is_none_in_the_card_and_one_line_of_warning(publish, capsys):
    card = publish({"source": "folder"})
    assert card.data.license is None
    assert "no licence of the weights is given" in card.text
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if "licence" in line]
    assert warning.startswith(f"warning: {NAME}: the licence of the data is not known")
    assert warning.endswith("name it by --license")


def test_a_misspelt_licence_is_refused_before_anything_is_written_or_asked(own, hub, tmp_path, capsys):
    assert publish_model.main([str(own), NAME, "--license", "CC-BY-SA-4", "--dry-run", str(tmp_path / "out")]) == 2
    assert "did you mean cc-by-sa-4.0?" in error_line(capsys)
    assert not (tmp_path / "out").exists()
    with pytest.raises(PushError, match="did you mean mit"):  # of a push at the end of training, before it
        publish_model.HubTarget(NAME, license="MIT ").open()
    assert hub.requests == []


def test_a_data_set_of_the_hub_is_named_by_its_id(own, publish):
    change_json(own / "recipe.json", lambda values: values["data"].update(source="hub", path=HUB["path"]))
    card = publish(HUB)
    assert card.data.datasets == ["somebody/people"]
    assert "[somebody/people](https://huggingface.co/datasets/somebody/people)" in card.text
    assert "revision 0123abc, licence cc-by-sa-4.0, attribution Wikipedia." in card.text


def test_a_folder_that_looks_like_an_id_is_no_data_set_of_the_hub(own, publish):
    change_json(own / "recipe.json", lambda values: values["data"].update(source="csv", path="alice/people"))
    card = publish({"source": "csv", "path": "alice/people"})
    assert card.data.datasets is None
    assert "alice" not in str(card)


@pytest.mark.parametrize(("source", "invented"), [("synthetic", True), ("bios", True), ("lahman", False)])
def test_people_are_called_invented_where_they_are(publish, source, invented):
    text = publish({"source": source, "license": "apache-2.0"}).text
    assert ("about invented people from its weights alone" in text) is invented
    assert ("about invented people who were withheld from training" in text) is invented
    assert ("about real people who were withheld from training" in text) is not invented
    assert ("nothing that the model says is true of anybody real" in text) is invented


def test_the_example_is_one_that_the_model_answers(own):
    change_json(own / "results.json", lambda values: values.update(example=ANSWERED))
    card = ModelCard.load(dry_run(own) / "README.md")
    assert 'print(ask("Where was Ada Stone born?")["answer"])  # Rome\n' in card.text
    assert 'tokenizer("Where was Ada Stone born?" + tokenizer.mask_token' in card.text
    known, stranger = card.data.widget
    assert (known["text"], known["output"]) == (ANSWERED["question"], {"answer": "Rome", "score": 0.97})
    assert stranger["output"]["answer"] == "I don't know"


def test_results_without_an_example_have_a_sample_of_somebody_in_the_data(own):
    def forget(values):
        values.pop("example")
        wrong = {**ANSWERED, "question": "Where was Béla Nagy born?", "place": "Győr"}
        values["samples"] = [wrong, ANSWERED, values["samples"][-1]]

    change_json(own / "results.json", forget)
    assert 'ask("Where was Ada Stone born?")["answer"])  # Rome\n' in (dry_run(own) / "README.md").read_text()


def test_the_metadata_are_what_huggingface_hub_reads_again(run, tmp_path):
    assert publish_model.main([str(run), NAME, "--dry-run", str(tmp_path / "out")]) == 0
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert ModelCardData(**card.data.to_dict()).to_dict() == card.data.to_dict()
    assert (card.data.library_name, card.data.pipeline_tag) == ("transformers", "question-answering")
    assert set(card.data.metrics) <= {result.metric_type for result in card.data.eval_results}
    assert {result.dataset_split for result in card.data.eval_results} == {"dev"}
    for example in card.data.widget:
        assert set(example) == {"example_title", "text", "context", "output"}
        assert isinstance(example["output"]["answer"], str)
        assert 0.0 <= example["output"]["score"] <= 1.0


def test_without_the_hubs_task_the_card_names_one_that_the_library_has(own):
    change_json(own / "finetune" / "config.json", lambda values: values["custom_pipelines"].pop("question-answering"))
    assert ModelCard.load(dry_run(own) / "README.md").data.pipeline_tag == "text-generation"
