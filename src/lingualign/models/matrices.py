"""The weight matrices of one block: what each is for, how it is stored, and where its features are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lingualign.errors import UnsupportedModel

MatrixRole = Literal["gate", "up", "down", "attention output"]


@dataclass(frozen=True)
class BlockMatrix:
    """One linear map of an MLP, or the same map of every expert where one parameter holds them all; or the map by which
    attention writes to the residual stream.

    Attributes:
        parameter: name of the stored tensor, such as `model.layers.8.mlp.gate_up_proj.weight`.
        module: path of the module that holds it; of a linear layer, the features are its input and output.
        role: what it is for.
        in_width, out_width: of this map alone, without those it is fused with.
        transposed: whether the tensor is stored (in, out), as GPT-2's Conv1D and Llama 4's experts are.
        first_row: where its outputs begin among those of a fused tensor.
        row_step: 2 where a fused tensor has the outputs of gate and up in turns, as GPT-OSS's experts have, else 1.
        experts: number of experts in a three-dimensional tensor; None for a plain matrix.
    """

    parameter: str
    module: str
    role: MatrixRole
    in_width: int
    out_width: int
    transposed: bool = False
    first_row: int = 0
    row_step: int = 1
    experts: int | None = None


@dataclass(frozen=True)
class MlpMatrices:
    """One block's MLP. Module paths are relative to the model.

    Attributes:
        block: path of the block, such as `model.layers.8`.
        mlp: path of the MLP module; of a mixture of experts, the whole mixture.
        output: path of the module whose output the down matrix adds to: the down layer itself, or the mixture that its
            shared expert is part of.
        matrices: the maps that can be edited, down last: of a dense MLP or of a mixture's shared expert.
        routed: the maps of a mixture's routed experts; empty for a dense MLP.
        hidden_size: H.
        inner_size: I, of the matrices that can be edited, else of one routed expert.
        obstacle: why nothing here can be edited, or None.
    """

    block: str
    mlp: str
    output: str
    matrices: tuple[BlockMatrix, ...]
    routed: tuple[BlockMatrix, ...]
    hidden_size: int
    inner_size: int
    obstacle: str | None = None

    @property
    def down_matrix(self) -> BlockMatrix:
        """The I → H map.

        Raises:
            UnsupportedModel: the block cannot be edited.
        """
        if self.obstacle is not None:
            raise UnsupportedModel(
                f"{self.obstacle}; edit the attention (family = 'attention'), or blocks with a dense MLP or a plain "
                "shared expert"
            )
        return self.matrices[-1]

    @property
    def down(self) -> str:
        """Path of the I → H layer. Raises as `down_matrix` does."""
        return self.down_matrix.module

    @property
    def inner_matrices(self) -> tuple[BlockMatrix, ...]:
        """The H → I maps: gate and up, or up alone in an MLP without gate."""
        return self.matrices[:-1]

    @property
    def inner(self) -> dict[str, str]:
        """Paths of the H → I layers by role; one path for both roles where they are fused."""
        return {matrix.role: matrix.module for matrix in self.inner_matrices}
