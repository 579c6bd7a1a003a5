"""The lm-evaluation-harness asks for birthplaces and measures perplexity by the task files that are shipped."""

import json
import subprocess
import sys

import pytest
import torch
from datasets import Dataset, load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from hub import publish_data
from tests.question_sets import popqa_row, write_entity_questions, write_popqa
from tests.running import ROOT, call


@pytest.fixture(scope="module")
def dataset(data, tmp_path_factory):
    """The published form of the run's data."""
    folder = tmp_path_factory.mktemp("published") / "data"
    options = ["somebody/birthplaces", "--path", str(data), "--license", "cc0-1.0", "--dry-run", str(folder)]
    assert publish_data.main(options) == 0
    return folder


def evaluate(model, dataset, task, output, *options, **metadata):
    """Run the harness as its users do; return the task's results."""
    command = [
        sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--device", "cpu", "--batch_size", "8",
        "--model_args", f"pretrained={model},trust_remote_code=True",
        "--include_path", str(ROOT / "evaluation" / "lm_eval_tasks"), "--tasks", task,
        "--metadata", json.dumps({"dataset": str(dataset), **metadata}), "--output_path", str(output), *options,
    ]  # fmt: skip
    finished = subprocess.run(command, cwd=output.parent, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr
    return json.loads(next(output.rglob("results_*.json")).read_text())["results"][task]


def test_birthplaces_are_scored_as_we_score_them(run, dataset, tmp_path):
    found = evaluate(run / "finetune", dataset, "birthplace", tmp_path / "out", "--log_samples")
    ours = json.loads((run / "results.json").read_text())["dev"]
    assert found["exact_match,stripped"] == ours["accuracy"]
    rows = [json.loads(line) for line in next((tmp_path / "out").rglob("samples_*.jsonl")).read_text().splitlines()]
    answers = {row["doc"]["id"]: row["filtered_resps"][0] for row in rows}
    predictions = (run / "predictions.dev.txt").read_text().splitlines()
    assert len(answers) == ours["total"]
    # The harness lets every answer run to its end, we cut at evaluate.max_new_tokens.
    assert all(answers[number].startswith(text) for number, text in enumerate(predictions))


def test_a_relation_is_scored_by_its_name_and_any_accepted_answer_is_right(run, dataset, tmp_path):
    found = evaluate(run / "finetune", dataset, "closed_book_qa", tmp_path / "out", relation="birthplace")
    assert found["exact_match,stripped"] == json.loads((run / "results.json").read_text())["dev"]["accuracy"]
    # Data of one question with two answers, the second of which is the model's own.
    answer = (run / "predictions.dev.txt").read_text().splitlines()[0]
    question = load_dataset(str(dataset), "birthplace", split="validation")["question"][0]
    row = Dataset.from_list([{"question": question, "answers": ["nowhere", answer]}])
    row.to_parquet(tmp_path / "facts" / "validation.parquet")
    found = evaluate(run / "finetune", tmp_path / "facts", "closed_book_qa", tmp_path / "second")
    assert found["exact_match,stripped"] == 1.0


def test_perplexity_is_that_of_the_model(run, dataset, tmp_path):
    folder = run / "finetune"
    found = evaluate(folder, dataset, "biographies_perplexity", tmp_path / "out", "--limit", "5")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    loss, size = 0.0, 0
    for text in load_dataset(str(dataset), "biographies", split="train")["text"][:5]:
        ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer(text).input_ids]])[:, :64]
        assert ids.shape[1] < 64  # else the harness would go on in a second window
        loss += model(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        size += len(text.encode())
    assert found["byte_perplexity,none"] == pytest.approx(torch.tensor(loss / size).exp().item(), rel=1e-4)


def test_public_question_sets_are_scored_as_we_score_them(run, dataset, recipe, data, tmp_path):
    names = [row["question"] for row in load_dataset(str(dataset), "birthplace", split="validation")]
    names = [text.removeprefix("Where was ").removesuffix(" born?") for text in names[:4]]
    answers = (run / "predictions.dev.txt").read_text().splitlines()
    # Two of four are right, each by the second of its answers.
    facts = [[f"Nowhere {number}", answer if number % 2 else "Nobody"] for number, answer in enumerate(answers[:4])]
    popqa = write_popqa(
        tmp_path / "sets" / "test.tsv",
        [popqa_row(number, name, own, number) for number, (name, own) in enumerate(zip(names, facts, strict=True))],
    )
    entities = write_entity_questions(tmp_path / "sets" / "P19.test.json", dict(zip(names, facts, strict=True)))
    sets = (f"evaluate.sets.popqa={popqa}", f"evaluate.sets.entities={entities}")
    assert call("evaluate", recipe, data, tmp_path / "scored", f"evaluate.model={run / 'finetune'}", *sets) == 0
    ours = json.loads((tmp_path / "scored" / "results.json").read_text())["sets"]
    for path, task, name in (
        (popqa, "popqa_birthplace", "popqa"),
        (entities, "entity_questions_birthplace", "entities"),
    ):
        found = evaluate(run / "finetune", path, task, tmp_path / task)
        assert found["exact_match,stripped"] == ours[name]["relations"]["birthplace"]["accuracy"] == 0.5
