"""Models from GGUF files, as ordinary transformers models: de-quantised, and able to be saved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_gguf(path: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The de-quantised causal language model of a GGUF file, in float32, and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    model = AutoModelForCausalLM.from_pretrained(str(path.parent), gguf_file=path.name, dtype="float32")
    clear_quantiser(model)
    return model, tokenizer


def clear_quantiser(model: Any) -> None:
    """Forgets that the weights came from a quantised file, so that `save_pretrained` writes plain tensors."""
    for owner, name in ((model.config, "quantization_config"), (model, "hf_quantizer"), (model, "_hf_quantizer")):
        if name in vars(owner):
            delattr(owner, name)
    model.is_quantized = False
