"""Copies of files with some of the bytes replaced, at the speed of `cp` and in little memory."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lingualign.disk import reading
from lingualign.errors import UserError

#: Bytes that are in memory at once. `sendfile` and `copy_file_range` take as much processor time as this.
_BUFFER = 2**20
#: Linux's ioctl that makes one file share the blocks of another until either changes (ioctl_ficlone(2)).
_FICLONE = 0x40049409


@dataclass(frozen=True)
class Replacement:
    """Other bytes for a range of a file.

    Attributes:
        start: first byte of the range.
        stop: the byte behind the range.
        content: makes the new bytes when it is their turn, so that those of one range are in memory at a time.
    """

    start: int
    stop: int
    content: Callable[[], memoryview]


def copy_replacing(source: Path, target: Path, size: int, replacements: Sequence[Replacement] = ()) -> None:
    """Copies a file's contents, but for some ranges. The new file gets the user's own permissions.

    Where the file system can, the copy shares the source's blocks and only the replaced ranges are written. Elsewhere
    every byte is written once and in order, so that a power cut soon after cannot leave a file that is whole and holds
    the old bytes in a range; like `cp`, this does not wait until the bytes are on the disk.

    Args:
        source: the file.
        target: the file to create.
        size: the source's size in bytes.
        replacements: ranges that do not overlap.

    Raises:
        OSError: the target cannot be written.
        UserError: the source cannot be read, or has another size.
    """
    with reading(source):
        reader = source.open("rb")
    with reader, target.open("xb") as writer:
        if os.fstat(reader.fileno()).st_size != size:
            raise _changed(source)
        shared = _share_blocks(reader, writer)
        for replacement in sorted(replacements, key=lambda replacement: replacement.start):
            if not shared:
                _copy(reader, writer, replacement.start - writer.tell())
            writer.seek(replacement.start)
            writer.write(replacement.content())
            reader.seek(replacement.stop)
        if not shared:
            _copy(reader, writer, size - writer.tell())
        elif replacements:
            # The shared blocks are on the disk already: without this, a power cut would bring the old bytes back.
            writer.flush()
            os.fsync(writer.fileno())


def _copy(reader: BinaryIO, writer: BinaryIO, count: int) -> None:
    while count:
        with reading(Path(reader.name)):
            block = reader.read(min(count, _BUFFER))
        if not block:
            raise _changed(Path(reader.name))
        writer.write(block)
        count -= len(block)


def _changed(source: Path) -> UserError:
    return UserError(f"{source} has changed while it was copied; give the same command again once nothing writes to it")


def _share_blocks(reader: BinaryIO, writer: BinaryIO) -> bool:
    """Makes an empty file a copy of another without copying, as btrfs, XFS and others can; whether it did."""
    if sys.platform != "linux":
        return False
    from fcntl import ioctl

    try:
        ioctl(writer.fileno(), _FICLONE, reader.fileno())
    except OSError:
        # Another file system, or one that cannot. Whatever else is wrong, copying meets it too.
        return False
    return True
