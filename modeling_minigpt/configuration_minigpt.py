"""MiniGPTConfig: every choice that changes the function or the weights of a MiniGPT, with today's defaults.

Two presets are shipped in `configuration/models/`: `minigpt.json` (these defaults, blocks starting as the identity)
and `minigpt-seed.json`, the practical's model to the letter (learned positions, LayerNorm, GELU, biases, dropout 0.1;
minGPT, Karpathy 2020).
"""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

ATTENTION_TYPES = ("vanilla", "linformer", "bigbird", "window", "performer")
SLOT_TYPES = ("positional", "content")
RANDOM_TYPES = ("rows", "reservoir")
POSITION_TYPES = ("rotary", "learned")
ROPE_TYPES = ("default", *ROPE_INIT_FUNCTIONS)
NORM_TYPES = ("rmsnorm", "layernorm")
# Sizes that no model has: a wrong one is refused before anything is made of it.
MOST = {"num_hidden_layers": 10_000, "num_labels": 10_000}
MOST_ELSEWHERE, MOST_OF_A_VARIANT = 2**31 - 1, 2**20

# Written into every saved config.json, so that a folder loads by any Auto class whichever class had saved it.
AUTO_MAP = {
    "AutoConfig": "configuration_minigpt.MiniGPTConfig",
    "AutoModel": "modeling_minigpt.MiniGPTModel",
    "AutoModelForCausalLM": "modeling_minigpt.MiniGPTForCausalLM",
}


@strict
class MiniGPTConfig(PreTrainedConfig):
    """Configure a MiniGPT.

    Args:
        vocab_size: entries of the vocabulary, special tokens included.
        hidden_size: width of the residual stream; a multiple of `num_attention_heads`.
        num_hidden_layers: number of blocks.
        num_attention_heads: heads of each attention.
        intermediate_size: width of the MLP; `4 * hidden_size` when None.
        max_position_embeddings: training context in tokens; a hard limit with learned positions only.
        attention_type: the attention variant, one of `ATTENTION_TYPES`, or a list of them, one a layer.
        position_embedding_type: "rotary" (Su et al. 2021, arXiv 2104.09864) or "learned" (added to the embeddings).
        rope_parameters: the library's rotary settings, `{"rope_type": "default", "rope_theta": 10000.0}` when None;
            `{"rope_type": "yarn", "factor": 4.0, …}` and its other scalings stretch a trained model's context.
        norm_type: "rmsnorm" (Zhang and Sennrich 2019) or "layernorm".
        norm_eps: added to the variance in every norm.
        qk_norm: RMS-normalise queries and keys per head before the rotation (Henry et al. 2020, arXiv 2010.04245).
        hidden_act: the MLP's activation; "relu2" is squared ReLU (So et al. 2021, "Primer").
        use_bias: biases in the attention and MLP projections.
        embedding_dropout, attention_dropout, residual_dropout: drop probabilities in training, in [0, 1).
        initializer_range: standard deviation of normally initialised weights.
        zero_init_residual: start `o_proj` and `down_proj` at zero, so that every block starts as the identity.
        tie_word_embeddings: share the embedding matrix with the head.
        linformer_segment: tokens of a segment; a query sees its own and the one before exactly, the rest in slots.
        linformer_slots: learned mixtures of all earlier tokens, a head; at most a segment's tokens if positional.
        linformer_slot_type: what a token's slot weights depend on, "positional" (its place in its segment, as in the
            Linformer, Wang et al. 2020) or "content" (its hidden state; Peng et al. 2021, arXiv 2110.02488).
        bigbird_block: tokens of a block (Zaheer et al. 2020).
        bigbird_global, bigbird_window, bigbird_random: key blocks a query block sees: the first ones, the last ones
            (its own included, so at least 1), and random ones in between; no more window and random blocks than
            `max_position_embeddings` holds.
        bigbird_random_type: "rows" draws each block's random blocks on its own, as in the paper, and must remember
            every key to decode; "reservoir" draws each as uniformly, but from the last row's blocks and the newest,
            and decodes in constant memory.
        bigbird_seed: with layer, head and block number the only source of random blocks.
        window_size: tokens a query of a window layer sees, itself included.
        window_sinks: first tokens of the text that it sees as well (Xiao et al. 2024, arXiv 2309.17453).
        window_block: tokens computed together; changes speed, not the function.
        performer_features: random features of a head (Choromanski et al. 2021); the error falls as 1/sqrt of it.
        performer_seed: what the features are drawn from; they are saved with the weights.
        performer_chunk: tokens computed together; changes speed, not the function.

    Raises:
        StrictDataclassError: sizes that contradict each other or unknown names, with the values in the message.
    """

    model_type = "minigpt"
    keys_to_ignore_at_inference = ["past_key_values"]

    vocab_size: int = 2048
    hidden_size: int = 256
    num_hidden_layers: int = 4
    num_attention_heads: int = 8
    intermediate_size: int | None = None
    max_position_embeddings: int = 128
    attention_type: str | list[str] = "vanilla"
    position_embedding_type: str = "rotary"
    rope_parameters: dict | None = None
    norm_type: str = "rmsnorm"
    norm_eps: float | int = 1e-6
    qk_norm: bool = True
    hidden_act: str = "relu2"
    use_bias: bool = False
    embedding_dropout: float | int = 0.0
    attention_dropout: float | int = 0.0
    residual_dropout: float | int = 0.0
    initializer_range: float | int = 0.02
    zero_init_residual: bool = False
    use_cache: bool = True
    tie_word_embeddings: bool = False
    linformer_segment: int = 32
    linformer_slots: int = 16
    linformer_slot_type: str = "positional"
    bigbird_block: int = 16
    bigbird_global: int = 1
    bigbird_window: int = 3
    bigbird_random: int = 1
    bigbird_random_type: str = "rows"
    bigbird_seed: int = 0
    window_size: int = 64
    window_sinks: int = 4
    window_block: int = 32
    performer_features: int = 64
    performer_seed: int = 0
    performer_chunk: int = 64
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __post_init__(self, **kwargs):
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size
        kwargs.setdefault("auto_map", dict(AUTO_MAP))
        labels = kwargs.get("num_labels")  # the library lists them
        if isinstance(labels, int) and labels > MOST["num_labels"]:
            raise ValueError(f"num_labels must be at most {MOST['num_labels']}, found {labels}")
        super().__post_init__(**kwargs)

    @property
    def head_dim(self) -> int:
        """Width of one head, D."""
        return self.hidden_size // self.num_attention_heads

    @property
    def layer_attention_types(self) -> list[str]:
        """The attention variant of each layer."""
        if isinstance(self.attention_type, str):
            return [self.attention_type] * self.num_hidden_layers
        return list(self.attention_type)

    @property
    def is_vanilla(self) -> bool:
        """Whether every layer has full attention."""
        return set(self.layer_attention_types) == {"vanilla"}

    def validate_architecture(self):
        """Refuse sizes that contradict each other; part of the strict validation, so it runs at construction."""
        for name in (
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "max_position_embeddings",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")
            if getattr(self, name) > (most := MOST.get(name, MOST_ELSEWHERE)):
                raise ValueError(f"{name} must be at most {most}, found {getattr(self, name)}")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size ({self.hidden_size}) must be a multiple of "
                f"num_attention_heads ({self.num_attention_heads})"
            )
        if self.position_embedding_type == "rotary" and self.head_dim % 2:
            raise ValueError(f"rotary positions need an even head width, found {self.head_dim}")
        for name, allowed in (
            ("position_embedding_type", POSITION_TYPES),
            ("norm_type", NORM_TYPES),
            ("linformer_slot_type", SLOT_TYPES),
            ("bigbird_random_type", RANDOM_TYPES),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, found {getattr(self, name)!r}")
        for name in ("embedding_dropout", "attention_dropout", "residual_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must be in [0, 1), found {getattr(self, name)}")
        for name in ("norm_eps", "initializer_range"):
            if not 0.0 <= getattr(self, name) <= 1e6:
                raise ValueError(f"{name} must not be negative or above 1e6, found {getattr(self, name)}")
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act must be one of {', '.join(sorted(ACT2FN))}, found {self.hidden_act!r}")
        self.validate_attention()

    def validate_rope(self):
        """Check rotary settings by the library; not where nothing is rotated, for it would refuse odd head widths."""
        if self.position_embedding_type != "rotary":
            return
        if (found := self.rope_parameters["rope_type"]) not in ROPE_TYPES:
            raise ValueError(f"rope_type must be one of {', '.join(ROPE_TYPES)}, found {found!r}")
        try:
            super().validate_rope()
        except (KeyError, TypeError) as error:  # the library's, for a scaling that lacks a part or has a wrong one
            raise ValueError(f"rope_parameters: {error.args[0]}") from error
        for name, value in self.rope_parameters.items():
            if isinstance(value, (int, float)) and not 0.0 <= value <= 1e12:
                raise ValueError(f"rope_parameters: {name} must be in [0, 1e12], found {value}")
        if not isinstance(theta := self.rope_parameters.get("rope_theta"), (int, float)) or theta < 1:
            raise ValueError(f"rope_parameters: rope_theta must be a number from 1, found {theta!r}")

    def validate_attention(self):
        """Refuse attention variants that do not exist, do not fit the layers or have impossible sizes."""
        variants = self.layer_attention_types
        if len(variants) != self.num_hidden_layers:
            raise ValueError(
                f"attention_type names {len(variants)} layers, but num_hidden_layers is {self.num_hidden_layers}"
            )
        for variant in variants:
            if variant not in ATTENTION_TYPES:
                raise ValueError(f"attention_type must be one of {', '.join(ATTENTION_TYPES)}, found {variant!r}")
        least = {
            1: "linformer_segment linformer_slots bigbird_block bigbird_window window_size window_block "
            "performer_features performer_chunk",
            0: "bigbird_global bigbird_random bigbird_seed window_sinks performer_seed",
        }
        for minimum, names in least.items():
            for name in names.split():
                if getattr(self, name) < minimum:
                    raise ValueError(f"{name} must be at least {minimum}, found {getattr(self, name)}")
                if getattr(self, name) > (most := MOST_ELSEWHERE if name.endswith("seed") else MOST_OF_A_VARIANT):
                    raise ValueError(f"{name} must be at most {most}, found {getattr(self, name)}")
        positional = "linformer" in variants and self.linformer_slot_type == "positional"
        if positional and self.linformer_slots > self.linformer_segment:
            raise ValueError(
                f"linformer_slots ({self.linformer_slots}) must be at most linformer_segment "
                f"({self.linformer_segment}) with positional slots: so many places cannot fill more"
            )
        blocks = -(-self.max_position_embeddings // self.bigbird_block)
        if "bigbird" in variants and self.bigbird_window + self.bigbird_random > blocks:
            raise ValueError(
                f"bigbird_window ({self.bigbird_window}) and bigbird_random ({self.bigbird_random}) must be at most "
                f"the {blocks} blocks of {self.bigbird_block} that max_position_embeddings "
                f"({self.max_position_embeddings}) holds"
            )
