"""MiniGPTConfig: every choice that changes the function or the weights of a MiniGPT, with today's defaults.

Two presets are shipped in `configuration/models/`: `minigpt.json` (these defaults, blocks starting as the identity)
and `minigpt-seed.json`, the practical's model to the letter (learned positions, LayerNorm, GELU, biases, dropout 0.1;
minGPT, Karpathy 2020).
"""

from collections.abc import Callable
from typing import Any

from huggingface_hub.dataclasses import strict, validated_field
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

ROPE_TYPES = ("default", *ROPE_INIT_FUNCTIONS)
# Upper bounds, checked before anything is allocated.
MAX_LAYERS = 10_000
MAX_LABELS = 10_000
MAX_SIZE = 2**31 - 1
MAX_VARIANT_SIZE = 2**20  # of one variant's blocks, slots or features


# A dataclass field is declared as `name: int = field(…)`: the call's type is that of the field's values, hence Any.
def checked(default: Any, wanted: Callable[[Any], str | None]) -> Any:
    """Declare a field that is checked at construction and at every assignment.

    Args:
        default: the field's default.
        wanted: says what a bad value should have been; None for a good one.
    """

    def check(value: Any) -> None:
        if (description := wanted(value)) is not None:
            raise ValueError(f"{declared.name} must be {description}, found {value!r}")

    declared = validated_field(check, default=default)  # its name is set when the class is made
    return declared


def bounded(default: int | None, minimum: int, maximum: int = MAX_SIZE) -> Any:
    """Declare an integer field in [minimum, maximum]; None passes where the field's type allows it."""

    def wanted(value: int | None) -> str | None:
        if value is None or minimum <= value <= maximum:
            return None
        return f"at least {minimum}" if value < minimum else f"at most {maximum}"

    return checked(default, wanted)


def one_of(default: str, *others: str) -> Any:
    """Declare a field that takes one of a few names."""
    allowed = (default, *others)
    return checked(default, lambda value: None if value in allowed else f"one of {', '.join(allowed)}")


def dropout_probability() -> Any:
    """Declare a probability in [0, 1) that is 0 by default."""
    return checked(0.0, lambda value: None if 0.0 <= value < 1.0 else "in [0, 1)")


def small_number(default: float) -> Any:
    """Declare a number in [0, 1e6]; NaN is not one."""
    return checked(default, lambda value: None if 0.0 <= value <= 1e6 else "in [0, 1e6]")


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
        attention_type: the attention variant, a name in `ATTENTION_CLASSES`, or a list of them, one per layer.
        position_embedding_type: "rotary" (Su et al. 2021, arXiv 2104.09864) or "learned" (added to the embeddings).
        rope_parameters: the library's rotary settings, `{"rope_type": "default", "rope_theta": 10000.0}` when None;
            `{"rope_type": "yarn", "factor": 4.0, …}` and its other scalings stretch a trained model's context.
        norm_type: "rmsnorm" (Zhang and Sennrich 2019) or "layernorm".
        norm_eps: added to the variance in every norm.
        qk_norm: RMS-normalise queries and keys per head before the rotation (Henry et al. 2020, arXiv 2010.04245).
        hidden_act: the MLP's activation; "relu2" is squared ReLU (So et al. 2021, "Primer").
        use_bias: biases in the attention and MLP projections.
        embedding_dropout, attention_dropout, residual_dropout: dropout probability in training, in [0, 1).
        initializer_range: standard deviation of normally initialised weights.
        zero_init_residual: start `o_proj` and `down_proj` at zero, so that every block starts as the identity.
        tie_word_embeddings: share the embedding matrix with the head.
        use_cache: keep keys and values while generating, so that each step reads one token.
        linformer_segment: tokens of a segment; a query sees its own and the one before exactly, the rest in slots.
        linformer_slots: learned mixtures of all earlier tokens, per head; at most `linformer_segment` if positional.
        linformer_slot_type: what a token's slot weights depend on, "positional" (its place in its segment, as in the
            Linformer, Wang et al. 2020) or "content" (its hidden state; Peng et al. 2021, arXiv 2110.02488).
        bigbird_block: tokens of a block (Zaheer et al. 2020).
        bigbird_global: first key blocks that every query block sees; 0 for none.
        bigbird_window: last key blocks that a query block sees, its own included, so at least 1.
        bigbird_random: random key blocks between these that a query block sees; 0 for none. With `bigbird_window`, no
            more than fit into `max_position_embeddings`.
        bigbird_random_type: "rows" draws each block's random blocks on its own, as in the paper, and must remember
            every key to decode; "reservoir" draws each as uniformly, but from the last row's blocks and the newest,
            and decodes in constant memory.
        bigbird_seed: seed of the random blocks, which depend on it and on layer, head and block number alone.
        window_size: tokens a query of a window layer sees, itself included.
        window_sinks: first tokens of the text that it sees as well (Xiao et al. 2024, arXiv 2309.17453).
        window_block: tokens computed together; changes speed, not the function.
        performer_features: number m of random features per head (Choromanski et al. 2021); the error falls as 1/√m.
        performer_seed: seed of the random features, which are saved with the weights.
        performer_chunk: tokens computed together; changes speed, not the function.
        gated_deltanet_heads: heads of queries and keys, a divisor of `num_attention_heads`; fewer ones are wider and
            recall more, with a memory of hidden_size² / gated_deltanet_heads numbers (Yang et al. 2025).
        gated_deltanet_convolution: tokens that the convolutions of queries, keys and values see, their own included.
        gated_deltanet_chunk: tokens computed together; changes speed, not the function.
        selected_block: tokens of a block that a query may choose (Lu et al. 2025, arXiv 2502.13189).
        selected_blocks: blocks that a query chooses among those before its window, head by head.
        selected_window: last blocks that a query always sees, its own included, so at least 1.
        selected_by: what a block is chosen by, "box" (an upper bound of the query's products with its keys, nothing
            learned; Tang et al. 2024, arXiv 2406.10774) or "summary" (a mean of its keys with learned weights).
        selected_exact: up to this many blocks, a query scores every one; beyond, it searches boxes around boxes of
            blocks in O(T log T), and may miss some of the best.

    Raises:
        StrictDataclassError: sizes that contradict each other or unknown names, with the values in the message.
    """

    model_type = "minigpt"
    keys_to_ignore_at_inference = ["past_key_values"]

    # Sizes
    vocab_size: int = bounded(2048, minimum=1)
    hidden_size: int = bounded(256, minimum=1)
    num_hidden_layers: int = bounded(4, minimum=1, maximum=MAX_LAYERS)
    num_attention_heads: int = bounded(8, minimum=1)
    intermediate_size: int | None = bounded(None, minimum=1)
    max_position_embeddings: int = bounded(128, minimum=1)
    # What the function is; kernels of it are `attn_implementation`, which is not stored.
    attention_type: str | list[str] = "vanilla"
    position_embedding_type: str = one_of("rotary", "learned")
    rope_parameters: dict | None = None
    norm_type: str = one_of("rmsnorm", "layernorm")
    norm_eps: float | int = small_number(1e-6)
    qk_norm: bool = True  # bounds the scores, so that large learning rates do not saturate the softmax
    hidden_act: str = "relu2"
    use_bias: bool = False
    # Training alone
    embedding_dropout: float | int = dropout_probability()
    attention_dropout: float | int = dropout_probability()
    residual_dropout: float | int = dropout_probability()
    initializer_range: float | int = small_number(0.02)
    zero_init_residual: bool = False
    # The Hub library's
    use_cache: bool = True
    tie_word_embeddings: bool = False
    # Each variant's own, under its name: cache layers and checkpoints are compared by this prefix.
    linformer_segment: int = bounded(32, minimum=1, maximum=MAX_VARIANT_SIZE)
    linformer_slots: int = bounded(16, minimum=1, maximum=MAX_VARIANT_SIZE)
    linformer_slot_type: str = one_of("positional", "content")
    bigbird_block: int = bounded(16, minimum=1, maximum=MAX_VARIANT_SIZE)
    bigbird_global: int = bounded(1, minimum=0, maximum=MAX_VARIANT_SIZE)
    bigbird_window: int = bounded(3, minimum=1, maximum=MAX_VARIANT_SIZE)
    bigbird_random: int = bounded(1, minimum=0, maximum=MAX_VARIANT_SIZE)
    bigbird_random_type: str = one_of("rows", "reservoir")
    bigbird_seed: int = bounded(0, minimum=0)
    window_size: int = bounded(64, minimum=1, maximum=MAX_VARIANT_SIZE)
    window_sinks: int = bounded(4, minimum=0, maximum=MAX_VARIANT_SIZE)
    window_block: int = bounded(32, minimum=1, maximum=MAX_VARIANT_SIZE)
    performer_features: int = bounded(64, minimum=1, maximum=MAX_VARIANT_SIZE)
    performer_seed: int = bounded(0, minimum=0)
    performer_chunk: int = bounded(64, minimum=1, maximum=MAX_VARIANT_SIZE)
    gated_deltanet_heads: int = bounded(1, minimum=1)
    gated_deltanet_convolution: int = bounded(4, minimum=1, maximum=MAX_VARIANT_SIZE)
    gated_deltanet_chunk: int = bounded(64, minimum=1, maximum=MAX_VARIANT_SIZE)
    selected_block: int = bounded(16, minimum=1, maximum=MAX_VARIANT_SIZE)
    selected_blocks: int = bounded(8, minimum=1, maximum=MAX_VARIANT_SIZE)
    selected_window: int = bounded(4, minimum=1, maximum=MAX_VARIANT_SIZE)
    selected_by: str = one_of("box", "summary")
    selected_exact: int = bounded(2048, minimum=1, maximum=MAX_VARIANT_SIZE)
    # Set from the tokenizer
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __post_init__(self, **kwargs):
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size
        # A folder saved by the bare model, too, must load as a causal language model.
        kwargs.setdefault("auto_map", dict(AUTO_MAP))
        labels = kwargs.get("num_labels")  # the library makes a dictionary with an entry for each
        if isinstance(labels, int) and labels > MAX_LABELS:
            raise ValueError(f"num_labels must be at most {MAX_LABELS}, found {labels}")
        super().__post_init__(**kwargs)

    @property
    def head_dim(self) -> int:
        """Width of one head, D."""
        return self.hidden_size // self.num_attention_heads

    @head_dim.setter
    def head_dim(self, value: int):
        self.check_derived("head_dim", value, "hidden_size and num_attention_heads")

    @property
    def layer_attention_types(self) -> list[str]:
        """The attention variant of each layer."""
        if isinstance(self.attention_type, str):
            return [self.attention_type] * self.num_hidden_layers
        return list(self.attention_type)

    @layer_attention_types.setter
    def layer_attention_types(self, value: list[str]):
        self.check_derived("layer_attention_types", value, "attention_type and num_hidden_layers")

    @property
    def is_vanilla(self) -> bool:
        """Whether every layer has full attention."""
        return set(self.layer_attention_types) == {"vanilla"}

    @is_vanilla.setter
    def is_vanilla(self, value: bool):
        self.check_derived("is_vanilla", value, "attention_type")

    def check_derived(self, name: str, value: object, sources: str):
        """Take what another model's config may state, as Llama's `head_dim`; ValueError where it is not so here."""
        if value is not None and value != getattr(self, name):
            raise ValueError(f"{name} follows from {sources} and is {getattr(self, name)}, found {value!r}")

    def validate_architecture(self):
        """Refuse sizes that contradict each other; part of the strict validation, so it runs at construction."""
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size ({self.hidden_size}) must be a multiple of "
                f"num_attention_heads ({self.num_attention_heads})"
            )
        if self.position_embedding_type == "rotary" and self.head_dim % 2:
            raise ValueError(f"rotary positions need an even head width, found {self.head_dim}")
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act must be one of {', '.join(sorted(ACT2FN))}, found {self.hidden_act!r}")

    def validate_rope(self):
        """Check rotary settings by the library, only where they are used: it would refuse odd head widths."""
        if self.position_embedding_type != "rotary":
            return
        if (found := self.rope_parameters["rope_type"]) not in ROPE_TYPES:
            raise ValueError(f"rope_type must be one of {', '.join(ROPE_TYPES)}, found {found!r}")
        try:
            super().validate_rope()
        except (KeyError, TypeError) as error:  # the library's, for a scaling that lacks a part or has a wrong one
            raise ValueError(f"rope_parameters: {error.args[0]}") from error
        for name, value in self.rope_parameters.items():
            # The library checks names and types, not that the numbers give finite frequencies.
            if isinstance(value, (int, float)) and not 0.0 <= value <= 1e12:
                raise ValueError(f"rope_parameters: {name} must be in [0, 1e12], found {value}")
        if not isinstance(theta := self.rope_parameters.get("rope_theta"), (int, float)) or theta < 1:
            raise ValueError(f"rope_parameters: rope_theta must be a number from 1, found {theta!r}")

    def validate_attention(self):
        """Refuse attention variants that are not registered, do not fit the layers or contradict their sizes."""
        from .attention_minigpt import ATTENTION_CLASSES  # not above: the variants import this module

        variants = self.layer_attention_types
        if len(variants) != self.num_hidden_layers:
            raise ValueError(
                f"attention_type names {len(variants)} layers, but num_hidden_layers is {self.num_hidden_layers}"
            )
        for variant in dict.fromkeys(variants):
            if variant not in ATTENTION_CLASSES:
                raise ValueError(f"attention_type must be one of {', '.join(ATTENTION_CLASSES)}, found {variant!r}")
            ATTENTION_CLASSES[variant].check_config(self)
