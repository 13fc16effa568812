"""Judged replies on disk: append-only JSON lines, each batch safe before the next begins."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from lingualign.errors import DataError
from lingualign.evaluate.schema import Reply


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
        if not self.path.is_file():
            return []
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with self.path.open("r+b") as file:
                file.truncate(whole)
        replies = []
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            try:
                replies.append(Reply(**json.loads(line)))
            except (ValueError, TypeError):
                raise DataError(
                    f"line {number} of {self.path} is damaged; delete the file to have the audit done again"
                ) from None
        return replies

    def append(self, replies: Sequence[Reply]) -> None:
        """Adds replies and returns once they are on the disk. ASCII only: replies may hold lone surrogates."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(asdict(reply), ensure_ascii=True) + "\n" for reply in replies)
        with self.path.open("ab") as file:
            file.write(lines.encode("ascii"))
            file.flush()
            os.fsync(file.fileno())
