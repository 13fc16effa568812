"""What the system refuses when files are read or written, in one line that names the fix."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lingualign.errors import NotEnoughMemory, UserError

_FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns the system's errors while a file or folder is written into ones a person can act on.

    Raises:
        NotEnoughMemory: the disk, or the user's share of it, is full.
        UserError: the system refuses for another reason.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise NotEnoughMemory(
                f"the disk of {path.parent} is full; free some of it and give the same command again"
            ) from error
        raise UserError(
            f"cannot write {error.filename or path} ({error.strerror or error}); choose another folder, or put right "
            "what keeps it from being written"
        ) from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns the system's errors while a file or folder is read into one that a person can act on.

    Raises:
        UserError: the system refuses; the file may be gone.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error}); put it back, or make it readable") from error
