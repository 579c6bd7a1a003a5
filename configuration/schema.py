"""The parts of a recipe, one small strict dataclass per section; wrong types and contradictions raise at construction.

Lengths of text are in characters, lengths of rows in tokens, durations in steps or minutes as named.
"""

import math
import re
from dataclasses import dataclass, field, fields
from fractions import Fraction
from typing import Any, Literal

from huggingface_hub.dataclasses import strict

from configuration.data_schema import DataArguments, PrepareArguments, RelationArguments
from configuration.field_bounds import PATH, require, require_at_most

POLICIES = ("random-span", "salient-span")
MIN_CHARACTERS = 4  # the shortest text the practical cuts to
MAX_SPANS = 1_000  # more than any text has
ROUNDING = Fraction(1, 100)  # how far off a share of questions, or of documents, may be in a pool of batches


@strict
@dataclass
class TokenizerArguments:
    """The tokenizer, built once from the pretraining text."""

    type: Literal["bpe", "character"] = "bpe"
    """Byte-level BPE, or one token per character."""
    vocab_size: int | None = None
    """Entries of a BPE vocabulary, 258 … 1,000,000, learned from at most 200,000 evenly spaced documents; a character
    vocabulary has the characters of the text."""

    def __post_init__(self):
        if self.type == "bpe":
            require(self.vocab_size is not None, "vocab_size is not set; a bpe tokenizer needs it")
            require(
                self.vocab_size >= 258,
                f"vocab_size must be at least 258 (256 bytes and 2 special tokens), found {self.vocab_size}",
            )
            require_at_most(self, {"vocab_size": 1_000_000})
        else:
            require(
                self.vocab_size is None,
                f"vocab_size is {self.vocab_size}, but a character tokenizer takes its vocabulary from the text; "
                "leave it out",
            )


DERIVED_MODEL_FIELDS = ("vocab_size", "pad_token_id", "bos_token_id", "eos_token_id")  # the tokenizer decides these


@strict
@dataclass
class ModelArguments:
    """A preset from `configuration/models/`, and the MiniGPTConfig fields in which this run differs from it."""

    preset: str = "minigpt"
    """A file in `configuration/models/`, whose values the other keys override."""
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CorruptionOptions:
    """How texts are corrupted; lengths are in characters."""

    policy: str = "salient-span"
    """`random-span` masks one random span; `salient-span` masks names, places and short runs of words."""
    max_length: int = 112
    """Longest text before corruption, in characters, at least 4 (the practical: 7/8 of the context)."""
    short_fraction: float = 0.7
    """Fraction of texts in the short form, in [0, 1]: title, a little context, sentinel, span (`salient-span`)."""
    salient_fraction: float = 0.75
    """Probability that a span is a capitalised phrase instead of a run of words (`salient-span`)."""
    answer_fraction: float = 0.0
    """Probability that phrases which are the answer to some training question, or look most like one, are masked
    before others (`salient-span`). The training answers take the place of an entity tagger."""
    likely_answer_fraction: float = 0.0
    """Probability that the phrase which looks most like an answer is masked before all others (`salient-span`). What
    answers look like is learned from the words around them in documents about people of the training questions."""
    max_spans: int = 3
    """Most spans per text, 1 … 1,000; their number is drawn uniformly (`salient-span`)."""
    max_context: int = 24
    """Most characters before a span in the short form; their number is drawn uniformly from 0 … max_context."""

    def __post_init__(self):
        for one in fields(self):
            value = getattr(self, one.name)
            kinds = (float, int) if one.type is float else (one.type,)
            if type(value) not in kinds:
                raise TypeError(f"{one.name} must be of type {one.type.__name__}, found {value!r}")
        if self.policy not in POLICIES:
            raise ValueError(f"policy must be one of {', '.join(POLICIES)}, found {self.policy!r}")
        for name in ("short_fraction", "salient_fraction", "answer_fraction", "likely_answer_fraction"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be in [0, 1], found {getattr(self, name)}")
        if self.max_length < MIN_CHARACTERS:
            raise ValueError(f"max_length must be at least {MIN_CHARACTERS} characters, found {self.max_length}")
        if not 1 <= self.max_spans <= MAX_SPANS:
            raise ValueError(f"max_spans must be in [1, {MAX_SPANS}], found {self.max_spans}")
        if self.max_context < 0:
            raise ValueError(f"max_context must not be negative, found {self.max_context}")


# Upper bounds, checked before anything is allocated.
MAX_ROWS = 100_000  # computed together
MAX_NEW_TOKENS = 10_000  # of an answer
STAGE_LIMITS = {
    "steps": 1_000_000_000,
    "epochs": 1_000_000_000,
    "batch_size": MAX_ROWS,
    "bucket_batches": 1_000,
    "learning_rate": 1e30,  # beyond, no float32 could hold a step, and the optimizers raise their own
    "muon_learning_rate": 1e30,
    "weight_decay": 10**6,
    "gradient_clipping": 10**6,
}


@strict
@dataclass
class StageArguments:
    """One stage of training: how long, on what, and how fast it learns. Either `steps` or `epochs` sets its length.
    `no_pretraining` is the baseline: finetuning from random weights."""

    steps: int | None = None
    """Number of optimizer steps, at least 1."""
    epochs: int | None = None
    """Passes over the documents, not counting questions among the rows, or over the questions if `question_fraction`
    is 1; at least 1."""
    batch_size: int = 96
    """Rows per step, over all processes and accumulation steps, 1 … 100,000."""
    gradient_accumulation_steps: int = 1
    """Number of parts of a batch that are computed one after the other, to save memory; at most `batch_size`."""
    start_from: str | None = field(default=None, metadata=PATH)
    """Folder or Hub id of a finished model whose weights and tokenizer the stage starts from."""
    question_fraction: float = 0.0
    """Fraction of the rows that are training questions, in [0, 1]; above 0 in `finetune` and `no_pretraining`. Below
    one row per batch, some batches have none."""
    title_loss: bool = True
    """Include a document's title in the loss. Names cannot be predicted, so without titles the loss measures facts
    alone; but a model that never trains on titles is worse at recognising the names it has seen."""
    title_fraction: float = 1.0
    """Fraction of the document rows whose title is in the loss, in [0, 1]; without effect if title_loss is off."""
    context_loss: bool = True
    """Include the text between the spans in the loss; else only masked spans and the sentinels that end them."""
    bucket_batches: int = 8
    """Number of batches that are drawn and sorted by length together, 1 … 1,000; 1 does not sort."""
    optimizer: Literal["muon", "adamw"] = "muon"
    """`muon`: Muon for the blocks' matrices and AdamW for the rest; `adamw`: AdamW for all."""
    learning_rate: float = 3e-3
    """Peak learning rate of AdamW, above 0."""
    muon_learning_rate: float = 0.02
    """Peak learning rate of Muon, above 0."""
    muon_bfloat16: bool = True
    """Compute Muon's products in bfloat16 if that is measured to be faster, whatever `run.mixed_precision` is."""
    weight_decay: float = 0.0
    """Weight decay of matrices; embeddings, norms and biases have none."""
    beta2: float = 0.95
    """AdamW's decay of the squared gradients, in [0, 1)."""
    gradient_clipping: float = 1.0
    """Norm to which a larger gradient is scaled down; 0 does not clip."""
    gradient_limit: float = 1000.0
    """Stop the run at a gradient whose norm before clipping is larger; 0 never stops."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises to its peak."""
    schedule: Literal["wsd", "cosine"] = "wsd"
    """`wsd`: warm-up, stable, then linear decay over the last `decay_fraction`. `cosine`: warm-up, half a cosine."""
    decay_fraction: float = 0.6
    """Fraction of the steps, at the end, over which the learning rate falls (schedule: wsd)."""
    min_lr_ratio: float = 0.0
    """The last step's learning rate as a fraction of the peak, in [0, 1]."""

    def __post_init__(self):
        require(
            (self.steps is None) != (self.epochs is None),
            f"set either steps or epochs, found steps: {self.steps} and epochs: {self.epochs}",
        )
        for name in ("steps", "epochs", "batch_size", "gradient_accumulation_steps", "bucket_batches"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} must be at least 1, found {value}")
        for name in ("title_fraction", "question_fraction", "decay_fraction", "min_lr_ratio"):
            require(0.0 <= getattr(self, name) <= 1.0, f"{name} must be in [0, 1], found {getattr(self, name)}")
        for name in ("learning_rate", "muon_learning_rate"):
            require(getattr(self, name) > 0.0, f"{name} must be above 0, found {getattr(self, name)}")
        for name in ("weight_decay", "gradient_clipping", "gradient_limit", "warmup_steps"):
            require(getattr(self, name) >= 0, f"{name} must not be negative, found {getattr(self, name)}")
        require(
            self.batch_size >= self.gradient_accumulation_steps,
            f"batch_size ({self.batch_size}) must be at least gradient_accumulation_steps "
            f"({self.gradient_accumulation_steps})",
        )
        require(0.0 <= self.beta2 < 1.0, f"beta2 must be in [0, 1), found {self.beta2}")
        require_at_most(self, STAGE_LIMITS)
        if self.steps is not None:
            self.check_mix(self.steps)

    def questions_per_pool(self) -> Fraction:
        """Return how many rows of a pool, `bucket_batches` batches, are questions; in a small pool not a whole number.

        128 rows in each of 16 batches and a share of 0.1 are 204.8 questions: 205 in every pool. 4 rows in one batch
        are 0.4: a question in two of five pools.
        """
        rows = self.bucket_batches * self.batch_size
        # As it is written in the recipe: the float 0.1 is a little more than a tenth.
        questions = rows * Fraction(str(self.question_fraction))
        whole = Fraction(round(questions))
        is_near = abs(whole - questions) <= ROUNDING * min(questions, rows - questions)
        return whole if is_near else questions

    def question_rows(self, pools: int) -> int:
        """Return how many rows of the first `pools` pools are questions."""
        # Rounded over all pools, not in each: a fraction of a row is carried over to the next pool.
        return round(pools * self.questions_per_pool())

    def total_steps(self, rows: int) -> int:
        """Return the stage's number of steps, where an epoch is `rows` documents, or `rows` questions."""
        if self.steps is not None:
            return self.steps
        pool = self.bucket_batches * self.batch_size
        counted = pool if self.question_fraction == 1.0 else pool - self.questions_per_pool()
        return math.ceil(Fraction(self.epochs * rows * self.bucket_batches) / counted)

    def check_mix(self, steps: int) -> None:
        """Raise ValueError where a stage that mixes questions and documents would have no row of one of them."""
        pools = -(-steps // self.bucket_batches)
        rows = pools * self.bucket_batches * self.batch_size
        is_mixed = 0.0 < self.question_fraction < 1.0
        require(
            not is_mixed or 0 < self.question_rows(pools) < rows,
            f"question_fraction is {self.question_fraction}, which makes {self.question_rows(pools)} of {rows} rows "
            "questions; wanted at least one question and one document",
        )


FILE_NAME_PART = re.compile(r"\w[\w-]*")  # what a relation or a set may be called
SPLIT_NAMES = ("train", "dev", "test", "held_out")


@strict
@dataclass
class EvaluateArguments:
    """How a model is scored."""

    model: str | None = field(default=None, metadata=PATH)
    """Folder or Hub id of a finished model; this run's `finetune` by default."""
    batch_size: int = 100
    """Questions generated together, 1 … 100,000."""
    max_new_tokens: int = 32
    """Longest answer in tokens, 1 … 10,000."""
    questions: int | None = None
    """Score at most this many questions of a relation, those about the people with the smallest hashes; null scores
    all."""
    sets: dict[str, str] = field(default_factory=dict, metadata=PATH)
    """Public question sets to score beside the dev questions, by names of your choice: PopQA or EntityQuestions, each
    a file, a folder of files, or the id of a data set on the Hub, for example `{popqa: akariasai/PopQA}`."""

    def __post_init__(self):
        for name in self.sets:  # it becomes a part of files' names
            require(bool(FILE_NAME_PART.fullmatch(name)), f"sets: {name!r}: wanted a name of letters, digits, _ and -")
            require(name not in SPLIT_NAMES, f"sets: {name!r} is a split of the data, wanted another name")
        for name in ("batch_size", "max_new_tokens", "questions"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} must be at least 1, found {value}")
        require_at_most(self, {"batch_size": MAX_ROWS, "max_new_tokens": MAX_NEW_TOKENS})


TRACKERS = ("aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "tensorboard", "trackio", "wandb")


@strict
@dataclass
class RunArguments:
    """What a run needs besides its stages."""

    mixed_precision: Literal["auto", "no", "bf16"] = "auto"
    """`auto` chooses bf16 if a step of the model's shape, timed as the run begins, is clearly faster, else no."""
    compile: bool = False
    """Compile the blocks and the loss, in stages of 200 steps or more; takes some ten seconds once."""
    checkpoint_minutes: float = 5.0
    """Minutes between checkpoints, above 0; one is also written at the end of a stage."""
    keep_checkpoints: int = 2
    """Number of checkpoints to keep, the latest ones; at least 1."""
    log_steps: int = 10
    """Steps between points in the logs, at least 1; fewer in a stage that would have less than twenty points."""
    trackers: list[str] = field(default_factory=lambda: ["tensorboard"])
    """Where curves, settings and results are logged: any of aim, clearml, comet_ml, dvclive, mlflow, swanlab,
    tensorboard, trackio and wandb that is installed; `[]` is nowhere."""
    stall_minutes: float = 5.0
    """Stop the run if a batch takes longer than this to load; 0 waits forever."""
    loader_workers: int = 0
    """Processes that read batches ahead; 0 reads them in the training process, between steps."""
    timeout_minutes: float = 120.0
    """How long processes wait for each other, above 0: for the one that prepares or calibrates, too."""

    def __post_init__(self):
        require(self.checkpoint_minutes > 0, f"checkpoint_minutes must be above 0, found {self.checkpoint_minutes}")
        require(self.stall_minutes >= 0, f"stall_minutes must not be negative, found {self.stall_minutes}")
        require(self.loader_workers >= 0, f"loader_workers must not be negative, found {self.loader_workers}")
        require(self.timeout_minutes > 0, f"timeout_minutes must be above 0, found {self.timeout_minutes}")
        require_at_most(self, {"stall_minutes": 1_000_000, "timeout_minutes": 1_000_000, "loader_workers": 1_000})
        for name in self.trackers:
            require(name in TRACKERS, f"trackers must be among {', '.join(TRACKERS)}, found {name!r}")
        require(len(set(self.trackers)) == len(self.trackers), f"trackers lists one twice, found {self.trackers}")
        for name in ("keep_checkpoints", "log_steps"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, found {getattr(self, name)}")


@dataclass
class Recipe:
    """A whole run: data, tokenizer, model, corruption, three stages of training and the scoring."""

    output: str = field(metadata=PATH)
    """The folder for everything that the run writes."""
    seed: int
    """Seed of the initial weights and of all random draws."""
    relations: dict[str, RelationArguments]
    """What is asked about people, by name; the first is the main one."""
    data: DataArguments
    prepare: PrepareArguments
    tokenizer: TokenizerArguments
    model: ModelArguments
    corruption: CorruptionOptions
    pretrain: StageArguments
    finetune: StageArguments
    no_pretraining: StageArguments
    """Finetuning from random weights: the baseline."""
    evaluate: EvaluateArguments
    run: RunArguments


NOT_SECTIONS = ("output", "seed", "relations")
SECTIONS = {f.name: f.type for f in fields(Recipe) if f.name not in NOT_SECTIONS}
