"""The pipeline around a stage's model: its relations, candidates and names, and its calibration for each relation."""

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import broadcast

from artifacts.loading import load_tokenizer
from artifacts.safe_loading import as_run_error
from data_scripts.splits import TrainingData, made_up_people
from evaluation.calibration import CalibrationError, calibrate, split_withheld
from evaluation.knowledge import find_candidates, questions_of, training_names
from evaluation.trained_on import TrainedOn
from modeling_minigpt import ClosedBookPipeline, MiniGPTForCausalLM
from training.run_context import Run

logger = get_logger(__name__)

CALIBRATION_STRANGERS = 2000  # made-up people to calibrate on


def build_pipeline(
    run: Run, stage: str, model: MiniGPTForCausalLM, trained_on: TrainedOn
) -> tuple[ClosedBookPipeline, dict[str, str]]:
    """Return the pipeline around a stage's model, and by relation why it is not calibrated; every process calls this.

    Only the finetuned model is calibrated, on people whose answers neither it nor any model before it was trained on.
    """
    tokenizer = load_tokenizer(run.folder.tokenizer)  # not the run's, which remembers how it last cut and padded
    model.eval()  # it comes from training, where dropout was on
    with as_run_error(f"{run.data.name}: the training answers cannot be scored"):
        pipeline = ClosedBookPipeline(
            model=model,
            tokenizer=tokenizer,
            device=model.device,
            relations=run.data.relations,
            # Training answers alone: dev answers are not read before scoring.
            candidates=find_candidates(run.data.relations, run.data.train),
            names=training_names(run.data),
        )
    if stage != "finetune" or not run.data.calibration:
        return pipeline, {}
    copy_weights_from_main(model, run.accelerator)
    return pipeline, calibrate_relations(pipeline, run.data, trained_on)


def calibrate_relations(pipeline: ClosedBookPipeline, data: TrainingData, trained_on: TrainedOn) -> dict[str, str]:
    """Calibrate a pipeline for each relation; return why one was not, by its name. Every process must call this."""
    strangers: list[str] | None = None
    uncalibrated = {}
    for relation in data.relations:
        questions = questions_of(relation, data.calibration)
        # Of people whose answers it has learned it would be right more often, and so seem more reliable than it is.
        reason = trained_on.explain_calibration(questions)
        if reason is None:
            strangers = strangers or find_strangers(data, trained_on)
            logger.info(f"calibrating {relation.name}: {len(questions):,} people, {len(strangers):,} strangers")
            try:
                confidence = calibrate(pipeline, questions, strangers, relation=relation.name, shared=True)
                pipeline.set_confidence(relation.name, confidence)
            except CalibrationError as error:
                reason = str(error)
        if reason is not None:
            uncalibrated[relation.name] = reason
    return uncalibrated


def find_strangers(data: TrainingData, trained_on: TrainedOn) -> list[str]:
    """Return the names of made-up people, and of a quarter of the withheld ones if the model has not seen them."""
    withheld, _ = split_withheld(data.withheld)
    names = made_up_people(data, "calibration", CALIBRATION_STRANGERS)
    if trained_on.explain_withheld(data.withheld) is None:
        names += dict.fromkeys(question.name for question in withheld)
    return names


@torch.no_grad()
def copy_weights_from_main(model: MiniGPTForCausalLM, accelerator: Accelerator) -> None:
    """Give every process the main process's weights, which where a model was sharded it alone has."""
    for tensor in model.state_dict().values():
        tensor.copy_(broadcast(tensor))
