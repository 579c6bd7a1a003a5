"""From a data set on the Hub to scored answers, by its id alone, though the download fails in the middle once."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import ModelCard

from data_scripts.parquet_files import shards
from tests.publishing import dry_run
from tests.running import RECIPE, call


@pytest.fixture
def people(datasets_hub, tmp_path):
    """A Hub with a data set of eighty people in four shards, and no card."""
    folder = tmp_path / "people"
    folder.mkdir()
    for shard in range(4):
        numbers = range(20 * shard, 20 * shard + 20)
        columns = {
            "name": [f"Ada{n} Stone" for n in numbers],
            "text": [[f"Ada{n} was born in Rome{n % 7} .", f"She left Rome{n % 7} ."] for n in numbers],
            "birthplace": [f"Rome{n % 7}" for n in numbers],
        }
        pq.write_table(pa.table(columns), folder / f"train-0000{shard}-of-00004.parquet")
    datasets_hub.put("datasets/someone/people", folder)
    return datasets_hub


def test_a_data_set_s_id_is_enough_and_a_failed_preparation_continues(people, tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    output = tmp_path / "run"
    people.refusal = ("train-00002", 500)
    assert call("prepare", recipe, "someone/people", output) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "someone/people" in line
    assert "train-00002" in line
    assert [path.name for path in shards(output / "data/corpus/parts")] == ["00000.parquet", "00001.parquet"]
    people.refusal = None
    before = len(people.requests)
    assert call("all", recipe, "someone/people", output) == 0
    fetched = [request for request in people.requests[before:] if request.startswith("GET") and "resolve" in request]
    assert not [request for request in fetched if "train-00000" in request or "train-00001" in request]
    results = json.loads((output / "results.json").read_text())
    assert results["dataset"] == "someone/people"
    assert 0 < results["relations"]["birthplace"]["total"] < 80
    assert ModelCard.load(dry_run(output) / "README.md").data.datasets == ["someone/people"]
    record = json.loads((output / "data/corpus/prepared.json").read_text())
    assert record["source"]["revision"] == people.repositories["datasets/someone/people"].commit_id("main", -1)
