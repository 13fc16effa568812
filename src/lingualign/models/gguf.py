"""Models from GGUF files, as ordinary transformers models: de-quantised, and able to be saved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def gguf_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a GGUF file."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)


def gguf_model(path: Path) -> PreTrainedModel:
    """The de-quantised causal language model of a GGUF file, in float32."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(path.parent), gguf_file=path.name, dtype="float32")
    clear_quantiser(model)
    return model


def clear_quantiser(model: Any) -> None:
    """Forgets that the weights came from a quantised file, so that `save_pretrained` writes plain tensors."""
    for owner, name in ((model.config, "quantization_config"), (model, "hf_quantizer"), (model, "_hf_quantizer")):
        if name in vars(owner):
            delattr(owner, name)
    model.is_quantized = False
