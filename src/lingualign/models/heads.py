"""Finds the output matrix of every block's attention, and which of its columns belong to which head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lingualign.errors import UnsupportedModel
from lingualign.models.locate import locate_mlps

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
        UnsupportedModel: a block has none, or more than one, or its width is not heads times head size.
    """
    from torch import nn

    text_config = getattr(model, "config").get_text_config()  # noqa: B009 (nn.Module declares no config)
    heads: int = text_config.num_attention_heads
    head_size: int = getattr(text_config, "head_dim", None) or text_config.hidden_size // heads
    located = []
    for mlp in locate_mlps(model):
        found = {
            f"{mlp.block}.{path}": module
            for path, module in model.get_submodule(mlp.block).named_modules()
            if isinstance(module, nn.Linear)
            and path.rpartition(".")[2] in _NAMES
            and module.out_features == mlp.hidden_size
            and f"{mlp.block}.{path}" != mlp.down
        }
        if len(found) != 1:
            raise UnsupportedModel(
                f"block {mlp.block} of {type(model).__name__} holds {len(found)} attention output matrices where one "
                "is needed; lingualign finds them in models whose attention ends in one linear layer"
            )
        path, linear = found.popitem()
        if linear.in_features != heads * head_size:
            raise UnsupportedModel(
                f"{path} has {linear.in_features} inputs, but the configuration says {heads} heads of size {head_size};"
                " lingualign needs models whose heads are all of one size"
            )
        located.append(AttentionOutput(path, heads, head_size))
    return located
