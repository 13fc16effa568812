"""How progress is shown: a live bar on a terminal, a plain line now and then elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

#: Seconds between two plain lines.
INTERVAL = 5.0


class LiveBar:
    """A bar with elapsed and remaining time, gone when its stage is done, so that tables never mix with it."""

    def __init__(self) -> None:
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None
        self._stage = ""

    def __call__(self, stage: str, done: int, total: int, /) -> None:
        if stage != self._stage:
            self.close()
            self._start(stage, done, total)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total)
        if done >= total:
            self.close()

    def close(self) -> None:
        """Takes the bar off the terminal."""
        if self._bar is not None:
            self._bar.stop()
        self._bar, self._stage = None, ""

    def _start(self, stage: str, done: int, total: int) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._stage = stage
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left", markup=False),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task(stage, total=total, completed=done)
        self._bar.start()


class PlainLines:
    """A line at the start of a stage, then at most one every `INTERVAL` seconds, and one at its end."""

    def __init__(self) -> None:
        self._stage = ""
        self._first = 0
        self._started = self._shown = 0.0
        self._ended = False

    def __call__(self, stage: str, done: int, total: int, /) -> None:
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._first, self._started, self._shown, self._ended = stage, done, now, 0.0, False
        if self._ended or (done < total and now - self._shown < INTERVAL):
            return
        self._shown = now
        elapsed = now - self._started
        line = f"{stage}: {done}/{total}, {duration(elapsed)}"
        if self._first < done < total:
            line += f", {duration(elapsed * (total - done) / (done - self._first))} left"
        print(line, file=sys.stderr, flush=True)
        self._ended = done >= total

    def close(self) -> None:
        """Nothing to take back."""


class Silence:
    """Shows nothing."""

    def __call__(self, stage: str, done: int, total: int, /) -> None:
        pass

    def close(self) -> None:
        """Nothing to take back."""


Renderer = LiveBar | PlainLines | Silence


def make_renderer(*, quiet: bool) -> Renderer:
    """The renderer that suits standard error."""
    if quiet:
        return Silence()
    return LiveBar() if sys.stderr.isatty() else PlainLines()


def duration(seconds: float) -> str:
    """A time a person reads: 8 s, 3 min 05 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
