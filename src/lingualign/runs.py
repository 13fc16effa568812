"""The run folder: what makes a killed command resume, and a changed one refuse.

`run.json` names everything the files in the folder depend on. Every file is append-only, or written to a temporary
name and renamed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lingualign.disk import writing
from lingualign.errors import FingerprintMismatch, UserError
from lingualign.hardware import peak_memory

RUN_FILE = "run.json"
LOCK_FILE = ".lock"


def write_text(path: Path, text: str) -> Path:
    """Writes UTF-8 text as `write_bytes` does. Lone surrogates become `?`."""
    return write_bytes(path, text.encode("utf-8", errors="replace"))


def write_bytes(path: Path, content: bytes) -> Path:
    """Writes a file so that `path` holds either its old content or all of the new.

    Raises:
        NotEnoughMemory: the disk is full.
        UserError: the file cannot be written for another reason.
    """
    # One name, not a random one: a kill leaves at most one partial file, and the next write takes it over.
    partial = path.with_name(f".{path.name}.partial")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError:
            # On a full disk, half a file would take the room that the next command needs.
            partial.unlink(missing_ok=True)
            raise
    return path


def write_json(path: Path, value: Any) -> Path:
    """Writes `value` as indented JSON, atomically. Escaped to ASCII, so that hostile text cannot break a reader."""
    return write_text(path, json.dumps(value, indent=2, ensure_ascii=True) + "\n")


def content_hash(value: Any) -> str:
    """First 16 hexadecimal digits of the SHA-256 of a JSON-serialisable value; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=True).encode()).hexdigest()[:16]


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Makes a folder and holds its lock for the duration of a `with` block.

    The lock is the operating system's: it goes with the process that holds it, however that ends.

    Raises:
        UserError: another process holds the lock, or the folder cannot be written to.
    """
    from filelock import FileLock, Timeout

    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file; give --out a folder")
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / LOCK_FILE).acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"another lingualign process works in {path}; wait for it or use another --out folder"
        ) from None
    except OSError as error:
        raise UserError(f"cannot write to {path} ({error.strerror}); use another --out folder") from error
    with lock:
        yield


class RunFolder:
    """A folder that one process works in, bound to what its files depend on. Made by `RunFolder.open`.

    Attributes:
        path: the folder.
        timings: seconds by stage, summed over all the processes that worked here.
        memory: bytes at each stage's peak, of main memory (`resident`) and of tensors on a GPU (`device`).
    """

    def __init__(
        self, path: Path, fingerprint: dict[str, str], timings: dict[str, float], memory: dict[str, dict[str, int]]
    ) -> None:
        self.path = path
        self._fingerprint = fingerprint
        self.timings = timings
        self.memory = memory

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: Path, fingerprint: Mapping[str, str]) -> Iterator[RunFolder]:
        """Creates a run folder or resumes one, and holds its lock for the duration of a `with` block.

        Args:
            path: the folder; made where it does not exist.
            fingerprint: what the run depends on, by a name that a person understands.

        Raises:
            FingerprintMismatch: the folder was made with something else; names what.
            UserError: another process works in the folder, or it is not a run folder.
        """
        if path.is_dir() and any(path.iterdir()) and not any((path / name).is_file() for name in (RUN_FILE, LOCK_FILE)):
            raise UserError(f"{path} holds other files and is no run folder; use another --out folder")
        with locked(path):
            folder = cls(path, *_read(path / RUN_FILE))
            folder.bind(fingerprint)
            yield folder

    @staticmethod
    def check(path: Path, fingerprint: Mapping[str, str]) -> None:
        """Checks what a folder records, if it is there, and changes nothing: before a model takes a minute to load.

        Raises:
            FingerprintMismatch: the folder was made with something else; names what.
        """
        _compare(path, _read(path / RUN_FILE)[0], fingerprint)

    def bind(self, fingerprint: Mapping[str, str]) -> None:
        """Checks what was recorded and records what was not, such as the edit's settings once there is an edit.

        Raises:
            FingerprintMismatch: something recorded is different now; names it.
        """
        _compare(self.path, self._fingerprint, fingerprint)
        self._fingerprint.update(fingerprint)
        self._write()

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the time spent in the block to the stage's, also when it is interrupted, and keeps its memory's peak."""
        start = time.perf_counter()
        try:
            with peak_memory() as peak:
                yield
        finally:
            self.timings[stage] = round(self.timings.get(stage, 0.0) + time.perf_counter() - start, 3)
            before = self.memory.get(stage, {})
            self.memory[stage] = {name: max(before.get(name, 0), value) for name, value in asdict(peak).items()}
            self._write()

    def _write(self) -> None:
        content = {"fingerprint": self._fingerprint, "timings": self.timings, "memory": self.memory}
        write_json(self.path / RUN_FILE, content)


def _compare(path: Path, recorded: Mapping[str, str], fingerprint: Mapping[str, str]) -> None:
    for name, value in fingerprint.items():
        if recorded.get(name, value) != value:
            raise FingerprintMismatch(
                f"{path} was made with another {name} ({recorded[name]}, now {value}); "
                "use another --out folder, or delete this one"
            )


def _read(path: Path) -> tuple[dict[str, str], dict[str, float], dict[str, dict[str, int]]]:
    if not path.is_file():
        return {}, {}, {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return dict(content["fingerprint"]), dict(content["timings"]), dict(content.get("memory", {}))
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is damaged; use another --out folder, or delete this one") from None
