"""What was found in a model, matrix by matrix: nothing in a block may be left without a role."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from lingualign.errors import UnsupportedModel
from lingualign.models.locate import attention_output, is_attention, mixture_size
from lingualign.models.matrices import BlockMatrix, MlpMatrices

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Part:
    """One weight of a block.

    Attributes:
        block: path of the block.
        role: `gate`, `up`, `gate+up` or `down`, led by `shared` or `routed` in a mixture of experts; `router`, `beside
            experts` (whatever else a mixture holds) or `attention`.
        parameter: name of the tensor.
        shape: its shape as it is stored.
        edited: whether an edit can change it.
    """

    block: str
    role: str
    parameter: str
    shape: tuple[int, ...]
    edited: bool = False

    @property
    def size(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class Coverage:
    """The weights of all blocks with their roles.

    Attributes:
        parts: shallow to deep, without vectors (norms, biases).
        parameters: number of parameters of the whole model, tied weights counted once.
    """

    parts: tuple[Part, ...]
    parameters: int

    @property
    def editable(self) -> float:
        """Share of the model's parameters in weights that an edit can change."""
        return sum(part.size for part in self.parts if part.edited) / self.parameters

    def lines(self) -> list[str]:
        """One line for each run of blocks that hold the same, then the shares of the whole."""
        groups: list[tuple[list[str], str]] = []
        for block in dict.fromkeys(part.block for part in self.parts):
            inside = [part for part in self.parts if part.block == block]
            held = ", ".join(
                f"{part.role} {part.parameter.removeprefix(f'{block}.').removesuffix('.weight')} "
                f"{'×'.join(map(str, part.shape))}"
                for part in inside
                if part.role != "attention"
            )
            if groups and groups[-1][1] == held:
                groups[-1][0].append(block)
            else:
                groups.append(([block], held))
        lines = []
        for blocks, held in groups:
            last = blocks[-1].rpartition(".")[2]
            lines.append(f"{blocks[0]}{f'-{last}' if len(blocks) > 1 else ''}: {held}")
        kinds = {part.role.rpartition(" ")[0] or part.role for part in self.parts}
        known = sum(part.size for part in self.parts) / self.parameters
        fixed = sum(part.size for part in self.parts if part.role == "attention" and not part.edited) / self.parameters
        rest = "" if "routed" not in kinds else ", the routed experts stay as they are"
        return [
            *lines,
            f"{self.editable:.1%} of the parameters can be edited{rest}; {fixed:.1%} are attention's other "
            f"matrices, {1 - known:.1%} lie outside the blocks or are norms and biases",
        ]


def coverage(model: nn.Module, mlps: Sequence[MlpMatrices]) -> Coverage:
    """The role of every matrix of every block.

    Args:
        model: the model.
        mlps: of its blocks, from `locate_mlps`.

    Raises:
        UnsupportedModel: a matrix of a block is neither MLP nor attention nor router.
    """
    parts = []
    for mlp in mlps:
        block = model.get_submodule(mlp.block)
        attentions = [place for place, module in block.named_modules() if place and is_attention(module)]
        known = {**dict(_roles(mlp.routed, "routed ")), **dict(_roles(mlp.matrices, "shared " if mlp.routed else ""))}
        attention = attention_output(model, mlp.block, mlp.hidden_size)
        matrices = (*(mlp.matrices[-1:] if mlp.routed else mlp.matrices), *([] if attention is None else [attention]))
        edited = {matrix.parameter for matrix in matrices}
        for name, parameter in block.named_parameters():
            if parameter.dim() < 2:
                continue
            path = f"{mlp.block}.{name}"
            role = known.get(path)
            if role is None and any(name.startswith(f"{place}.") for place in attentions):
                role = "attention"
            if role is None:
                role = _beside_experts(model, mlp, path, parameter.shape[0])
            parts.append(Part(mlp.block, role, path, tuple(parameter.shape), path in edited))
    return Coverage(tuple(parts), sum(parameter.numel() for parameter in model.parameters()))


def _roles(matrices: tuple[BlockMatrix, ...], kind: str) -> Iterator[tuple[str, str]]:
    """(parameter, role) of each weight; roles that share one are joined."""
    for parameter in dict.fromkeys(matrix.parameter for matrix in matrices):
        yield parameter, kind + "+".join(matrix.role for matrix in matrices if matrix.parameter == parameter)


def _beside_experts(model: nn.Module, mlp: MlpMatrices, path: str, rows: int) -> str:
    """The role of a matrix that is no expert's weight: the router, or what belongs to the experts."""
    if mlp.routed and path.startswith(f"{mlp.mlp}."):
        sizes = {mixture_size(child) for child in model.get_submodule(mlp.mlp).children()}
        inside = any(path.startswith(f"{matrix.module}.") for matrix in mlp.routed)
        return "router" if rows in sizes and not inside else "beside experts"
    raise UnsupportedModel(
        f"{path} of {type(model).__name__} is neither MLP nor attention nor router; this architecture is not supported"
    )
