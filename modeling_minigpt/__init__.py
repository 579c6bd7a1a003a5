"""MiniGPT, a small causal language model for the Hugging Face libraries.

Importing the package registers it, so that `AutoModelForCausalLM.from_pretrained(folder)` needs no remote code.
"""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from .cache_minigpt import make_cache
from .configuration_minigpt import MiniGPTConfig
from .modeling_minigpt import MiniGPTForCausalLM, MiniGPTModel, MiniGPTPreTrainedModel
from .pipeline_minigpt import BirthplacePipeline, ClosedBookPipeline
from .tokenization_minigpt import build_bpe_tokenizer, build_character_tokenizer

__version__ = "0.2.0"

AutoConfig.register(MiniGPTConfig.model_type, MiniGPTConfig, exist_ok=True)
AutoModel.register(MiniGPTConfig, MiniGPTModel, exist_ok=True)
AutoModelForCausalLM.register(MiniGPTConfig, MiniGPTForCausalLM, exist_ok=True)

# `save_pretrained` then copies the code beside the weights, for those who load with `trust_remote_code=True`.
MiniGPTConfig.register_for_auto_class("AutoConfig")
MiniGPTModel.register_for_auto_class("AutoModel")
MiniGPTForCausalLM.register_for_auto_class("AutoModelForCausalLM")

__all__ = [
    "BirthplacePipeline",
    "ClosedBookPipeline",
    "MiniGPTConfig",
    "MiniGPTForCausalLM",
    "MiniGPTModel",
    "MiniGPTPreTrainedModel",
    "__version__",
    "build_bpe_tokenizer",
    "build_character_tokenizer",
    "make_cache",
]
