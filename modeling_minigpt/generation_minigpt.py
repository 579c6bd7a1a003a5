"""What `generate()` must know of a MiniGPT: which cache it takes, what cannot be drafted, and where it must end."""

from functools import wraps

from transformers import GenerationMixin, TextGenerationPipeline
from transformers.utils import logging

from .cache_minigpt import NOT_PAGED, make_cache
from .configuration_minigpt import MiniGPTConfig

logger = logging.get_logger(__name__)

# What the library's pipeline asks for where nobody else has asked for a number of tokens.
DEFAULT_NEW_TOKENS = TextGenerationPipeline._default_generation_config.max_new_tokens


class MiniGPTGenerationMixin(GenerationMixin):
    """The library's `generate()`, for decoding states that merge tokens and for positions that end."""

    config: MiniGPTConfig

    def _validate_generation_mode(self, generation_mode, generation_config, generation_mode_kwargs):
        """Refuse also what the library would find in mid-generation.

        Raises:
            ValueError: an assistant that cannot take drafted tokens back, or a draft by layers that are not there.
        """
        super()._validate_generation_mode(generation_mode, generation_config, generation_mode_kwargs)
        assistant = generation_mode_kwargs.get("assistant_model")
        if assistant is not None and getattr(assistant, "_is_stateful", False):
            kind = getattr(assistant.config, "attention_type", type(assistant).__name__)
            raise ValueError(f"assisted generation is not supported with stateful models: the assistant is {kind}")
        exit_layer = generation_config.assistant_early_exit
        layers = self.config.num_hidden_layers
        if exit_layer is not None and exit_layer not in range(1, layers + 1):
            raise ValueError(f"assistant_early_exit must be from 1 to the {layers} layers, found {exit_layer!r}")

    def init_continuous_batching(self, *args, **kwargs):
        """Refuse, before its thread starts, what the library would end each request with; else as the library."""
        if not self.config.is_vanilla:
            raise ValueError(f"{NOT_PAGED}, found {self.config.attention_type!r}")
        return super().init_continuous_batching(*args, **kwargs)

    @wraps(GenerationMixin._assisted_decoding)  # whose parameters `generate` reads
    def _assisted_decoding(self, *args, **kwargs):
        layers = self.config.num_hidden_layers
        try:
            return super()._assisted_decoding(*args, **kwargs)
        finally:
            self.config.num_hidden_layers = layers  # lowered for a draft by the first layers, which may have failed

    def _prepare_generated_length(self, generation_config, *args, **kwargs):
        """Let the pipeline's default, which knows no model, end where learned positions do, and say so."""
        generation_config = super()._prepare_generated_length(generation_config, *args, **kwargs)
        if self.config.position_embedding_type == "learned" and generation_config.max_new_tokens == DEFAULT_NEW_TOKENS:
            context = self.config.max_position_embeddings
            if generation_config.max_length > context:  # the same number from a caller looks the same here
                logger.warning(
                    f"max_new_tokens={DEFAULT_NEW_TOKENS}, the default of the text-generation pipeline, reaches past "
                    f"the {context} learned positions: generation ends there"
                )
                generation_config.max_length = context
        return generation_config

    def _prepare_cache_for_generation(
        self, generation_config, model_kwargs, generation_mode, batch_size, max_cache_length
    ):
        """Give `generate` the cache its linear-time layers need; the library would use a `DynamicCache`.

        No cache where attention weights are wanted, as a state has merged the tokens that the weights are of, and
        none for texts whose rotary frequencies change as they grow.

        Raises:
            ValueError: another kind of cache, an assistant that cannot take tokens back, or `inputs_embeds` without
                a cache.
        """
        # The library calls this before its own checks; a cache passed by the caller is left as it is.
        made_here = model_kwargs.get("past_key_values") is None and generation_config.use_cache is not False
        if generation_config.is_assistant and self._is_stateful:
            raise ValueError(f"a model of attention_type {self.config.attention_type!r} cannot be an assistant")
        kind = generation_config.cache_implementation
        if made_here and not self.config.is_vanilla and kind not in (None, "dynamic"):
            raise ValueError(f"attention_type {self.config.attention_type!r} has its own cache, found {kind!r}")
        limit = self.model.rotary_emb.limit if self.model.rotary_emb is not None else None
        hides_weights = generation_config.output_attentions and not self.config.is_vanilla
        if made_here and (hides_weights or (limit is not None and max_cache_length > limit)):
            if model_kwargs.get("inputs_embeds") is not None:
                raise ValueError("inputs_embeds generate with a cache only, which these settings do not allow")
            generation_config.use_cache = model_kwargs["use_cache"] = False
        elif made_here and not self.config.is_vanilla:
            model_kwargs["past_key_values"] = make_cache(self.config)
        else:
            super()._prepare_cache_for_generation(
                generation_config, model_kwargs, generation_mode, batch_size, max_cache_length
            )
