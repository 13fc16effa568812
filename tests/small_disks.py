"""Disks that are soon full, for tests of what happens then; the fixtures are in conftest.py."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

#: Mounts a file system by options of mount(8), without the place.
Mount = Callable[..., Path]


def fill(disk: Path, left: int) -> Path:
    """Writes one file that leaves about so many bytes of a disk free, and gives it."""
    filler = disk / "filler"
    filler.write_bytes(bytes(max(0, shutil.disk_usage(disk).free - left)))
    return filler
