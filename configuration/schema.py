"""The parts of a recipe, one small strict dataclass a section; wrong types and contradictions raise at construction.

Lengths of text are in characters, lengths of rows in tokens, durations in steps or minutes as named.
"""

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from huggingface_hub.dataclasses import strict

MIN_PEOPLE = 20  # fewer invented people would leave a file of questions empty
POLICIES = ("random-span", "salient-span")
MIN_CHARACTERS = 4  # the shortest text the practical cuts to
MAX_SPANS = 1_000  # more than any text has


def require(condition: bool, message: str) -> None:
    """Raise ValueError(message) unless the condition holds."""
    if not condition:
        raise ValueError(message)


def require_at_most(section, limits: dict[str, float]) -> None:
    """Raise ValueError where a field is above its limit, beyond which no machine or no arithmetic could follow."""
    for name, limit in limits.items():
        value = getattr(section, name)
        require(value is None or value <= limit, f"{name} must be at most {limit}, found {value}")


@strict
@dataclass
class DataArguments:
    """Where the biographies and the questions come from."""

    source: Literal["synthetic", "folder"] = "synthetic"  # invented people, or the files of `path`
    path: str | None = None  # a folder in the cs224n layout (source: folder)
    people: int = 800  # invented people (source: synthetic)
    validation_questions: int = 0  # training questions held out and scored in place of the dev file, for tuning
    calibration_questions: int = 0  # training questions held out, from which the model's confidence is calibrated
    withheld_people: int = 0  # people of training questions whose questions and documents no stage sees: strangers

    def __post_init__(self):
        if self.path is not None:
            self.source = "folder"
        require(self.source == "synthetic" or self.path is not None, "source is folder but path is not set")
        require(self.people >= MIN_PEOPLE, f"people must be at least {MIN_PEOPLE}, found {self.people}")
        require_at_most(self, {"people": 1_000_000})
        for name in ("validation_questions", "calibration_questions", "withheld_people"):
            require(getattr(self, name) >= 0, f"{name} must not be negative, found {getattr(self, name)}")


@strict
@dataclass
class TokenizerArguments:
    """The tokenizer, built once from the pretraining text."""

    type: Literal["bpe", "character"] = "bpe"  # byte-level BPE, or one token a character
    vocab_size: int | None = None  # entries (bpe); characters are counted from the text

    def __post_init__(self):
        if self.type == "bpe":
            require(self.vocab_size is not None, "vocab_size is not set; a bpe tokenizer needs it")
            require(
                self.vocab_size >= 258, f"vocab_size must be at least 258 (all bytes and 2 more): {self.vocab_size}"
            )
            require_at_most(self, {"vocab_size": 1_000_000})
        else:
            require(
                self.vocab_size is None, f"vocab_size is {self.vocab_size}, but characters are counted from the text"
            )


DERIVED_MODEL_FIELDS = ("vocab_size", "pad_token_id", "bos_token_id", "eos_token_id")  # the tokenizer decides these


@strict
@dataclass
class ModelArguments:
    """A preset of `configuration/models/`, and the MiniGPTConfig fields in which this run differs from it."""

    preset: str = "minigpt"  # a file of configuration/models/ that the other keys change
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CorruptionOptions:
    """How texts are corrupted; lengths in characters.

    Attributes:
        policy: one of `POLICIES`.
        max_length: longest text before corruption; 7/8 of the model's context under `random-span`.
        short_fraction: share of texts in the short form (`salient-span`).
        salient_fraction: chance that a span is a capitalised phrase, else a run of words (`salient-span`).
        answer_fraction: chance that phrases which answer some training question are taken before others
            (`salient-span`): there is no entity tagger here, but the training answers show what to look for.
        max_spans: most spans of one text (`salient-span`); the number is uniform in [1, max_spans].
        max_context: most characters before a span in the short form; the number is uniform.
    """

    policy: str = "salient-span"
    max_length: int = 112
    short_fraction: float = 0.7
    salient_fraction: float = 0.75
    answer_fraction: float = 0.0
    max_spans: int = 3
    max_context: int = 24

    def __post_init__(self):
        for one in fields(self):
            value = getattr(self, one.name)
            kinds = (float, int) if one.type is float else (one.type,)
            if type(value) not in kinds:
                raise TypeError(f"{one.name} must be of type {one.type.__name__}, found {value!r}")
        if self.policy not in POLICIES:
            raise ValueError(f"policy must be one of {', '.join(POLICIES)}, found {self.policy!r}")
        for name in ("short_fraction", "salient_fraction", "answer_fraction"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be in [0, 1], found {getattr(self, name)}")
        if self.max_length < MIN_CHARACTERS:
            raise ValueError(f"max_length must be at least {MIN_CHARACTERS} characters, found {self.max_length}")
        if not 1 <= self.max_spans <= MAX_SPANS:
            raise ValueError(f"max_spans must be in [1, {MAX_SPANS}], found {self.max_spans}")
        if self.max_context < 0:
            raise ValueError(f"max_context must not be negative, found {self.max_context}")


MOST_ROWS = 100_000  # computed together
MOST_NEW_TOKENS = 10_000  # of an answer
STAGE_LIMITS = {
    "steps": 1_000_000_000,
    "epochs": 1_000_000_000,
    "batch_size": MOST_ROWS,
    "bucket_batches": 1_000,
    "learning_rate": 1e30,  # beyond, no float32 could hold a step, and the optimizers raise their own
    "muon_learning_rate": 1e30,
    "weight_decay": 10**6,
    "gradient_clipping": 10**6,
}


@strict
@dataclass
class StageArguments:
    """One stage of training: how long, on what, and how fast it learns. Either `steps` or `epochs` sets its length."""

    steps: int | None = None  # optimizer steps
    epochs: int | None = None  # passes over the documents, or over the questions where `question_fraction` is 1
    batch_size: int = 96  # rows a step, over all processes and accumulation steps
    gradient_accumulation_steps: int = 1  # parts of a batch, computed one after the other to save memory
    start_from: str | None = None  # a finished model's folder or Hub id, for its weights and tokenizer
    question_fraction: float = 0.0  # share of training questions among the rows
    title_loss: bool = True  # count a document's title in the loss; a name cannot be guessed, only told
    context_loss: bool = True  # off: only masked spans and the sentinels that end them count in the loss
    bucket_batches: int = 8  # batches drawn and sorted by length together; 1 for no sorting
    optimizer: Literal["muon", "adamw"] = "muon"  # Muon for the blocks' matrices and AdamW for the rest, or AdamW
    learning_rate: float = 3e-3  # AdamW's
    muon_learning_rate: float = 0.02  # Muon's, for the blocks' matrices
    muon_bfloat16: bool = True  # Muon's products in bfloat16 where that is faster, whatever `run.mixed_precision` is
    weight_decay: float = 0.0  # of matrices; embeddings, norms and biases have none
    beta2: float = 0.95  # AdamW's decay of the squared gradients
    gradient_clipping: float = 1.0  # largest norm of the gradient; 0 for none
    gradient_limit: float = 1000.0  # a gradient whose norm before clipping is larger stops the run; 0 for none
    warmup_steps: int = 0  # steps over which the learning rate rises to its peak
    schedule: Literal["linear", "cosine"] = "linear"  # linear: flat, then down over the last `decay_fraction`
    decay_fraction: float = 0.6  # of the steps, the last ones, over which the learning rate falls (schedule: linear)
    min_lr_ratio: float = 0.0  # the last step's learning rate over the highest

    def __post_init__(self):
        require(
            (self.steps is None) != (self.epochs is None),
            f"set either steps or epochs, found steps: {self.steps} and epochs: {self.epochs}",
        )
        for name in ("steps", "epochs", "batch_size", "gradient_accumulation_steps", "bucket_batches"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} must be at least 1, found {value}")
        for name in ("question_fraction", "decay_fraction", "min_lr_ratio"):
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

    def total_steps(self, rows: int) -> int:
        """Return the stage's number of steps, where an epoch is `rows` rows."""
        return self.steps if self.steps is not None else -(-self.epochs * rows // self.batch_size)


@strict
@dataclass
class EvaluateArguments:
    """How a model is scored."""

    model: str | None = None  # a finished model's folder or Hub id; this run's `finetune` when null
    batch_size: int = 100  # questions generated together
    max_new_tokens: int = 32  # longest answer, in tokens

    def __post_init__(self):
        for name in ("batch_size", "max_new_tokens"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, found {getattr(self, name)}")
        require_at_most(self, {"batch_size": MOST_ROWS, "max_new_tokens": MOST_NEW_TOKENS})


@strict
@dataclass
class RunArguments:
    """What a run needs besides its stages."""

    mixed_precision: Literal["auto", "no", "bf16"] = "auto"  # auto: bf16 where that is faster (a GPU, a CPU with AMX)
    compile: bool = False  # fuse the loops of blocks and loss, in stages of 200 steps or more: takes ten seconds
    checkpoint_minutes: float = 5.0  # between checkpoints; one is written at the end of a stage too
    keep_checkpoints: int = 2  # how many to keep, the latest ones
    log_steps: int = 10  # between points in the logs
    stall_minutes: float = 5.0  # a batch that takes longer to come stops the run; 0 for no limit

    def __post_init__(self):
        require(self.checkpoint_minutes > 0, f"checkpoint_minutes must be above 0, found {self.checkpoint_minutes}")
        require(self.stall_minutes >= 0, f"stall_minutes must not be negative, found {self.stall_minutes}")
        require_at_most(self, {"stall_minutes": 1_000_000})
        for name in ("keep_checkpoints", "log_steps"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, found {getattr(self, name)}")


@dataclass
class Recipe:
    """A whole run: data, tokenizer, model, corruption, three stages of training and the scoring."""

    output: str  # the folder for everything the run writes
    seed: int
    data: DataArguments
    tokenizer: TokenizerArguments
    model: ModelArguments
    corruption: CorruptionOptions
    pretrain: StageArguments
    finetune: StageArguments
    no_pretraining: StageArguments  # finetuning from random weights, the baseline
    evaluate: EvaluateArguments
    run: RunArguments


SECTIONS = {f.name: f.type for f in fields(Recipe) if f.name not in ("output", "seed")}
