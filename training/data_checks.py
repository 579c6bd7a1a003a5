"""What is checked of a run's data once they are read, before hours of training or of scoring."""

from collections import Counter
from collections.abc import Sequence

import pyarrow.parquet as pq
from accelerate.logging import get_logger

from data_scripts.bios_folder import DataError
from data_scripts.corpus import Corpus
from data_scripts.prepare import DIVIDED
from evaluation.question_sets import read_sets
from evaluation.scored_data import check_trained_on
from modeling_minigpt.answers_minigpt import find_unknown_character
from training.run_context import Run, describe_inputs

logger = get_logger(__name__)


def check_data(run: Run, remaining: Sequence[str], scores: bool, resume: bool) -> None:
    """Check what a command reads; every process must call this.

    Args:
        run: whose data are read.
        remaining: the stages that are still to be trained; none where it only scores.
        scores: whether the command scores.
        resume: whether it continues what an earlier one left.

    Raises:
        UserError: the data cannot be scored, or are not those of the run in this folder.
    """
    if resume:
        run.folder.check_same_inputs(describe_inputs(run, remaining))
    if scores and not remaining:
        check_trained_on(run.folder, run.recipe, run.data.inputs)
    if scores:
        read_sets(run.recipe, run.data)  # what cannot be read is found before hours of training, not after
        if run.data.held_out and run.recipe.evaluate.sets:
            logger.warning(
                "evaluate.sets is skipped: data.validation_questions is set, so this run is scored on held-out "
                "training questions alone"
            )
        check_scored_questions(run)
    if remaining:
        check_answer_lengths(run)


def check_scored_questions(run: Run) -> None:
    """Raise DataError where nobody can be scored, and warn of relations of which nobody can.

    The dev file of a folder is opened when all is trained, so its questions are not known here.
    """
    data = run.data
    if data.held_out:
        counts = Counter(question.relation for question in data.held_out)
    elif run.recipe.data.source in DIVIDED:
        return
    else:
        every = Corpus(data.folder).counts
        counts = Counter({relation.name: every[relation.name].get("dev", 0) for relation in data.relations})
    scored = [relation.name for relation in data.relations if counts[relation.name]]
    if not scored:
        raise DataError(
            f"{data.name}: nobody is left to be scored: found no dev question, wanted rows that are not for training; "
            "lower data.train_fraction, change the column of splits or set data.validation_questions"
        )
    for relation in data.relations:
        if not counts[relation.name]:
            logger.warning(
                f"{relation.name} is not scored: there is no dev question of it; the figures at the top of "
                f"results.json are those of {scored[0]}"
            )


def check_answer_lengths(run: Run) -> None:
    """Refuse answers of which none fits into `evaluate.max_new_tokens`, and warn of some: they can never be right."""
    counts: dict[str, int] = {}
    wanted = {relation.name for relation in run.data.relations}
    for row in pq.read_table(run.data.folder / "candidates.parquet").to_pylist():
        # One with a character that the tokenizer does not know is refused with its question, when the rows are made.
        if row["relation"] in wanted and find_unknown_character(run.tokenizer, row["answer"]) is None:
            counts[row["answer"]] = counts.get(row["answer"], 0) + row["count"]
    if not counts:
        return
    lengths = list(map(len, run.tokenizer(list(counts))["input_ids"]))
    limit = run.recipe.evaluate.max_new_tokens
    long = sum(count for count, length in zip(counts.values(), lengths, strict=True) if length > limit)
    if not long:
        return
    text = (
        f"{long:,} of {sum(counts.values()):,} training answers are longer than evaluate.max_new_tokens ({limit}) and "
        f"can never be right: the longest has {max(lengths)} tokens; set evaluate.max_new_tokens={max(lengths)}"
    )
    if min(lengths) > limit:
        raise DataError(f"{run.data.name}: {text}")
    logger.warning(text)
