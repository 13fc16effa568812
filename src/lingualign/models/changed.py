"""Which matrices of a block an edit changes, by its family.

`output`, `attention` and `residual` change what writes to the residual stream: the MLP's last matrix, the attention's,
or both. There a layer is linear in the weight, so that what it should put out can be met exactly. `paper` changes the
MLP's gate and up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from lingualign.errors import UnsupportedModel
from lingualign.models.locate import attention_output
from lingualign.models.matrices import BlockMatrix, MlpMatrices

if TYPE_CHECKING:
    from torch import nn

Family = Literal["output", "attention", "residual", "paper"]


def is_editable(mlp: MlpMatrices, family: Family) -> bool:
    """Whether the block's MLP does not stand in a family's way."""
    if family == "attention":
        return True
    return not mlp.routed if family == "paper" else mlp.obstacle is None


def require_editable(mlps: Sequence[MlpMatrices], family: Family = "output") -> None:
    """Refuses a model none of whose blocks can be edited.

    Raises:
        UnsupportedModel: so it is; the line names the first block's mixture.
    """
    if not any(is_editable(mlp, family) for mlp in mlps):
        why = mlps[0].obstacle or f"{mlps[0].mlp} is a mixture of experts, whose neurons family = 'paper' cannot change"
        raise UnsupportedModel(f"{why}, and no other block can be edited; edit the attention (family = 'attention')")


def changed_matrices(model: nn.Module, mlp: MlpMatrices, family: Family) -> list[tuple[BlockMatrix, str]]:
    """The matrices of a block in the order in which they run, each with the path of the module whose output it is aimed
    at: its own, or the mixture that a shared expert is part of.

    Raises:
        UnsupportedModel: the family cannot change this block.
    """
    found = []
    if family in ("attention", "residual"):
        attention = attention_output(model, mlp.block, mlp.hidden_size)
        if attention is None:
            raise UnsupportedModel(
                f"block {mlp.block} of {type(model).__name__} has no attention with one matrix that writes to the "
                "residual stream; use family = 'output'"
            )
        found.append((attention, attention.module))
    if family != "attention":
        # Also where another matrix is changed: of a block in which none can be, this line says why.
        down = mlp.down_matrix
        if family != "paper":
            found.append((down, mlp.output))
        elif mlp.routed:
            raise UnsupportedModel(
                f"{mlp.mlp} is a mixture of experts, where the family 'paper' would change the shared expert's neurons "
                "and none of the routed ones'; use family = 'output'"
            )
        else:
            found += [(matrix, matrix.module) for matrix in mlp.inner_matrices]
    return found
