"""How long work tells that it goes on: one function, called with a stage's name and how much of it is done."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called as work goes on; `done == total` ends a stage. Whoever calls does not care how it is shown."""

    def __call__(self, stage: str, done: int, total: int, /) -> None: ...


def silent(stage: str, done: int, total: int, /) -> None:
    """Shows nothing."""
