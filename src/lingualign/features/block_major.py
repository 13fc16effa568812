"""Passes that take all batches through one block before any goes on, so that a streamed model reads each block once.

What is kept of a chat is its hidden states before the block that all have reached, without padding, in the model's
dtype: in memory, or in a file that is mapped where they would be large. Batches stay the same from block to block, and
the same as in a model that is in memory: sums that are rounded otherwise would make another edit in bfloat16.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lingualign.errors import NotEnoughMemory
from lingualign.features.carry import States, Trajectories, WholeTrajectories, block_index, stood_in
from lingualign.features.collect import EndOfPassError, forward, pad
from lingualign.models.chat import EncodedChat
from lingualign.models.stages import StreamedWeights, streamed_weights

if TYPE_CHECKING:
    from lingualign.edit import Edit

#: Chats that go through a model together, in that order.
Batch = tuple[EncodedChat, ...]
#: Hidden states above this many bytes are kept in a mapped file where there is a folder for it.
IN_MEMORY_BYTES = 2 * 1024**3


class HiddenStates:
    """The hidden states of batches of chats at one depth, each chat's (its tokens, hidden size).

    Args:
        batches: whose. A chat in two batches has its states twice, so that every batch can go on by itself.
        folder: where a mapped file may be; None to keep all in memory.
    """

    def __init__(self, batches: Iterable[Batch], folder: Path | None) -> None:
        self.batches: list[Batch] = list(dict.fromkeys(batches))
        self._folder = folder
        self._of: dict[Batch, Sequence[Tensor]] = {}
        self._tuple = 0

    def gather(self, batch: Batch, offsets: Sequence[int], device: torch.device) -> Any:
        """A block's output for a padded batch, as the block gave it: a tensor (B, T, hidden), or a tuple that begins
        with it."""
        states = self._of[batch]
        width = max(offset + len(state) for state, offset in zip(states, offsets, strict=True))
        hidden = states[0].new_zeros(len(states), width, states[0].shape[1])
        for row, (state, offset) in enumerate(zip(states, offsets, strict=True)):
            hidden[row, offset : offset + len(state)] = state
        moved = hidden.to(device)
        return (moved, *[None] * (self._tuple - 1)) if self._tuple else moved

    def scatter(self, batch: Batch, offsets: Sequence[int], output: Any) -> None:
        """Keeps a block's output for a padded batch."""
        self._tuple = len(output) if isinstance(output, tuple) else 0
        hidden = (output[0] if self._tuple else output).detach()
        if not self._of:
            self._allocate(hidden.shape[-1], hidden.dtype)
        for row, (state, offset) in enumerate(zip(self._of[batch], offsets, strict=True)):
            state.copy_(hidden[row, offset : offset + len(state)])

    def _allocate(self, width: int, dtype: torch.dtype) -> None:
        lengths = [len(chat.ids) for batch in self.batches for chat in batch]
        size = sum(lengths) * width * dtype.itemsize
        if self._folder is None or size <= IN_MEMORY_BYTES:
            flat = torch.empty(sum(lengths), width, dtype=dtype)
        else:
            flat = _mapped(self._folder, size, dtype).view(-1, width)
        states = iter(flat.split_with_sizes(lengths))
        self._of = {batch: [next(states) for _ in batch] for batch in self.batches}


def _mapped(folder: Path, size: int, dtype: torch.dtype) -> Tensor:
    """A flat tensor of `size` bytes in a file that is gone when the tensor is, or when the process is killed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(suffix=".hidden", dir=folder) as file:
            # All of its room now, where the system can: a mapped file that meets a full disk later kills the process.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            return torch.from_file(file.name, shared=True, size=size // dtype.itemsize, dtype=dtype)
    except OSError as error:
        raise NotEnoughMemory(
            f"the hidden states of the anchors need {size / 1e9:.1f} GB on the disk of {folder} ({error.strerror}); "
            "free some, or fit on fewer prompts"
        ) from error


class _Lane:
    """Batches on their way through one model: the unedited one, or the one that is edited."""

    def __init__(self, owner: BlockMajor, held: HiddenStates) -> None:
        self._owner = owner
        self.held = held

    def stages(self, modules: Sequence[str]) -> list[tuple[int, list[str]]]:
        """Each block that holds some of the modules."""
        by_block: dict[int, list[str]] = {}
        for module in modules:
            by_block.setdefault(block_index(self._owner.streamed.blocks, module), []).append(module)
        return sorted(by_block.items())

    @contextmanager
    def resumed(self, chats: Sequence[EncodedChat], offsets: Sequence[int], block: int) -> Iterator[bool]:
        """Within, a forward pass over `chats`, one of the batches, starts at `block`, which all are brought to."""
        self._owner.advance(block)
        with self._owner.from_block(self.held, tuple(chats), offsets, block):
            yield False


class BlockMajor:
    """Batches on their way through the unedited model and others on their way through the edited, block by block.

    All go on together, so that a block is read once for all of them.

    Args:
        model: a streamed model.
        unedited: batches that are read in the unedited model.
        edited: batches that are read in the model that is edited block by block.
        pad_id: token id for padding.
        folder: where hidden states may be put into a file; None to keep all in memory.
        on_block: called with the number of blocks that the batches have passed and how many they are to pass.
    """

    def __init__(
        self,
        model: Any,
        unedited: Iterable[Batch],
        edited: Iterable[Batch],
        *,
        pad_id: int = 0,
        folder: Path | None = None,
        on_block: Callable[[int, int], None] | None = None,
    ) -> None:
        found = streamed_weights(model)
        assert found is not None
        self.streamed: StreamedWeights = found
        self._model = model
        self._pad_id = pad_id
        self._on_block = on_block
        self._blocks: nn.ModuleList = model.get_submodule(found.blocks)
        self._edit: Edit | None = None
        self._reached = 0
        self._unedited = _Lane(self, HiddenStates(unedited, folder))
        self._edited = _Lane(self, HiddenStates(edited, folder))

    @property
    def unedited(self) -> States:
        return self._unedited

    @property
    def edited(self) -> States:
        return self._edited

    def follow(self, edit: Edit) -> None:
        """From here on the edited model is edited by this; it changes no block that the batches have gone beyond."""
        self._edit = edit

    def advance(self, block: int) -> None:
        """Brings all batches to `block`, so that their states before it are there."""
        assert block >= self._reached, "blocks are read in order"
        while self._reached < block:
            with self.streamed.edited({}):
                self._through(self._unedited.held, self._reached)
            with self.streamed.edited({} if self._edit is None else self._edit.deltas):
                self._through(self._edited.held, self._reached)
            self._reached += 1
            if self._on_block is not None:
                self._on_block(self._reached, block)

    def _through(self, held: HiddenStates, block: int) -> None:
        """Takes batches through one block."""
        for batch in held.batches:
            ids, mask, offsets = pad(batch, self._pad_id, "right")
            with self.from_block(held, batch, offsets, block), behind(self._blocks[block], held, batch, offsets):
                forward(self._model, ids, mask)

    @contextmanager
    def from_block(self, held: HiddenStates, batch: Batch, offsets: Sequence[int], block: int) -> Iterator[None]:
        """Within, a forward pass starts at a block with what is held of the states before it."""
        output = held.gather(batch, offsets, self.streamed.device) if block else None
        with stood_in(self._blocks, block, output):
            yield


@contextmanager
def behind(block: nn.Module, held: HiddenStates, batch: Batch, offsets: Sequence[int]) -> Iterator[None]:
    """Within, a forward pass over a batch keeps what `block` gives and ends there."""

    def keep(_module: nn.Module, _args: Any, output: Any) -> None:
        held.scatter(batch, offsets, output)
        raise EndOfPassError

    handle = block.register_forward_hook(keep)
    try:
        yield
    finally:
        handle.remove()


class OnePass:
    """One pass over batches through a streamed model from the start, block by block, for what is read once.

    Args:
        model: a streamed model.
        batches: all that will be read.
        folder: as for `BlockMajor`. Each depth has its own states, of which two are there at a time.
    """

    def __init__(self, model: Any, batches: Iterable[Batch], folder: Path | None = None) -> None:
        found = streamed_weights(model)
        assert found is not None
        self._streamed: StreamedWeights = found
        self._blocks: nn.ModuleList = model.get_submodule(found.blocks)
        self._last = 0
        self._batches, self._folder = list(batches), folder
        self._before, self._after, self._at = self._fresh(), self._fresh(), 0

    def _fresh(self) -> HiddenStates:
        return HiddenStates(self._batches, self._folder)

    def stages(self, modules: Sequence[str]) -> list[tuple[int, list[str]]]:
        """Every block down to the last that holds one of the modules."""
        of = {module: block_index(self._streamed.blocks, module) for module in modules}
        self._last = max(of.values())
        return [(block, [module for module in modules if of[module] == block]) for block in range(self._last + 1)]

    @contextmanager
    def resumed(self, chats: Sequence[EncodedChat], offsets: Sequence[int], block: int) -> Iterator[bool]:
        """Within, a forward pass over `chats`, one of the batches, starts at `block`, and unless that is the last it
        goes through all of it."""
        batch = tuple(chats)
        if block != self._at:
            self._before, self._after, self._at = self._after, self._fresh(), block
        output = self._before.gather(batch, offsets, self._streamed.device) if block else None
        with stood_in(self._blocks, block, output):
            if block == self._last:
                yield False
            else:
                with behind(self._blocks[block], self._after, batch, offsets):
                    yield True


def trajectories(
    model: Any,
    blocks: str,
    unedited: Iterable[Batch],
    edited: Iterable[Batch],
    *,
    pad_id: int = 0,
    folder: Path | None = None,
    on_block: Callable[[int, int], None] | None = None,
) -> Trajectories:
    """What suits the model: block by block if it is streamed, else batch by batch. Arguments as for `BlockMajor`;
    `blocks` is the path of the list of blocks."""
    if streamed_weights(model) is None:
        return WholeTrajectories(model, blocks)
    return BlockMajor(model, unedited, edited, pad_id=pad_id, folder=folder, on_block=on_block)
