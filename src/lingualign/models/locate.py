"""Finds the transformer blocks of a model and the MLP matrices in them, by structure rather than by the model's name.

An MLP is a submodule of a block whose linear layers map the residual width H to an inner width I and back: one or two
layers H → I and exactly one I → H. Attention has at least three maps out of the residual stream, or a fused one whose
width differs from its output map's. Every block must hold exactly one MLP; anything else is an error that names the
block, never a skip.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lingualign.errors import UnsupportedModel

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class MlpMatrices:
    """Module paths of one block's MLP, relative to the model.

    Attributes:
        block: path of the block, such as `model.layers.8`.
        mlp: path of the MLP module.
        inner: paths of the H → I layers by role: `gate` and `up`, or `up` alone in an MLP without gate.
        down: path of the I → H layer.
        hidden_size: H.
        inner_size: I.
    """

    block: str
    mlp: str
    inner: dict[str, str]
    down: str
    hidden_size: int
    inner_size: int


def _block_lists(model: nn.Module) -> Iterator[tuple[str, nn.ModuleList]]:
    from torch import nn

    for path, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) > 0 and len({type(child) for child in module}) == 1:
            yield path, module


def _linears(module: nn.Module) -> dict[str, nn.Linear]:
    from torch import nn

    return {path: child for path, child in module.named_modules() if isinstance(child, nn.Linear)}


def _mlp_in_block(block: nn.Module, block_path: str, hidden_size: int) -> list[MlpMatrices]:
    # A mixture's shared expert looks like a dense MLP; editing it alone would leave the routed experts as they are.
    if any("expert" in path for path, _ in block.named_modules()):
        return []
    found = []
    for path, module in block.named_modules():
        linears = _linears(module)
        if path == "" or not 2 <= len(linears) <= 3:
            continue
        down = [name for name, linear in linears.items() if linear.out_features == hidden_size]
        inner = [name for name, linear in linears.items() if linear.in_features == hidden_size and name not in down]
        if len(down) != 1 or len(down) + len(inner) != len(linears):
            continue
        width = linears[down[0]].in_features
        if any(linears[name].out_features != width for name in inner):
            continue
        gates = [name for name in inner if "gate" in name or name.endswith("w1")]
        if len(inner) == 2 and len(gates) != 1:
            continue
        roles = {
            ("gate" if name in gates and len(inner) == 2 else "up"): f"{block_path}.{path}.{name}" for name in inner
        }
        found.append(
            MlpMatrices(block_path, f"{block_path}.{path}", roles, f"{block_path}.{path}.{down[0]}", hidden_size, width)
        )
    return found


def locate_mlps(model: nn.Module) -> list[MlpMatrices]:
    """The MLP matrices of every block, shallow to deep.

    Raises:
        UnsupportedModel: the model has no uniform list of blocks, or a block holds no dense MLP of linear layers, or
        more than one.
    """
    config = getattr(model, "config", None)
    text_config = config.get_text_config() if config is not None and hasattr(config, "get_text_config") else config
    hidden_size = getattr(text_config, "hidden_size", None)
    lists = sorted(_block_lists(model), key=lambda item: -len(item[1]))
    if hidden_size is None or not lists:
        raise UnsupportedModel(
            f"{type(model).__name__} has no list of transformer blocks; "
            "lingualign edits decoder-only transformers from Hugging Face"
        )
    path, blocks = lists[0]
    located = []
    for index, block in enumerate(blocks):
        block_path = f"{path}.{index}"
        found = _mlp_in_block(block, block_path, hidden_size)
        if len(found) != 1:
            kinds = sorted({type(child).__name__ for child in block.modules() if child is not block})
            raise UnsupportedModel(
                f"block {block_path} of {type(model).__name__} holds {len(found)} dense MLPs where one is needed "
                f"(modules: {', '.join(kinds[:8])}); mixtures of experts and fused projections are not supported yet"
            )
        located.append(found[0])
    return located
