"""What the names in the pages stand for where they run: a small recipe, made-up data, a run, a Hub on loopback.

Shell variables, for `blocks.yaml`:

- `RECIPE`: a recipe that takes seconds; `RUN`: a run of it, with more people and steps, that knows some birthplaces;
- `FOLDER`: the four files of a data set; `TWO_RELATIONS`: the same with a second question; `CSV`: a table of people;
- `SETS`: a folder with `test.tsv` of PopQA and `P19.test.json` of EntityQuestions;
- `SMALL`: options of `train.py` that make any shipped recipe small;
- `BRIEF_RECALL`: options of `benchmarks.attention_recall` that make a training brief;
- `BRIEF_COMPARE`: the program `benchmarks.compare` with such a training, which none of its options shortens;
- `PORT`: a free port of this machine.

The Hub has `somebody/people`, rows of people; PopQA, Wikipedia and Wikidata under their own names, made up; a random
GPT-2 as `EleutherAI/pythia-160m`.
"""

import csv
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks.wikipedia_rows import write_wikipedia
from data_scripts.synthetic_bios import invent
from modeling_minigpt import build_bpe_tokenizer
from tests.loopback_hub import LoopbackHub
from tests.question_sets import popqa_row, write_entity_questions, write_popqa
from tests.running import free_port
from tests.two_relations import write_two_relations

PEOPLE = 60
ARTICLES = 500  # one in five is about a person
SMALL = (
    "data.calibration_questions=4", "data.withheld_people=2", "tokenizer.vocab_size=500", "model.hidden_size=32",
    "model.intermediate_size=64", "model.num_attention_heads=2", "pretrain.steps=3", "pretrain.batch_size=16",
    "finetune.epochs=1", "finetune.batch_size=16", "no_pretraining.epochs=1", "no_pretraining.batch_size=16",
    "evaluate.questions=20", "run.compile=false", "run.mixed_precision=no", "run.loader_workers=0",
)  # fmt: skip
# Enough to answer four of five questions, and to certify thresholds at a high risk.
LEARN = ("data.people=200", "data.calibration_questions=60", "data.withheld_people=10", "pretrain.steps=500",
         "pretrain.batch_size=64", "corruption.max_spans=1", "corruption.short_fraction=0.9",
         "corruption.answer_fraction=0.9", "corruption.likely_answer_fraction=0.8", "finetune.epochs=2",
         "evaluate.questions=null")  # fmt: skip
BRIEF_COMPARE = """
import sys
from dataclasses import replace
from benchmarks import compare
brief = compare.RecallTraining(256, 256, (1, 1, 1, 1, 1), 1)
compare.FULL = replace(compare.FULL, recall=brief)
compare.QUICK = replace(compare.QUICK, recall=brief)
sys.exit(compare.main())
"""
# Reads the options of `sbatch` that the pages use, and runs the job on this machine: a process for each node.
SBATCH = """#!/bin/bash
export SLURM_NNODES=2 SLURM_GPUS_ON_NODE=1 SLURM_JOB_ID=$$ SLURM_JOB_NODELIST=nodes SLURM_SUBMIT_DIR=$PWD
while [[ $1 == --* ]]; do
  case $1 in --nodes) SLURM_NNODES=$2;; --gpus-per-node) SLURM_GPUS_ON_NODE=$2;; --time) ;; *) exit 1;; esac
  shift 2
done
exec bash "$@"
"""
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
for _ in $(seq "$SLURM_NNODES"); do "$@" & nodes+=($!); done
status=0
for node in "${nodes[@]}"; do wait "$node" || status=$?; done
exit $status
"""
SCONTROL = """#!/bin/bash
[[ $1 == show ]] && echo 127.0.0.1
"""
COMMANDS = {"sbatch": SBATCH, "srun": SRUN, "scontrol": SCONTROL}


def options(overrides: Sequence[str]) -> str:
    """Return overrides as `train.py` takes them."""
    return " ".join(f"--set {override}" for override in overrides)


def write_people(csv_file: Path, parquet_file: Path) -> None:
    """Write a table of people with columns of other names than ours, and one with ours."""
    rows = []
    for question in invent(PEOPLE, seed=2).train:
        rows.append((question.name, f"{question.name} was born in {question.answer} .", question.answer))
    with csv_file.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("title", "abstract", "born_in"), *rows])
    columns = dict(zip(("name", "text", "birthplace"), zip(*rows, strict=True), strict=True))
    pq.write_table(pa.table(columns), parquet_file)


def write_question_sets(folder: Path) -> None:
    """Write questions about people of `RECIPE` as PopQA and EntityQuestions have them."""
    questions = [*invent(PEOPLE, seed=0).train[:8], *invent(PEOPLE, seed=0).validation[:8]]
    rows = [popqa_row(n, question.name, [question.answer], 10 * n) for n, question in enumerate(questions)]
    write_popqa(folder / "test.tsv", rows)
    write_entity_questions(folder / "P19.test.json", {question.name: [question.answer] for question in questions})


def write_gpt2(folder: Path) -> None:
    """Write a tiny GPT-2 of random weights with a tokenizer that can write every question."""
    tokenizer = build_bpe_tokenizer(["Q: Where was Ada Stone born?\nA: Rome"] * 2, 300, 512)
    sizes = {"vocab_size": len(tokenizer), "n_embd": 16, "n_layer": 1, "n_head": 1, "n_positions": 512}
    model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=None, eos_token_id=tokenizer.eos_token_id))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def fill_hub(hub: LoopbackHub, folder: Path) -> None:
    """Put on the Hub what the pages read from it, made up in a folder."""
    write_wikipedia(folder / "wikipedia", ARTICLES)
    write_gpt2(folder / "gpt2")
    hub.put("datasets/somebody/people", folder / "people")
    hub.put("datasets/akariasai/PopQA", folder / "popqa")
    hub.put("datasets/wikimedia/structured-wikipedia", folder / "wikipedia" / "articles")
    hub.put("datasets/RichardDelome/wikidata_truthy", folder / "wikipedia" / "wikidata")
    hub.put("EleutherAI/pythia-160m", folder / "gpt2")


def write_examples(folder: Path, hub: LoopbackHub) -> dict[str, str]:
    """Write all but the trained run; return the shell variables."""
    for name in ("people", "popqa", "sets", "bin"):
        (folder / name).mkdir()
    write_people(folder / "people.csv", folder / "people" / "train.parquet")
    write_question_sets(folder / "sets")
    (folder / "popqa" / "test.tsv").write_bytes((folder / "sets" / "test.tsv").read_bytes())
    invent(PEOPLE, seed=1).write(folder / "data")
    write_two_relations(folder / "two_relations")
    fill_hub(hub, folder)
    for name, text in COMMANDS.items():
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    return {
        "RECIPE": "tests/readme/recipe.yaml",
        "FOLDER": str(folder / "data"),
        "TWO_RELATIONS": str(folder / "two_relations"),
        "CSV": str(folder / "people.csv"),
        "SETS": str(folder / "sets"),
        "SMALL": options(SMALL),
        "BRIEF_RECALL": "--length 256 --tokens 256 --steps 1 1 1 1 1 --contexts 1 --threads 1",
        "BRIEF_COMPARE": BRIEF_COMPARE,
        "PORT": str(free_port()),
    }


def environment_of(clone: Path, folder: Path, address: str) -> dict[str, str]:
    """Return the environment of the pages after README: one thread, this Python, no Hub but ours."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return environment | {
        "PATH": f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(clone),
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
        "HF_ENDPOINT": address,
        "HF_HOME": str(folder / "hf"),
        "HF_TOKEN": "hf_test",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "localhost,127.0.0.1",
    }
