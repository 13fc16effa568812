"""Processes that read features together: each passes its share of the chats through its own copy of the model, and
what they read is summed with torch.distributed.

Without a process group everything here is what one process does. The sums of the ranks are taken in another order than
those of one process, so an edit is the same up to rounding.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

_Item = TypeVar("_Item")
_Key = TypeVar("_Key")


@contextmanager
def joined() -> Iterator[tuple[int, int]]:
    """Within, the processes that `torchrun` started are ranks of one group; gives (rank, number of ranks), which is
    (0, 1) for a process by itself."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield rank(), size()
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield rank(), size()
    finally:
        dist.destroy_process_group()


def own_device() -> str | None:
    """The GPU of a process that `torchrun` started, where there are any."""
    return f"cuda:{os.environ['LOCAL_RANK']}" if size() > 1 and torch.cuda.is_available() else None


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def share(items: Sequence[_Item], weight: Callable[[_Item], int]) -> list[int]:
    """Indices of this rank's items. Neighbours by weight go to different ranks, so that the shares weigh about the
    same."""
    if size() == 1:
        return list(range(len(items)))
    order = sorted(range(len(items)), key=lambda index: weight(items[index]))
    return order[rank() :: size()]


def total(part: Tensor) -> Tensor:
    """The sum over the ranks, in place; every rank must ask for it, with a tensor of the same shape and dtype."""
    if size() > 1:
        dist.all_reduce(part)
    return part


def largest(number: int) -> int:
    """The largest of the ranks' numbers."""
    if size() == 1:
        return number
    found = torch.tensor(number)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)


def united(part: dict[_Key, _Item]) -> dict[_Key, _Item]:
    """What all ranks hold, which have no key in common."""
    if size() == 1:
        return part
    parts: list[dict[_Key, _Item] | None] = [None] * size()
    dist.all_gather_object(parts, part)
    return {key: item for held in parts if held is not None for key, item in held.items()}
