"""Copies of files with some of the bytes replaced, at the speed of `cp` and in little memory."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from io import FileIO
from pathlib import Path

from lingualign.disk import reading
from lingualign.errors import UserError

#: Bytes that are in memory at once: few enough to be written while they are in the processor's cache. `sendfile` and
#: `copy_file_range` take as much processor time as this.
_BUFFER = 2**18
#: Linux's ioctl that makes one file share the blocks of another until either changes (ioctl_ficlone(2)).
_FICLONE = 0x40049409


def copy_replacing(
    source: Path, target: Path, size: int, ranges: Sequence[tuple[int, int]], content: Iterator[memoryview]
) -> None:
    """Copies a file's contents, but for some ranges. The new file gets the user's own permissions.

    Where the file system can, the copy shares the source's blocks and only the replaced ranges are written. Elsewhere
    every byte is written once and in order, so that a power cut soon after cannot leave a file that is whole and holds
    other bytes in a range; like `cp`, this does not wait until the bytes are on the disk.

    Args:
        source: the file.
        target: the file to create.
        size: the source's size in bytes.
        ranges: first byte and the byte behind the last of each range, in order, without overlap.
        content: their new bytes in pieces, none of which reaches over a range's end; taken as they are needed.

    Raises:
        OSError: the target cannot be written.
        UserError: the source cannot be read, or has another size.
    """
    with reading(source):
        reader = source.open("rb", buffering=0)
    with reader, target.open("xb", buffering=0) as writer:
        if os.fstat(reader.fileno()).st_size != size:
            raise _changed(source)
        shared = _share_blocks(reader, writer)
        for start, stop in ranges:
            if not shared:
                _copy(source, reader, writer, start - writer.tell())
            writer.seek(start)
            while writer.tell() < stop:
                _write(writer, next(content))
            reader.seek(stop)
        if not shared:
            _copy(source, reader, writer, size - writer.tell())
        elif ranges:
            # The shared blocks are on the disk already: without this, a power cut would bring the old bytes back.
            os.fsync(writer.fileno())


def _copy(source: Path, reader: FileIO, writer: FileIO, count: int) -> None:
    buffer = memoryview(bytearray(min(count, _BUFFER)))
    while count:
        with reading(source):
            read = reader.readinto(buffer[:count])
        if not read:
            raise _changed(source)
        _write(writer, buffer[:read])
        count -= read


def _write(writer: FileIO, data: memoryview) -> None:
    # One call may write a part: two gigabytes at most, or what is left on the disk.
    while data:
        data = data[writer.write(data) :]


def _changed(source: Path) -> UserError:
    return UserError(f"{source} has changed while it was copied; give the same command again once nothing writes to it")


def _share_blocks(reader: FileIO, writer: FileIO) -> bool:
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
