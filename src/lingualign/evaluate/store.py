"""Judged replies on disk: append-only JSON lines, each batch safe before the next begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from lingualign.evaluate.schema import Reply
from lingualign.lines import append_lines, damaged, load_lines


class ReplyStore:
    """A file of judged replies, one JSON object a line, in the order in which they were generated.

    Args:
        path: the file; need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> list[Reply]:
        """The stored replies. A last line cut by a kill is removed from the file, so that appending stays safe.

        Raises:
            DataError: a line before the last is damaged.
        """
        replies = []
        for number, row in enumerate(load_lines(self.path), start=1):
            try:
                replies.append(Reply(**row))
            except TypeError:
                raise damaged(self.path, number) from None
        return replies

    def append(self, replies: Sequence[Reply]) -> None:
        """Adds replies and returns once they are on the disk."""
        append_lines(self.path, map(asdict, replies))
