"""Hidden states carried from block to block, so that editing layers in order costs about one forward pass in all.

A later pass over the same chats starts behind the block that an earlier one reached: the blocks before it are stood in
for by modules that hand over what was kept. Everything else (embeddings, masks, rotary tables) is the model's own
code, so any decoder works whose blocks read nothing of each other but the hidden states.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from lingualign.models.chat import EncodedChat

_Key = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class _Kept:
    """What block `block - 1` returned for a batch: a tensor, or a tuple that begins with it."""

    block: int
    output: Any


class _StandIn(nn.Module):
    """Returns a kept output in place of a block; its attributes are the block's, for what the model asks of it."""

    def __init__(self, block: nn.Module, output: Any) -> None:
        super().__init__()
        self.__dict__["_block"] = block
        self.__dict__["_output"] = output

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_block"], name)

    def forward(self, hidden: Tensor, *_args: Any, **_kwargs: Any) -> Any:
        return self._output if self._output is not None else hidden


class CarriedStates:
    """The states of batches of chats before a block, kept in memory in the model's dtype.

    They hold as long as no weight before that block changes. Cost: tokens · hidden size · bytes of the dtype.

    Args:
        model: the causal LM.
        blocks: path of its list of blocks, such as `model.layers`.
    """

    def __init__(self, model: Any, blocks: str) -> None:
        self._blocks: nn.ModuleList = model.get_submodule(blocks)
        self._prefix = blocks + "."
        self._kept: dict[_Key, _Kept] = {}

    def first_block(self, modules: Sequence[str]) -> int:
        """Index of the shallowest block among the modules' paths."""
        return min(int(module.removeprefix(self._prefix).partition(".")[0]) for module in modules)

    @contextmanager
    def resumed(self, chats: Sequence[EncodedChat], block: int) -> Iterator[None]:
        """Within, one forward pass over the batch `chats` starts from what is kept of it, and keeps its states before
        `block`."""
        key = tuple(chat.ids for chat in chats)
        kept = self._kept.get(key)
        start = kept.block if kept is not None and kept.block <= block else 0
        originals = list(self._blocks[:start])
        for index, original in enumerate(originals):
            last = index == start - 1
            self._blocks[index] = _StandIn(original, kept.output if last and kept is not None else None)
        handle = None
        if block > start:

            def keep(_module: nn.Module, _args: Any, output: Any) -> None:
                self._kept[key] = _Kept(block, output)

            handle = self._blocks[block - 1].register_forward_hook(keep)
        try:
            yield
        finally:
            if handle is not None:
                handle.remove()
            for index, original in enumerate(originals):
                self._blocks[index] = original
