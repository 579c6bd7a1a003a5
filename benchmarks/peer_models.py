"""The peers of `peers`: one shape, one text, and how each of them trains.

All read the same characters, the published recipe's random spans of the same documents. Each subject trains with its
own data path: MiniGPT's puts rows of similar length into batches, GPT-2's pads to a batch's longest row, the plain
loop's always to the block.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader
from transformers import DataCollatorForLanguageModeling, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
from transformers import get_linear_schedule_with_warmup as linear_schedule

from benchmarks.plain_mingpt import CorruptedLines, PlainGPT, PlainLoop, Shape, number_characters
from configuration.recipe import build_config, load_recipe
from configuration.schema import CorruptionOptions, Recipe, StageArguments
from data_scripts.batches import TrainingBatches, count_targets
from data_scripts.bios_folder import FILES, DataError, read_lines, unquote
from modeling_minigpt import MiniGPTForCausalLM
from training.machine_speed import has_fast_bfloat16
from training.precision import compile_parts
from training.stepper import Stepper

RECIPES = Path(__file__).parent.parent / "configuration" / "recipes"
OURS = "MiniGPT"
OURS_SEED = "MiniGPT, seed recipe"
GPT2 = "transformers' GPT-2"
PLAIN = "plain minGPT loop"
OURS_BFLOAT16 = "MiniGPT, bfloat16"
# Today's model and Muon; the same in the format that the recipe takes where it is faster; the published model, AdamW.
OUR_RECIPES = {OURS: "cs224n-speedrun", OURS_BFLOAT16: "cs224n-speedrun", OURS_SEED: "cs224n-seed"}
CHUNK = 8  # batches that MiniGPT draws and sorts together, and between looks at a data path's clock


@dataclass(frozen=True)
class Texts:
    """Documents and questions, without any answer."""

    documents: list[str] = field(repr=False)
    questions: list[str] = field(repr=False)

    @classmethod
    def read(cls, folder: Path) -> "Texts":
        """Read the documents and the first column of the dev file of a folder in the cs224n layout."""
        return cls(read_lines(folder / FILES["documents"]), read_questions_only(folder / FILES["validation"]))

    @property
    def lines(self) -> list[str]:
        """All texts, whose characters are the vocabulary."""
        return [*self.documents, *self.questions]

    def check(self, shape: Shape, new_tokens: int) -> None:
        """Raise DataError where the texts need a larger vocabulary or block."""
        size = len(number_characters(self.lines))
        if size > shape.vocabulary:
            raise DataError(f"found {size} characters, pad and mask included, wanted {shape.vocabulary} at most")
        for question in self.questions:
            if len(question) + 1 + new_tokens > shape.block:
                raise DataError(f"{question!r}: does not fit a block of {shape.block} with {new_tokens} more")


def read_questions_only(path: Path) -> list[str]:
    """Return the text before the tab of each line; the text after it is dropped unread."""
    return [unquote(line.partition("\t")[0].strip()) for line in read_lines(path)]


@dataclass(frozen=True)
class Settings:
    """Sizes of the measurements.

    Attributes:
        shape: all models'.
        batch_size: rows of a training step.
        warmup, steps: training steps before the clock starts, and timed ones.
        plain_questions: how many questions the one-at-a-time loop answers, evenly spread; its time is scaled up.
        new_tokens: tokens of an answer.
        data_seconds: how long a data path runs, in seconds of a core.
        device, threads: where models run; a data path always has one thread of a CPU.
    """

    shape: Shape = field(default_factory=Shape)
    batch_size: int = 128
    warmup: int = 8
    steps: int = 8
    plain_questions: int = 50
    new_tokens: int = 32
    data_seconds: float = 3.0
    device: str = "cpu"
    threads: int = 2


@dataclass
class Training:
    """A subject ready to train: `step` learns from one of `batches`, `count` returns its targets and positions."""

    model: torch.nn.Module
    batches: Iterator
    step: Callable[[object], object]
    count: Callable[[object], tuple[int, int]]


def endless(loader: Iterable) -> Iterator:
    """Go through a loader again and again."""
    while True:
        yield from loader


def corruption(shape: Shape) -> CorruptionOptions:
    """Return the published corruption for a block."""
    return CorruptionOptions(policy="random-span", max_length=7 * shape.block // 8)


def our_recipe(subject: str, shape: Shape) -> Recipe:
    """Return the recipe of one of `OUR_RECIPES` with the model's sizes set to a shape."""
    fields = {
        "data.source": "synthetic",
        "corruption.max_length": 7 * shape.block // 8,
        "model.num_hidden_layers": shape.layers,
        "model.num_attention_heads": shape.heads,
        "model.hidden_size": shape.width,
        "model.intermediate_size": 4 * shape.width,
        "model.max_position_embeddings": shape.block,
    }
    path = RECIPES / f"{OUR_RECIPES[subject]}.yaml"
    return load_recipe(path, [f"{key}={value}" for key, value in fields.items()])


def build_model(subject: str, shape: Shape, tokenizer: PreTrainedTokenizerFast) -> torch.nn.Module:
    """Return a subject's model with random weights and no end token, at which it would stop."""
    torch.manual_seed(0)
    if subject == PLAIN:
        return PlainGPT(shape)
    if subject == GPT2:
        config = GPT2Config(
            vocab_size=shape.vocabulary,
            n_positions=shape.block,
            n_embd=shape.width,
            n_layer=shape.layers,
            n_head=shape.heads,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=tokenizer.pad_token_id,
        )
        return GPT2LMHeadModel(config)
    config = build_config(
        our_recipe(subject, shape), vocab_size=shape.vocabulary, pad_token_id=tokenizer.pad_token_id, eos_token_id=None
    )
    return MiniGPTForCausalLM(config)


def our_batches(
    stage: StageArguments, texts: Texts, tokenizer: PreTrainedTokenizerFast, shape: Shape
) -> TrainingBatches:
    """Return the package's batches of the published corruption, with no questions and every token a target."""
    stage = replace(stage, question_fraction=0.0, title_loss=True, title_fraction=1.0)
    return TrainingBatches.from_texts(
        texts.documents, [], tokenizer, stage, corruption(shape), seed=0, max_length=shape.block
    )


def train_ours(subject: str, texts: Texts, tokenizer: PreTrainedTokenizerFast, settings: Settings) -> Training:
    """Prepare MiniGPT to train as `training.loop` does; the clock starts where a pool of batches is drawn."""
    recipe = our_recipe(subject, settings.shape)
    device = torch.device(settings.device)
    stage = recipe.pretrain
    last = settings.warmup + settings.steps + CHUNK
    stage = replace(stage, epochs=None, steps=last, batch_size=settings.batch_size, bucket_batches=CHUNK)
    bfloat16 = subject == OURS_BFLOAT16
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="bf16" if bfloat16 else "no")
    model = build_model(subject, settings.shape, tokenizer)
    if recipe.run.compile:
        compile_parts(model, device)
    muon_dtype = torch.bfloat16 if bfloat16 or has_fast_bfloat16(device) else torch.float32
    stepper = Stepper.prepare(model, stage, accelerator, last, muon_dtype)
    start = -(-settings.warmup // CHUNK) * CHUNK
    steps = iter(range(start - settings.warmup, last))
    batches = our_batches(stage, texts, tokenizer, settings.shape)
    loader = DataLoader(batches, batch_size=None, sampler=range(start - settings.warmup, last))

    def step(batch: dict[str, torch.Tensor]) -> float:
        loss, _ = stepper.step(next(steps), batch)
        return loss.item()

    return Training(stepper.model, iter(loader), step, count_labels)


def count_labels(batch: dict[str, torch.Tensor]) -> tuple[int, int]:
    """Return the targets and the positions of a batch in the library's form."""
    return count_targets(batch["labels"]), batch["input_ids"].numel()


class TokenizedLines(torch.utils.data.Dataset):
    """`CorruptedLines` in the library's form: `{"input_ids"}`, not padded."""

    def __init__(self, lines: CorruptedLines, tokenizer: PreTrainedTokenizerFast):
        self.lines = lines
        self.tokenizer = tokenizer

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return {"input_ids": self.tokenizer(self.lines.corrupted(index))["input_ids"]}


def train_gpt2(subject: str, texts: Texts, tokenizer: PreTrainedTokenizerFast, settings: Settings) -> Training:
    """Prepare GPT-2 to train as the library's Trainer does: collator, fused AdamW, clipping, linear schedule."""
    device = torch.device(settings.device)
    model = build_model(subject, settings.shape, tokenizer).to(device).train()
    tokenizer.padding_side = "right"
    lines = CorruptedLines(texts.documents, number_characters(texts.lines), settings.shape.block)
    collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    rows = TokenizedLines(lines, tokenizer)
    loader = DataLoader(rows, batch_size=settings.batch_size, shuffle=True, collate_fn=collator)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, fused=True)
    scheduler = linear_schedule(optimizer, 0, settings.warmup + settings.steps)

    def step(batch: dict[str, torch.Tensor]) -> float:
        loss = model(**{key: value.to(device) for key, value in batch.items()}, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        return loss.item()

    return Training(model, endless(loader), step, count_labels)


def plain_loader(texts: Texts, settings: Settings) -> DataLoader:
    """Return the plain loop's loader of (ids, targets), each (B, block - 1)."""
    lines = CorruptedLines(texts.documents, number_characters(texts.lines), settings.shape.block)
    return DataLoader(lines, batch_size=settings.batch_size, shuffle=True)


def train_plain(subject: str, texts: Texts, tokenizer: PreTrainedTokenizerFast, settings: Settings) -> Training:
    """Prepare the plain loop."""
    device = torch.device(settings.device)
    model = build_model(subject, settings.shape, tokenizer).to(device)
    loop = PlainLoop(model, total_tokens=650 * len(texts.documents) * settings.shape.block)
    return Training(
        model,
        endless(plain_loader(texts, settings)),
        lambda batch: loop.step(*(part.to(device) for part in batch)),
        lambda batch: (int((batch[1] != 0).sum()), batch[0].numel()),
    )


TRAINERS = {
    OURS: train_ours,
    OURS_BFLOAT16: train_ours,
    OURS_SEED: train_ours,
    GPT2: train_gpt2,
    PLAIN: train_plain,
}
