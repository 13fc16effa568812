"""Hidden states carried from block to block, so that editing layers in order costs about one forward pass in all.

A later pass over the same chats starts behind the block that an earlier one reached: the blocks before it are stood in
for by modules that hand over what was kept. Everything else (embeddings, masks, rotary tables) is the model's own
code, so any decoder works whose blocks read nothing of each other but the hidden states.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

from lingualign.models.chat import EncodedChat

if TYPE_CHECKING:
    from lingualign.edit import Edit

_Key = tuple[tuple[int, ...], ...]


class States(Protocol):
    """Where passes over chats go on from, and what they leave for later ones."""

    def stages(self, modules: Sequence[str]) -> list[tuple[int, list[str]]]:
        """How the modules are read: a block to start at and what is read from there on, for one pass over all chats
        after the other."""
        ...

    def resumed(self, chats: Sequence[EncodedChat], offsets: Sequence[int], block: int) -> AbstractContextManager[bool]:
        """Within, one forward pass over the batch `chats`, each at its offset, starts at `block` or before. Gives
        whether the pass must go through all of that block; then it ends itself behind it."""
        ...


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


def block_index(blocks: str, module: str) -> int:
    """Index of the block that a module lies in.

    Args:
        blocks: path of the list of blocks.
        module: path of the module.
    """
    return int(module.removeprefix(blocks + ".").partition(".")[0])


@contextmanager
def stood_in(blocks: nn.ModuleList, count: int, output: Any) -> Iterator[None]:
    """Within, the first `count` blocks do not run, and the last of them returns `output`."""
    originals = list(blocks[:count])
    for index, original in enumerate(originals):
        blocks[index] = _StandIn(original, output if index == count - 1 else None)
    try:
        yield
    finally:
        for index, original in enumerate(originals):
            blocks[index] = original


class CarriedStates:
    """The states of batches of chats before a block, kept in memory in the model's dtype.

    They hold as long as no weight before that block changes. Cost: tokens · hidden size · bytes of the dtype.

    Args:
        model: the causal LM.
        blocks: path of its list of blocks, such as `model.layers`.
    """

    def __init__(self, model: Any, blocks: str) -> None:
        self._blocks: nn.ModuleList = model.get_submodule(blocks)
        self._path = blocks
        self._kept: dict[_Key, _Kept] = {}

    def stages(self, modules: Sequence[str]) -> list[tuple[int, list[str]]]:
        """One pass, which starts at the shallowest block."""
        return [(min(block_index(self._path, module) for module in modules), list(modules))]

    @contextmanager
    def resumed(self, chats: Sequence[EncodedChat], offsets: Sequence[int], block: int) -> Iterator[bool]:
        """Within, one forward pass over the batch `chats` starts from what is kept of it, and keeps its states before
        `block`."""
        del offsets
        key = tuple(chat.ids for chat in chats)
        kept = self._kept.get(key)
        start = kept.block if kept is not None and kept.block <= block else 0
        handle = None
        if block > start:

            def keep(_module: nn.Module, _args: Any, output: Any) -> None:
                self._kept[key] = _Kept(block, output)

            handle = self._blocks[block - 1].register_forward_hook(keep)
        try:
            with stood_in(self._blocks, start, None if kept is None else kept.output):
                yield False
        finally:
            if handle is not None:
                handle.remove()


class Trajectories(Protocol):
    """The states of chats in the unedited model, and of chats in the model that is edited block by block."""

    @property
    def unedited(self) -> States: ...

    @property
    def edited(self) -> States: ...

    def follow(self, edit: Edit) -> None:
        """From here on the edited model is edited by this; it changes no block that a pass has gone beyond."""
        ...


class WholeTrajectories:
    """Trajectories of a model in memory, which callers edit themselves (`Edit.applied`)."""

    def __init__(self, model: Any, blocks: str) -> None:
        self.unedited: States = CarriedStates(model, blocks)
        self.edited: States = CarriedStates(model, blocks)

    def follow(self, edit: Edit) -> None:
        del edit
