"""MiniGPT: a pre-norm causal transformer in the Hugging Face manner, readable top to bottom, leaves first.

The architecture is minGPT's (Karpathy 2020, after Radford et al. 2019); the config chooses between the original parts
(learned positions, LayerNorm, GELU, dropout) and today's (rotary positions, RMSNorm, QK-norm, squared ReLU).
"""

from typing import cast

import torch
from torch import nn
from transformers import Cache, PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import slice_logits_to_keep
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .attention_base_minigpt import SelfAttention, mark_zero_init
from .attention_minigpt import ATTENTION_CLASSES
from .cache_minigpt import check_layers, make_cache, no_cache_in_training
from .configuration_minigpt import MiniGPTConfig
from .generation_minigpt import MiniGPTGenerationMixin
from .loss_minigpt import prepare_targets
from .masks_minigpt import columns_seen, is_padding_mask, layer_masks, new_columns, real_columns
from .rotary_minigpt import MiniGPTRotaryEmbedding
from .saving_minigpt import save_beside_weights, upload_afterwards
from .source_minigpt import WeightsSource

# By this table of the library `Trainer` finds that labels are to be shifted before they are smoothed, and the
# text-generation pipeline that it supports the model.
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[MiniGPTConfig.model_type] = "MiniGPTForCausalLM"

NORM_CLASSES = {"rmsnorm": nn.RMSNorm, "layernorm": nn.LayerNorm}


class MiniGPTMLP(nn.Module):
    """Two linear layers around the activation, position by position: (B, T, C) to (B, T, C)."""

    def __init__(self, config: MiniGPTConfig):
        super().__init__()
        inner = cast(int, config.intermediate_size)  # None until the config has filled it in
        self.up_proj = nn.Linear(config.hidden_size, inner, bias=config.use_bias)
        self.down_proj = nn.Linear(inner, config.hidden_size, bias=config.use_bias)
        mark_zero_init(self.down_proj, config.zero_init_residual)
        self.act_fn = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.act_fn(self.up_proj(hidden_states)))  # (B, T, 4C) in between


class MiniGPTBlock(GradientCheckpointingLayer):
    """Attention, then MLP, each on a normalised copy of the residual stream and added back to it."""

    def __init__(self, config: MiniGPTConfig, layer_idx: int):
        super().__init__()
        norm = NORM_CLASSES[config.norm_type]  # names of the Hub's Llama, which tools look for
        self.input_layernorm = norm(config.hidden_size, eps=config.norm_eps)
        self.self_attn = ATTENTION_CLASSES[config.layer_attention_types[layer_idx]](config, layer_idx)
        self.post_attention_layernorm = norm(config.hidden_size, eps=config.norm_eps)
        self.mlp = MiniGPTMLP(config)
        self.dropout = nn.Dropout(config.residual_dropout)

    def forward(
        self,
        hidden_states: torch.Tensor,
        real: torch.Tensor | None = None,
        target_positions: torch.Tensor | None = None,
        **kwargs,
    ) -> torch.Tensor:
        """Map (B, T, C) to (B, T, C), or, in the last block, to the N positions that are read of it, (N, C).

        Args:
            real: False for columns of padding, (B, T): they see nothing, not even each other.
            target_positions: numbers of positions, in [0, B T), row by row; (N,). The MLP computes nothing for others.
        """
        # Pre-norm: the stream itself is never normalised, so gradients pass it unchanged.
        attended, _ = self.self_attn(self.input_layernorm(hidden_states), **kwargs)
        # Kernels differ in what a query without keys gets: zeros, the mean of all values, or a whole row's sums. On
        # the left, the column before a row's first token would so see the token that it predicts.
        if real is not None:
            attended = attended.masked_fill(~real[..., None], 0.0)
        if target_positions is not None:
            attended = attended.flatten(0, 1)[target_positions]
            hidden_states = hidden_states.flatten(0, 1)[target_positions]
        hidden_states = hidden_states + self.dropout(attended)
        return hidden_states + self.dropout(self.mlp(self.post_attention_layernorm(hidden_states)))


class MiniGPTPreTrainedModel(PreTrainedModel):
    """Weight initialisation, and what the Hub library needs to know to load, split, compile and record a MiniGPT."""

    config_class = MiniGPTConfig
    config: MiniGPTConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["MiniGPTBlock"]  # a residual stream must not cross devices inside a block
    _skip_keys_device_placement = ["past_key_values"]  # each layer keeps its own where it is
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": MiniGPTBlock, "attentions": SelfAttention}

    def __init__(self, config: MiniGPTConfig, *arguments, **settings):
        # Once more: the library sets overrides on a finished config, `from_pretrained(folder, num_hidden_layers=0)`.
        config.validate()
        super().__init__(config, *arguments, **settings)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *arguments, **settings):
        """Load as the library does, and remember from where, for the files beside the weights (`WeightsSource`)."""
        loaded = super().from_pretrained(pretrained_model_name_or_path, *arguments, **settings)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        if pretrained_model_name_or_path is not None:
            model.weights_source = WeightsSource.from_arguments(pretrained_model_name_or_path, settings)
        return loaded

    def save_pretrained(self, save_directory, is_main_process=True, state_dict=None, push_to_hub=False, **settings):
        """Save as the library does, with the pipeline's code where the config names it; upload it all at the end."""
        self.config.validate()  # before anything is written
        with upload_afterwards(self, save_directory, push_to_hub and is_main_process, settings):
            super().save_pretrained(save_directory, is_main_process, state_dict, **settings)
            if is_main_process:
                save_beside_weights(self, save_directory)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        """Initialise one module: the library knows matrices, norms and rotary frequencies, the rest is here.

        The library calls this for modules that hold parameters or buffers themselves, so a leaf has a flag if it
        starts at zero.
        """
        super()._init_weights(module)
        if getattr(module, "starts_at_zero", False):
            init.zeros_(module.weight)
        elif isinstance(module, SelfAttention):
            module.init_own_weights()


class MiniGPTModel(MiniGPTPreTrainedModel):
    """The transformer without a head: token ids (B, T) to hidden states (B, T, C)."""

    def __init__(self, config: MiniGPTConfig):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.embed_positions: nn.Embedding | None = None
        self.rotary_emb: MiniGPTRotaryEmbedding | None = None
        if config.position_embedding_type == "learned":
            self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
            mark_zero_init(self.embed_positions)  # as in minGPT: a position starts as no information
        else:
            self.rotary_emb = MiniGPTRotaryEmbedding(config)
        self.dropout = nn.Dropout(config.embedding_dropout)
        self.layers = nn.ModuleList([MiniGPTBlock(config, index) for index in range(config.num_hidden_layers)])
        self.norm = NORM_CLASSES[config.norm_type](config.hidden_size, eps=config.norm_eps)
        self.gradient_checkpointing = False
        self.post_init()

    @property
    def attentions(self) -> list[SelfAttention]:
        """The attention of each layer that runs: the library lowers `num_hidden_layers` for a draft."""
        return [cast(SelfAttention, layer.self_attn) for layer in self.layers[: self.config.num_hidden_layers]]

    def positions(
        self, length: int, seen: int | torch.Tensor, attention_mask: torch.Tensor | None, device: torch.device
    ) -> torch.Tensor:
        """Return position ids (B or 1, T): how many real tokens precede each, so that left padding has no effect."""
        if is_padding_mask(attention_mask):
            # [0, 0, 1, 1, 1] has the positions [0, 0, 0, 1, 2]: what a padding token gets does not matter.
            return new_columns((attention_mask.long().cumsum(-1) - 1).clamp(min=0), seen, length)
        return torch.arange(length, device=device)[None] + seen

    def check_positions(self, position_ids: torch.Tensor) -> None:
        """Raise ValueError where a learned position does not exist; only on a CPU: a GPU would have to wait for it."""
        if torch.compiler.is_compiling() or position_ids.device.type != "cpu":
            return
        limit = self.config.max_position_embeddings
        last = int(position_ids.max())
        if last >= limit:
            raise ValueError(f"learned positions end at {limit} tokens, found position {last} (the first is 0)")

    def place(
        self,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor | None,
        position_ids: torch.Tensor | None,
        past_key_values: Cache | None,
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor] | None]:
        """Return the embeddings (B, T, C), with learned positions added, and the angles of rotary ones, if any."""
        if position_ids is None:
            seen = columns_seen(past_key_values)
            position_ids = self.positions(inputs_embeds.shape[1], seen, attention_mask, inputs_embeds.device)
        if self.embed_positions is not None:
            self.check_positions(position_ids)
            inputs_embeds = inputs_embeds + self.embed_positions(position_ids)
        if self.rotary_emb is None:
            return inputs_embeds, None
        self.rotary_emb.check_cache(position_ids, past_key_values)
        # Once for all layers: every layer rotates by the same angles.
        return inputs_embeds, self.rotary_emb(inputs_embeds, position_ids)

    @no_cache_in_training
    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        target_positions: torch.Tensor | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPast:
        """Encode a batch.

        Args:
            input_ids: token ids (B, T); exactly one of these and `inputs_embeds` (B, T, C).
            attention_mask: 1 for real tokens, 0 for padding, (B, past + T); padding may be on either side. With a
                static cache it may be as long as the cache.
            position_ids: positions (B, T), counted from `attention_mask` when None. Positions that start again
                inside a row mark packed examples, which then do not see each other; that takes neither an
                `attention_mask` nor `past_key_values`.
            past_key_values: the cache of earlier calls; a fresh one is made when `use_cache`.
            use_cache: the config's when None, but False while gradients are recorded in training.
            target_positions: numbers, row by row, of the positions whose last hidden state is wanted, (N,); the result
                is then (N, C), and the last block's MLP computes nothing for the others.

        Raises:
            ValueError: not exactly one input; a position past the learned ones; a cache of another model or batch, or
                one that is to continue a text past the length that its rotary scaling depends on; a mask that does
                not fit; packed examples beside a mask or a cache; for linear-time variants also any packed examples
                and masks that are not (B, past + T) or not the cache's.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        masks = layer_masks(
            self.attentions, self.config, inputs_embeds, attention_mask, position_ids, past_key_values, kwargs
        )
        # After the masks: with a cache, though empty, packed examples would not be noticed.
        if use_cache and past_key_values is None:
            check_layers(self.attentions, self.config)
            past_key_values = make_cache(self.config)
        states, rotation = self.place(inputs_embeds, attention_mask, position_ids, past_key_values)
        hidden_states = self.dropout(states)  # (B, T, C)
        # FlashAttention, which takes no mask, finds packed examples by the positions.
        settings = {"position_embeddings": rotation, "past_key_values": past_key_values, "position_ids": position_ids}
        settings["real"] = real_columns(attention_mask, columns_seen(past_key_values), inputs_embeds.shape[1])
        for index, (layer, mask) in enumerate(zip(self.layers, masks, strict=False)):  # as many masks as layers run
            wanted = target_positions if index == len(masks) - 1 else None
            hidden_states = layer(hidden_states, attention_mask=mask, target_positions=wanted, **settings, **kwargs)
        return BaseModelOutputWithPast(last_hidden_state=self.norm(hidden_states), past_key_values=past_key_values)


class MiniGPTForCausalLM(MiniGPTPreTrainedModel, MiniGPTGenerationMixin):
    """MiniGPT with a linear head over the vocabulary; `generate()` comes with `MiniGPTGenerationMixin`."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config: MiniGPTConfig):
        super().__init__(config)
        self.model = MiniGPTModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @property
    def _is_stateful(self) -> bool:
        """Whether a decoding state merges or evicts tokens, so that assisted generation, which crops, is refused."""
        # Asked of an empty cache of this config: whether it can be cropped is known to the variants' classes alone.
        return not make_cache(self.config).is_croppable

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        skip_logits: bool = False,
        **kwargs,
    ) -> CausalLMOutputWithPast:
        """Predict the next token; the arguments not named here are `MiniGPTModel`'s.

        Args:
            labels: targets (B, T) aligned with `input_ids` (the loss shifts them), -100 where there is none. A target
                whose prediction would come from a column of padding does not count.
            logits_to_keep: number of last positions to compute logits for (0: all), or their indices.
            skip_logits: return the loss alone, and compute the last MLP and the head only where there is a target.

        Returns:
            Logits (B, T, V), None with `skip_logits`; and, with labels, the mean cross-entropy in nats per target
            token, or the sum divided by `num_items_in_batch` where that is passed.

        Raises:
            ValueError: `skip_logits` without labels for every token; or as `MiniGPTModel.forward`.
        """
        inputs = input_ids if inputs_embeds is None else inputs_embeds
        seen = columns_seen(past_key_values)
        targets, kwargs, settings = prepare_targets(labels, attention_mask, seen, inputs, skip_logits, kwargs)
        outputs: BaseModelOutputWithPast = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        states = outputs.last_hidden_state  # (B, T, C), or (N, C) at the targets alone
        # Generation needs the last position's logits alone; V columns of every position would be most of the work.
        logits = self.lm_head(states if skip_logits else slice_logits_to_keep(states, logits_to_keep))  # (…, V)
        loss = None
        if targets is not None:
            loss = self.loss_function(logits=logits, labels=targets, vocab_size=self.config.vocab_size, **settings)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=None if skip_logits else logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
