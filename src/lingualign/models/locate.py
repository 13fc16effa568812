"""Finds the transformer blocks of a model and the MLP matrices in them, by structure rather than by the model's name.

Blocks are the list of modules in the text decoder that is as long as the configuration says, so that the tower of
another modality is never taken for it. An MLP is a submodule of a block whose linear layers map the residual width H to
an inner width I and back: H → I once or twice, or once to 2 I where gate and up are fused (the gate comes first), and
exactly one I → H. A mixture holds experts, as a list of such MLPs or as three-dimensional tensors, and perhaps one MLP
that every token passes, the shared expert. Every block must hold exactly one MLP or mixture; anything else is an error
that names the block, never a skip.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lingualign.errors import UnsupportedModel
from lingualign.models.matrices import BlockMatrix, MatrixRole, MlpMatrices

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class _Map:
    """A linear layer: its widths, and whether its weight is stored (in, out)."""

    inputs: int
    outputs: int
    transposed: bool


#: What architectures call the last map of their attention.
_ATTENTION_OUTPUTS = {"o_proj", "out_proj", "c_proj", "dense", "wo"}


def is_attention(module: nn.Module) -> bool:
    """Whether a module is attention. Only its class says so: a fused query, key and value map can have any width."""
    return "attention" in type(module).__name__.lower()


def _maps(module: nn.Module) -> dict[str, _Map]:
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    found = {}
    for path, child in module.named_modules():
        if isinstance(child, nn.Linear):
            found[path] = _Map(child.in_features, child.out_features, transposed=False)
        elif isinstance(child, Conv1D):
            found[path] = _Map(child.nx, child.nf, transposed=True)
    return found


def _dense(module: nn.Module, path: str, hidden_size: int) -> tuple[BlockMatrix, ...] | None:
    """The maps of a dense MLP, down last, or None where the module is none."""
    maps = _maps(module)
    if is_attention(module) or not 2 <= len(maps) <= 3 or "" in maps:
        return None
    down = [name for name, linear in maps.items() if linear.outputs == hidden_size]
    inner = [name for name, linear in maps.items() if linear.inputs == hidden_size and name not in down]
    if len(down) != 1 or 1 + len(inner) != len(maps):
        return None
    width = maps[down[0]].inputs

    def matrix(name: str, role: MatrixRole, first_row: int = 0) -> BlockMatrix:
        inputs, outputs = (width, hidden_size) if role == "down" else (hidden_size, width)
        module = f"{path}.{name}"
        return BlockMatrix(f"{module}.weight", module, role, inputs, outputs, maps[name].transposed, first_row)

    last = matrix(down[0], "down")
    if len(inner) == 1 and maps[inner[0]].outputs == 2 * width:
        return matrix(inner[0], "gate"), matrix(inner[0], "up", width), last
    if any(maps[name].outputs != width for name in inner):
        return None
    if len(inner) == 1:
        return matrix(inner[0], "up"), last
    gates = [name for name in inner if "gate" in name or name.endswith("w1")]
    if len(gates) != 1:
        return None
    return *(matrix(name, "gate" if name in gates else "up") for name in inner), last


def attention_output(model: nn.Module, block: str, hidden_size: int) -> BlockMatrix | None:
    """The matrix by which a block's attention writes to the residual stream; None where it is not clear which it is.

    Args:
        model: the model.
        block: path of the block.
        hidden_size: H.
    """
    found = {
        f"{block}.{path}.{name}": linear
        for path, module in model.get_submodule(block).named_modules()
        if path and is_attention(module)
        for name, linear in _maps(module).items()
        # A query map may be as wide as the residual stream.
        if linear.outputs == hidden_size and name.rpartition(".")[2] in _ATTENTION_OUTPUTS
    }
    if len(found) != 1:
        return None
    ((module, linear),) = found.items()
    return BlockMatrix(
        f"{module}.weight", module, "attention output", linear.inputs, hidden_size, transposed=linear.transposed
    )


def _dense_inside(module: nn.Module, path: str, hidden_size: int) -> dict[str, tuple[BlockMatrix, ...]]:
    """Every dense MLP by path. Of a module and its only child that hold the same maps, the child."""
    found = {}
    for name, child in module.named_modules():
        child_path = f"{path}.{name}" if name else path
        matrices = _dense(child, child_path, hidden_size)
        if matrices is not None:
            found[matrices[-1].parameter] = (child_path, matrices)
    return dict(found.values())


def mixture_size(experts: nn.Module) -> int | None:
    """Number of experts that a module holds in three-dimensional tensors or as a list of modules alike; None for
    neither."""
    from torch import nn

    if isinstance(experts, nn.ModuleList):
        return len(experts) if len({type(child) for child in experts}) == 1 else None
    sizes = {
        parameter.shape[0]
        for parameter in experts.parameters(recurse=False)
        if parameter.dim() == 3 and not isinstance(experts, nn.modules.conv._ConvNd)
    }
    return sizes.pop() if len(sizes) == 1 else None


def _fused_experts(experts: nn.Module, path: str, hidden_size: int) -> tuple[BlockMatrix, ...] | None:
    """The maps that three-dimensional tensors hold for all experts, (E, out, in) or (E, in, out)."""
    tensors = {
        name: tuple(parameter.shape)
        for name, parameter in experts.named_parameters(recurse=False)
        if parameter.dim() == 3
    }
    for transposed in (False, True):
        outputs, inputs = (2, 1) if transposed else (1, 2)
        for name, shape in tensors.items():
            inner = {other: tensors[other] for other in tensors if other != name}
            width = shape[inputs]
            if shape[outputs] != hidden_size or any(other[inputs] != hidden_size for other in inner.values()):
                continue

            def matrix(
                name: str,
                role: MatrixRole,
                first_row: int = 0,
                row_step: int = 1,
                width: int = width,
                transposed: bool = transposed,
            ) -> BlockMatrix:
                widths = (width, hidden_size) if role == "down" else (hidden_size, width)
                size = tensors[name][0]
                return BlockMatrix(f"{path}.{name}", path, role, *widths, transposed, first_row, row_step, size)

            down = matrix(name, "down")
            widths = [other[outputs] for other in inner.values()]
            names = list(inner)
            if widths == [2 * width]:
                # transformers says so where the outputs of gate and up come in turns.
                up, step = (width, 1) if getattr(experts, "is_concatenated", True) else (1, 2)
                return matrix(names[0], "gate", 0, step), matrix(names[0], "up", up, step), down
            if widths == [width]:
                return matrix(names[0], "up"), down
            gates = [other for other in names if "gate" in other or other.endswith("w1")]
            if widths == [width, width] and len(gates) == 1:
                return *(matrix(other, "gate" if other in gates else "up") for other in names), down
    return None


def _experts(block: nn.Module, path: str, hidden_size: int) -> dict[str, tuple[BlockMatrix, ...]]:
    """The routed experts of a block by the path of what holds them.

    Raises:
        UnsupportedModel: three-dimensional tensors are there whose shapes are not those of experts.
    """
    from torch import nn

    found: dict[str, tuple[BlockMatrix, ...]] = {}
    for name, module in block.named_modules():
        if mixture_size(module) is None:
            continue
        place = f"{path}.{name}" if name else path
        if isinstance(module, nn.ModuleList):
            parts = [_dense(child, f"{place}.{index}", hidden_size) for index, child in enumerate(module)]
            if all(part is not None for part in parts):
                found[place] = tuple(matrix for part in parts if part is not None for matrix in part)
        else:
            matrices = _fused_experts(module, place, hidden_size)
            if matrices is None:
                shapes = [tuple(p.shape) for p in module.parameters(recurse=False) if p.dim() == 3]
                raise UnsupportedModel(
                    f"{place} holds three-dimensional weights {shapes} that are not those of experts of width "
                    f"{hidden_size}; this model's mixtures of experts are not supported"
                )
            found[place] = matrices
    return found


def _mixture(
    model: nn.Module, block: str, place: str, routed: tuple[BlockMatrix, ...], hidden_size: int
) -> MlpMatrices:
    """The mixture around the routed experts at `place`, with its shared expert if it has a plain one."""
    path = block if place == block else place.rpartition(".")[0]
    mixture = model.get_submodule(path)
    size = mixture_size(model.get_submodule(place))
    inside = _dense_inside(mixture, path, hidden_size)
    shared = {where: matrices for where, matrices in inside.items() if not where.startswith(f"{place}.")}
    obstacle = None
    if path == block:
        obstacle = f"the routed experts {place} are no mixture of their own beside the rest of the block"
    elif not shared:
        obstacle = f"{path} holds only {size} routed experts, whose weights lingualign does not edit"
    elif len(shared) > 1:
        obstacle = f"{path} holds {len(shared)} MLPs beside its routed experts: {', '.join(shared)}"
    else:
        known = {matrix.parameter for matrices in (*shared.values(), routed) for matrix in matrices}
        for name, parameter in mixture.named_parameters():
            # Whatever is neither expert nor router may scale the shared expert, as Qwen2-MoE's gate does.
            if (
                parameter.dim() == 2
                and f"{path}.{name}" not in known
                and not f"{path}.{name}".startswith(f"{place}.")
                and parameter.shape[0] != size
            ):
                obstacle = f"{path}.{name} comes between the shared expert and the mixture's output"
    matrices = () if obstacle is not None else next(iter(shared.values()))
    inner_size = (matrices or routed)[-1].in_width
    return MlpMatrices(block, path, path, matrices, routed, hidden_size, inner_size, obstacle)


def locate_blocks(model: nn.Module) -> tuple[str, nn.ModuleList, int]:
    """Path of the list of blocks of the text decoder, the list, and the residual width H.

    Raises:
        UnsupportedModel: the decoder has no list as long as the configuration says, or more than one.
    """
    from torch import nn

    config: Any = getattr(model, "config", None)
    text_config = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    hidden_size = getattr(text_config, "hidden_size", None)
    decoder: Any = getattr(model, "get_decoder", lambda: model)()
    prefix = next((path for path, module in model.named_modules() if module is decoder), "")
    lists: dict[str, nn.ModuleList] = {}
    for name, module in decoder.named_modules(prefix=prefix):
        # Lists within a block, such as experts, are its own affair.
        if isinstance(module, nn.ModuleList) and not any(name.startswith(f"{outer}.") for outer in lists):
            lists[name] = module
    count = getattr(text_config, "num_hidden_layers", None)
    lists = {name: module for name, module in lists.items() if len(module) == count}
    if not isinstance(hidden_size, int) or len(lists) != 1:
        raise UnsupportedModel(
            f"{type(model).__name__} has {len(lists) or 'no'} list{'s' * (len(lists) > 1)} of transformer blocks in "
            "its text decoder, which must have one; lingualign edits decoder-only transformers from Hugging Face"
        )
    path, blocks = next(iter(lists.items()))
    return path, blocks, hidden_size


def locate_mlps(model: nn.Module) -> list[MlpMatrices]:
    """The MLP matrices of every block, shallow to deep.

    A mixture that has no shared expert, or one that its router scales, is listed with an `obstacle`: asking for its
    matrices is what raises, so that other blocks can be edited and the residual stream of all can be read.

    Raises:
        UnsupportedModel: the model has no list of blocks, a block holds no MLP or mixture or more than one, or blocks
            share their weights.
    """
    path, blocks, hidden_size = locate_blocks(model)
    located = []
    owners: dict[int, str] = {}
    for index, block in enumerate(blocks):
        block_path = f"{path}.{index}"
        experts = _experts(block, block_path, hidden_size)
        found = [_mixture(model, block_path, place, routed, hidden_size) for place, routed in experts.items()]
        inside = tuple(f"{mixture.mlp}." for mixture in found)
        for where, matrices in _dense_inside(block, block_path, hidden_size).items():
            if where == block_path or f"{where}.".startswith(inside):
                continue
            down = matrices[-1]
            found.append(MlpMatrices(block_path, where, down.module, matrices, (), hidden_size, down.in_width))
        if len(found) != 1:
            kinds = sorted({type(child).__name__ for child in block.modules() if child is not block})
            raise UnsupportedModel(
                f"block {block_path} of {type(model).__name__} holds {len(found)} MLPs or mixtures of experts where "
                f"one is needed (modules: {', '.join(kinds[:8])}); this architecture is not supported"
            )
        for matrix in found[0].matrices:
            owner = owners.setdefault(id(model.get_parameter(matrix.parameter)), matrix.parameter)
            if owner.startswith(f"{path}.") and not owner.startswith(f"{block_path}."):
                raise UnsupportedModel(
                    f"{matrix.parameter} and {owner} are one tensor; an edit of one block would change the other"
                )
        located.append(found[0])
    return located
