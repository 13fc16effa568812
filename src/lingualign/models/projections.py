"""The seven linear maps of each block, by role, and which axis of their weight is the neuron's.

A neuron is a row of a map that writes it (query, key, value, gate, up), a column of one that reads it (output, down).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

from lingualign.errors import UnsupportedModel
from lingualign.models.locate import locate_mlps

if TYPE_CHECKING:
    from torch import nn

Role = Literal["query", "key", "value", "output", "gate", "up", "down"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)
ATTENTION: Final[dict[Role, str]] = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "o_proj"}


@dataclass(frozen=True)
class Projection:
    """One linear map.

    Attributes:
        layer: index of the block.
        role: what it is for.
        module: its path, such as `model.layers.8.self_attn.q_proj`.
    """

    layer: int
    role: Role
    module: str

    @property
    def parameter(self) -> str:
        return f"{self.module}.weight"

    @property
    def axis(self) -> Literal["rows", "columns"]:
        """Where the weight's neurons lie."""
        return "columns" if self.role in ("output", "down") else "rows"


def locate_projections(model: nn.Module, roles: tuple[Role, ...] = ROLES) -> list[Projection]:
    """The maps with these roles, block by block. A model without gate has none with that role.

    Raises:
        UnsupportedModel: a block's MLP is a mixture of experts or has no linear layer for each role, or attention roles
            are asked for and its attention does not keep query, key, value and output apart.
    """
    found = []
    for layer, mlp in enumerate(locate_mlps(model)):
        if mlp.routed or any(matrix.transposed or matrix.first_row for matrix in mlp.matrices):
            raise UnsupportedModel(
                f"{mlp.mlp} of {type(model).__name__} is no dense MLP with a linear layer for each of gate, up and "
                "down, whose neurons this method scores; use the method sparse-weight-edit"
            )
        paths: dict[str, str] = {**mlp.inner, "down": mlp.down}
        if ATTENTION.keys() & set(roles):
            paths |= _attention(model, mlp.block)
        found += [Projection(layer, role, paths[role]) for role in roles if role in paths]
    return found


def _attention(model: nn.Module, block: str) -> dict[str, str]:
    names = [path for path, _ in model.get_submodule(block).named_modules()]
    found: dict[str, str] = {}
    for role, name in ATTENTION.items():
        paths = [path for path in names if path.rpartition(".")[2] == name]
        if len(paths) != 1:
            raise UnsupportedModel(
                f"block {block} of {type(model).__name__} has {len(paths)} modules named {name} where one is needed; "
                "leave the attention out (roles gate, up, down)"
            )
        found[role] = f"{block}.{paths[0]}"
    return found
