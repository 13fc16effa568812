"""Finds the output matrix of every block's attention, and which of its columns belong to which head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lingualign.errors import UnsupportedModel

if TYPE_CHECKING:
    from torch import nn

#: What the output matrix is called: Llama and most others, Phi and OPT, GPT-NeoX, InternLM.
_NAMES = frozenset({"o_proj", "out_proj", "dense", "wo"})


@dataclass(frozen=True)
class AttentionOutput:
    """One block's attention output matrix. Its inputs are the heads' outputs, side by side.

    Attributes:
        module: path of the linear layer, such as `model.layers.8.self_attn.o_proj`.
        heads: number of query heads; with grouped queries more than there are key and value heads.
        head_size: columns of each head.
    """

    module: str
    heads: int
    head_size: int

    @property
    def parameter(self) -> str:
        """Name of the weight, (hidden size, heads · head_size)."""
        return f"{self.module}.weight"

    def columns(self, head: int) -> slice:
        """The columns of the weight, and the slice of its input, that are a head's."""
        return slice(head * self.head_size, (head + 1) * self.head_size)


def locate_attention_outputs(model: nn.Module) -> list[AttentionOutput]:
    """The attention output matrix of every block, shallow to deep; head counts and sizes are the configuration's.

    Raises:
        UnsupportedModel: not every block has just one, or its width is not heads times head size.
    """
    from torch import nn

    config: Any = model.config
    text_config = config.get_text_config()
    heads: int = text_config.num_attention_heads
    head_size: int = getattr(text_config, "head_dim", None) or text_config.hidden_size // heads
    found = {
        path: module.in_features
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and path.rpartition(".")[2] in _NAMES
        and module.out_features == text_config.hidden_size
    }
    if len(found) != text_config.num_hidden_layers:
        raise UnsupportedModel(
            f"{type(model).__name__} has {text_config.num_hidden_layers} blocks and {len(found)} attention output "
            f"matrices (linear layers named {', '.join(sorted(_NAMES))}); its heads cannot be edited"
        )
    for path, width in found.items():
        if width != heads * head_size:
            raise UnsupportedModel(
                f"{path} has {width} inputs, but the configuration says {heads} heads of size {head_size}; "
                "heads can only be edited where all are of one size"
            )
    return [AttentionOutput(path, heads, head_size) for path in found]
