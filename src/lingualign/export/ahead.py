"""Work done in a thread before its results are asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


@contextmanager
def worked_ahead(items: Iterator[Item], count: int) -> Iterator[Iterator[Item]]:
    """Within, a thread makes up to `count` items while the caller does something else, such as waiting for a disk.

    An error of the thread's is raised where the item that it kept from being made is asked for. At the end of the block
    nothing more is begun.

    Args:
        items: makes the items; none is None.
        count: how many are kept.

    Yields:
        The same items in the same order.
    """

    def make() -> Item | None:
        return next(items, None)

    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
        made = deque(thread.submit(make) for _ in range(count))

        def taken() -> Iterator[Item]:
            while (item := made.popleft().result()) is not None:
                made.append(thread.submit(make))
                yield item

        try:
            yield taken()
        finally:
            thread.shutdown(wait=False, cancel_futures=True)
