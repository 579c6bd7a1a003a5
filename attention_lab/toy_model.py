"""A MiniGPT that learns a few birthplaces by heart in seconds, to look into where no checkpoint is at hand."""

from typing import NamedTuple

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configuration.schema import CorruptionOptions, StageArguments
from data_scripts.batches import TrainingBatches
from data_scripts.questions import Question
from data_scripts.synthetic_bios import invent
from modeling_minigpt import MiniGPTConfig, MiniGPTForCausalLM, build_bpe_tokenizer
from training.stepper import Stepper


class Toy(NamedTuple):
    """The model with "eager" attention, its tokenizer, and the questions and biographies that it was trained on."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    questions: list[Question]
    documents: list[str]


def train_toy_model(people: int = 24, steps: int = 110, seed: int = 0, **fields) -> Toy:
    """Train two layers of width 64 on invented people's biographies and questions.

    Args:
        people: how many to invent; half of them have a question.
        steps: steps of 32 rows, half of them questions, some 25 a second on one core.
        seed: of people, weights and batches; the global generator is left as it was.
        fields: other fields of `MiniGPTConfig`, such as `attention_type`.
    """
    invented = invent(people, seed)
    tokenizer = build_bpe_tokenizer(invented.documents, 400, 64)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}
    special = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = MiniGPTConfig(**{"vocab_size": len(tokenizer), "zero_init_residual": True, **sizes, **special, **fields})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MiniGPTForCausalLM._from_config(config, attn_implementation="eager")
    stage = StageArguments(steps=steps, batch_size=32, question_fraction=0.5)
    corruption = CorruptionOptions(short_fraction=1.0, answer_fraction=1.0)
    batches = TrainingBatches.from_texts(invented.documents, invented.train, tokenizer, stage, corruption, seed, 64)
    stepper = Stepper.prepare(model, stage, Accelerator(cpu=True), len(batches))
    for step in range(len(batches)):
        stepper.step(step, batches[step])
    return Toy(model.eval(), tokenizer, invented.train, invented.documents)
