"""Killing a run at random moments loses nothing: the same command ends with the same replies and the same edit."""

from __future__ import annotations

import contextlib
import os
import random
import time
from pathlib import Path

import pytest

from cli.conftest import run_command, write_settings
from cli.kills import kill, start
from lingualign.edit import Edit
from lingualign.evaluate.store import ReplyStore

KILLS = 8


def _state(folder: Path) -> dict[str, int]:
    """Sizes of the files of the work so far. What goes while it is looked at is passed over, folders too, where
    `Path.rglob` raises."""
    sizes = {}
    for within, _, names in os.walk(folder):
        for path in (Path(within, name) for name in names):
            with contextlib.suppress(FileNotFoundError):
                sizes[str(path)] = path.stat().st_size
    return sizes


def _kill_at_work(arguments: tuple[object, ...], folder: Path, changes: int, delay: float) -> bool:
    """Kills a command some changes of the files and a moment into its work; whether it was still at it."""
    process = start(*arguments)
    seen = _state(folder)
    while process.is_alive() and changes:
        if (now := _state(folder)) != seen:
            seen, changes = now, changes - 1
        time.sleep(0.0005)
    time.sleep(delay)
    return kill(process)


def _replies(path: Path) -> dict[tuple[str, str, str], object]:
    return {reply.key: reply for reply in ReplyStore(path).load()}


@pytest.mark.parametrize(
    ("name", "propagation"), [("run", "none"), ("audit", "none"), ("edit", "none"), ("edit", "sequential")]
)
def test_killed_command_ends_as_an_undisturbed_one(
    name: str, propagation: str, tiny_model_folder: Path, prompts_file: Path, tmp_path: Path
) -> None:
    settings = write_settings(tmp_path / "settings.toml", prompts_file, f'propagation = "{propagation}"').resolve()
    settings.write_text(settings.read_text().replace("batch_size = 4", "batch_size = 2"))
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    if name == "edit":
        calm, killed = calm / "edit.safetensors", killed / "edit.safetensors"
    shared = (name, tiny_model_folder, "--config", settings, "--out")
    assert run_command(*shared, calm) == 0

    moments, most = random.Random(0), 2 if name == "edit" else 5
    killed_at_work = sum(
        _kill_at_work((*shared, killed), killed.parent, moments.randint(1, most), moments.uniform(0, 0.02))
        for _ in range(KILLS)
    )
    assert killed_at_work >= 1
    assert run_command(*shared, killed) == 0

    if name == "edit":
        assert Edit.load(killed).fingerprint == Edit.load(calm).fingerprint
        assert not list(killed.parent.glob("*.partial"))
        return
    for file in ("before.jsonl", "after.jsonl") if name == "run" else ("before.jsonl",):
        assert _replies(killed / file) == _replies(calm / file)
    if name == "run":
        assert Edit.load(killed / "edit.safetensors").fingerprint == Edit.load(calm / "edit.safetensors").fingerprint
    assert {path.name for path in killed.iterdir()} == {path.name for path in calm.iterdir()}
