"""The recipe wikipedia, of other sizes alone, from made-up articles on a Hub to a model that answers, and its card.

MINIGPT_WIKIPEDIA_ROWS=20000 python -m pytest -s tests/test_train_wikipedia.py    # else 2,000 articles
"""

import json
import os

import pytest
from huggingface_hub import ModelCard
from transformers import pipeline

import train
from benchmarks.wikipedia_rows import ARTICLES_A_PERSON, write_wikipedia
from data_scripts.parquet_files import read_batches
from tests.publishing import dry_run

ROWS = int(os.environ.get("MINIGPT_WIKIPEDIA_ROWS", "2000"))
EVERY = max(ARTICLES_A_PERSON, ROWS // 1000)  # one is about a person: no more people than a minute's training recalls
PEOPLE = -(-ROWS // EVERY)
ARTICLES = "wikimedia/structured-wikipedia"
STATEMENTS = "RichardDelome/wikidata_truthy"
SIZES = (
    f"data.calibration_questions={PEOPLE // 10}",
    f"data.withheld_people={PEOPLE // 20}",
    "tokenizer.vocab_size=1000",
    "model.hidden_size=64",
    "model.num_attention_heads=4",
    f"pretrain.steps={2 * PEOPLE // 3}",
    "pretrain.batch_size=100",
    "finetune.batch_size=32",
    "no_pretraining.batch_size=32",
    f"evaluate.questions={min(200, PEOPLE)}",
    "run.compile=false",
)


@pytest.fixture
def wikipedia(datasets_hub, tmp_path):
    """A Hub with made-up data sets of the names that the recipe has."""
    write_wikipedia(tmp_path / "wikipedia", ROWS, EVERY)
    datasets_hub.put(f"datasets/{ARTICLES}", tmp_path / "wikipedia" / "articles")
    datasets_hub.put(f"datasets/{STATEMENTS}", tmp_path / "wikipedia" / "wikidata")
    return datasets_hub


@pytest.mark.slow
def test_the_recipe_from_the_hub_to_a_model_that_answers_and_its_card(wikipedia, tmp_path, capsys):
    output = tmp_path / "run"
    words = [word for one in (f"output={output}", *SIZES) for word in ("--set", one)]
    assert train.main(["all", "--config", "wikipedia", *words]) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("downloading ")]
    assert line.startswith(f"downloading {ARTICLES}: 4 files, ")
    assert f"{STATEMENTS}: 2 files, " in line
    commits = [wikipedia.repositories[f"datasets/{name}"].commit_id("main", -1) for name in (ARTICLES, STATEMENTS)]

    record = json.loads((output / "data/corpus/prepared.json").read_text())
    source = record["source"]
    assert [source["revision"], source["statements_revision"]] == commits
    assert source["license"] == "cc-by-sa-4.0"
    assert record["people"] + record["dropped"]["people_with_shared_names"] == PEOPLE

    results = json.loads((output / "results.json").read_text())
    accuracy = results["dev"]["accuracy"]
    majority = results["baselines"]["majority"]
    print(f"{PEOPLE} people, {results['dev']['total']} scored: {accuracy:.1%} right, {majority:.1%} by chance")
    assert accuracy > 2 * majority

    candidates = {row["answer"] for batch in read_batches([output / "data/corpus/candidates.parquet"])
                  for row in batch.to_pylist()}  # fmt: skip
    ask = pipeline("closed-book-qa", model=str(output / "finetune"), trust_remote_code=True)
    result = ask(results["samples"][0]["question"], threshold=0)
    assert result["relation"] == "birthplace"
    assert result["answer"] in candidates

    card = ModelCard.load(dry_run(output) / "README.md")
    assert card.data.license == "cc-by-sa-4.0"
    assert card.data.datasets == [ARTICLES]
    assert f"revision {commits[0]}, licence cc-by-sa-4.0" in card.text
    text = card.text.replace("\\", "")  # of Markdown
    assert f"attribution Wikipedia contributors ({ARTICLES}); Wikidata ({STATEMENTS}, CC0)." in text
