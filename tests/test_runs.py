"""The run folder: atomic files, resume, refusal by name, one process at a time."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lingualign.errors import FingerprintMismatch, NotEnoughMemory, UserError
from lingualign.runs import RUN_FILE, RunFolder, content_hash, locked, write_json, write_text


def test_write_text_replaces_whole_files(tmp_path: Path) -> None:
    path = write_text(tmp_path / "new" / "a.txt", "one")
    assert path.read_text() == "one"
    write_text(path, "two")
    assert path.read_text() == "two"
    assert [file.name for file in path.parent.iterdir()] == ["a.txt"]


def test_interrupted_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_text(tmp_path / "a.txt", "old")

    def fail(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(NotEnoughMemory, match="is full"):
        write_text(path, "new")
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"


def test_lone_surrogates_are_written(tmp_path: Path) -> None:
    assert write_text(tmp_path / "a.txt", "x\ud800y").read_text() == "x?y"
    assert json.loads(write_json(tmp_path / "a.json", {"x": "\ud800"}).read_text()) == {"x": "\ud800"}


def test_content_hash_ignores_order_of_keys_only() -> None:
    assert content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1})
    assert content_hash({"a": 1}) != content_hash({"a": 2})


def test_open_creates_and_resumes(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path / "run", {"model": "m1"}) as folder, folder.timed("audit"):
        pass
    first = folder.timings["audit"]
    with RunFolder.open(tmp_path / "run", {"model": "m1", "judge": "j"}) as folder, folder.timed("audit"):
        pass
    assert folder.timings["audit"] >= first
    recorded = json.loads((tmp_path / "run" / RUN_FILE).read_text())
    assert recorded["fingerprint"] == {"model": "m1", "judge": "j"}


def test_changed_fingerprint_is_refused_by_name(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path / "run", {"model": "m1", "audited prompts": "p1"}):
        pass
    expected = r"made with another audited prompts \(p1, now p2\); use another --out folder, or delete this one"
    with pytest.raises(FingerprintMismatch, match=expected):
        RunFolder.check(tmp_path / "run", {"model": "m1", "audited prompts": "p2"})
    with (
        pytest.raises(FingerprintMismatch, match=expected),
        RunFolder.open(tmp_path / "run", {"model": "m1", "audited prompts": "p2"}),
    ):
        pass
    with RunFolder.open(tmp_path / "run", {"model": "m1"}) as folder:
        folder.bind({"edit": "a"})
        with pytest.raises(FingerprintMismatch, match="another edit"):
            folder.bind({"edit": "b"})


def test_check_writes_nothing(tmp_path: Path) -> None:
    RunFolder.check(tmp_path / "run", {"model": "m1"})
    assert not (tmp_path / "run").exists()


def test_second_process_is_refused(tmp_path: Path) -> None:
    with (
        RunFolder.open(tmp_path, {}),
        pytest.raises(UserError, match="another lingualign process"),
        RunFolder.open(tmp_path, {}),
    ):
        pass


def test_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from lingualign.runs import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(UserError, match="another lingualign process"), locked(tmp_path):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with locked(tmp_path):
        pass


def test_foreign_folders_and_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="no run folder; use another --out"), RunFolder.open(tmp_path, {}):
        pass
    with pytest.raises(UserError, match="is a file"), RunFolder.open(tmp_path / "thesis.txt", {}):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"fingerprint": {}}'])
def test_damaged_run_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / RUN_FILE).write_text(content)
    with pytest.raises(UserError, match=r"run\.json is damaged"), RunFolder.open(tmp_path, {}):
        pass
