"""The accuracy on held-out questions during training."""

import torch
from accelerate.logging import get_logger

from artifacts.loading import load_tokenizer
from data_scripts.questions import Question
from evaluation.relation_scores import ask_model, choose_questions
from evaluation.trust import fraction
from modeling_minigpt import MiniGPTForCausalLM
from training.checkpoints import Progress
from training.run_context import Run

logger = get_logger(__name__)

MAX_PEOPLE = 200  # who are asked about at a checkpoint: the standard error is at most 3.5 points


def held_out_accuracy(run: Run, stage: str, model: MiniGPTForCausalLM, progress: Progress) -> dict[str, float]:
    """Log the accuracy of a checkpoint's model on held-out questions, and return it for the trackers.

    Args:
        model: unwrapped; it may be compiled, and is not changed.

    Returns:
        `held_out_accuracy`, in [0, 1]; nothing where no questions are held out (`data.validation_questions`).
    """
    questions = chosen_questions(run)
    if not questions:
        return {}
    with torch.random.fork_rng(
        devices=[]
    ):  # built on the CPU; random weights are drawn for the copy, and training must not depend on that
        copy = type(model)(model.config).to(model.device)
    copy.load_state_dict(model.state_dict())
    copy.generation_config = model.generation_config
    _, right = ask_model(copy, load_tokenizer(run.folder.tokenizer), questions, run.recipe.evaluate)
    accuracy = fraction(right)
    logger.info(f"{stage} {progress.step:,}: held-out accuracy {100 * accuracy:.1f} % ({len(questions):,} questions)")
    return {"held_out_accuracy": accuracy}


def chosen_questions(run: Run) -> list[Question]:
    """Return the questions that are asked at every checkpoint: those about the same people each time."""
    return [
        question
        for relation in run.data.relations
        for question in choose_questions(
            [one for one in run.data.held_out if one.relation == relation.name], MAX_PEOPLE
        )
    ]
