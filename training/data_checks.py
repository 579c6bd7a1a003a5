"""What is checked of a run's data once they are read, before hours of training or of scoring."""

from collections.abc import Sequence

from accelerate.logging import get_logger

from evaluation.question_sets import read_sets
from evaluation.scored_data import check_trained_on
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
