"""Work that a thread does ahead: in order, no more than asked for, with its errors where they belong."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from lingualign.export.ahead import worked_ahead


def test_order_and_number_ahead() -> None:
    begun: list[int] = []
    reached = threading.Semaphore(0)

    def items() -> Iterator[int]:
        for number in range(9):
            begun.append(number)
            reached.release()
            yield number

    with worked_ahead(items(), 3) as ahead:
        for _ in range(3):
            assert reached.acquire(timeout=60), "nothing is made before it is asked for"
        assert begun == [0, 1, 2]
        assert next(ahead) == 0
        assert reached.acquire(timeout=60)
        assert begun == [0, 1, 2, 3]
        assert list(ahead) == list(range(1, 9))


def test_an_error_comes_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield 0
        yield 1
        raise ZeroDivisionError

    with worked_ahead(items(), 5) as ahead:
        assert next(ahead) == 0
        assert next(ahead) == 1
        with pytest.raises(ZeroDivisionError):
            next(ahead)


def test_nothing_is_begun_after_the_end() -> None:
    begun: list[int] = []
    first, go_on = threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        for number in range(9):
            begun.append(number)
            first.set()
            assert go_on.wait(60)
            yield number

    def leave() -> None:
        with worked_ahead(items(), 4):
            assert first.wait(60)
            threading.Timer(0.2, go_on.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leave()
    assert begun == [0]
