"""A run's batches: those of earlier versions, from tables that are built once, whole or not at all."""

import dataclasses
import errno
import hashlib
import logging
import multiprocessing
import time

import numpy as np
import pytest

from configuration import file_system
from configuration.recipe import load_recipe
from configuration.recipe_names import find_recipe
from data_scripts.record_file import RecordFile
from training import run_context
from training.run_context import build_run, training_batches
from training.token_files import PREPARED, build_table, find_tokens_folder

# Batches 0, 7, 8 and the last one of the quickstart's stages, as they were when all texts were read into memory, and
# the settings in which that quickstart differed from today's.
SETTINGS = ("corruption.likely_answer_fraction=0", "corruption.max_spans=2", "pretrain.title_loss=false")
DIGESTS = {
    "pretrain": "3dffbc714408e81d09c075022c1e30b0c73bd4e18548d65d202ccd4ca4abc3bd",
    "finetune": "f8e6d8875b408ae50fec6c961ee33c877f686892e0ba389b37571a4179f8976a",
    "no_pretraining": "85e92754a9438b79f46d5c5b09104d15a839e72857ea2bf0bb3ff4295b18a801",
}


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """Return a run of the quickstart as it was, before any training."""
    output = tmp_path_factory.mktemp("quickstart") / "run"
    return build_run(load_recipe(find_recipe("quickstart"), [f"output={output}", *SETTINGS]))


@pytest.mark.parametrize("stage", ["pretrain", "finetune", "no_pretraining"])
def test_the_quickstart_has_the_batches_that_it_always_had(quickstart, stage):
    batches = training_batches(quickstart, stage)
    digest = hashlib.sha256()
    for step in sorted({0, min(7, len(batches) - 1), min(8, len(batches) - 1), len(batches) - 1}):
        for name in ("input_ids", "labels"):
            digest.update(batches[step][name].numpy().astype("<i8").tobytes())
    assert digest.hexdigest() == DIGESTS[stage]


@pytest.fixture
def small(recipe, data, tmp_path):
    """Return a run of the tiny recipe before any training."""
    return build_run(load_recipe(recipe, [f"data.path={data}", f"output={tmp_path / 'run'}"]))


def tables(run):
    """Return the modification time of every table of a run."""
    return {path: path.stat().st_mtime_ns for path in run.folder.path.rglob("tokens-*/*")}


def test_tables_are_built_once_for_all_stages(small):
    training_batches(small, "finetune")
    assert [path.name for path in tables(small)] == ["questions.arrow"]  # all that it reads
    training_batches(small, "pretrain")
    built = tables(small)
    assert sorted(path.name for path in built) == ["documents.arrow", "questions.arrow"]
    training_batches(small, "no_pretraining")
    training_batches(small, "pretrain")
    assert tables(small) == built


def test_another_corruption_has_tables_of_its_own(small):
    training_batches(small, "pretrain")
    corruption = dataclasses.replace(small.recipe.corruption, max_length=50)
    other = dataclasses.replace(small, recipe=dataclasses.replace(small.recipe, corruption=corruption))
    training_batches(other, "pretrain")
    assert len({path.parent for path in tables(small)}) == 2


def test_a_build_that_is_killed_leaves_no_table_and_is_done_again(small, monkeypatch):
    class Killed(BaseException):
        pass

    def rows_and_a_kill(*arguments):
        yield next(original(*arguments))
        raise Killed

    original = run_context.document_rows
    with monkeypatch.context() as patch:
        patch.setattr(run_context, "document_rows", rows_and_a_kill)
        with pytest.raises(Killed):
            training_batches(small, "pretrain")
    assert [path.name for path in tables(small)] == ["questions.arrow"]
    assert len(training_batches(small, "pretrain").document_table) == len(small.data.documents)


def test_the_tables_of_a_prepared_corpus_lie_in_it_and_those_of_a_folder_do_not(tmp_path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    assert find_tokens_folder(corpus, tmp_path / "own", {"a": 1}).parent == tmp_path / "own"
    (corpus / PREPARED).touch()
    assert find_tokens_folder(corpus, tmp_path / "own", {"a": 1}).parent == corpus


def build_slowly(path, started, failures, value: int):
    """Build a table whose only row has a value, in some time; then read it."""
    logging.getLogger("configuration").addHandler(logging.FileHandler(path.parent.with_name(f"{value}.log")))
    logging.getLogger("configuration").setLevel(logging.INFO)

    def rows(dtype):
        started.put(value)
        time.sleep(1)
        yield np.array([value], dtype), np.array([1])

    try:
        build_table(path, rows, 100)
        failures.put(None if len(RecordFile.open(path)) == 1 else "not the table")
    except Exception as error:
        failures.put(f"{type(error).__name__}: {error}")


def build_twice(path) -> tuple[list[int], list]:
    """Build a table in two processes at once; return which of them built it, and why each failed or None."""
    context = multiprocessing.get_context("fork")
    started = context.Queue()
    failures = context.Queue()
    processes = [context.Process(target=build_slowly, args=(path, started, failures, value)) for value in (1, 2)]
    for process in processes:
        process.start()
        time.sleep(0.4)  # the second begins while the first is building
    reasons = [failures.get(timeout=30) for _ in processes]
    for process in processes:
        process.join(30)
    built = [started.get(timeout=5)]
    while not started.empty():
        built.append(started.get())
    return sorted(built), reasons


def test_of_two_runs_that_share_a_corpus_one_builds_a_table_and_the_other_says_that_it_waits(tmp_path):
    path = tmp_path / "tokens-1" / "questions.arrow"
    built, failures = build_twice(path)
    assert (built, failures) == ([1], [None, None])
    assert "waiting for another run that is using" in (tmp_path / "2.log").read_text()
    assert RecordFile.open(path).read(np.array([0]))[0].tolist() == [1]


def test_two_runs_on_a_file_system_without_locks_do_not_break_each_other_s_tables(tmp_path, monkeypatch):
    def no_locks(*arguments, **settings):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(file_system.FileLock, "acquire", no_locks)
    path = tmp_path / "tokens-1" / "questions.arrow"
    built, failures = build_twice(path)
    assert (built, failures) == ([1, 2], [None, None])
    assert [one.name for one in path.parent.iterdir()] == ["questions.arrow"]
    assert "has no locks" in (tmp_path / "1.log").read_text()
