"""New folders that appear complete or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lingualign.disk import writing
from lingualign.errors import ConfigError


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A sibling of `out` to write into; it takes the name `out` when the block ends well, else it goes away.

    Raises:
        ConfigError: `out` exists.
        NotEnoughMemory: the disk is full.
        UserError: the system refuses to write for another reason.
    """
    if out.exists() or out.is_symlink():
        raise ConfigError(f"{out} exists; remove it or choose another output folder")
    partial = out.with_name(out.name + ".partial")
    with writing(out):
        # What a killed export left behind.
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            yield partial
            partial.replace(out)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
