"""Edits and audits that are killed or run out of disk: nothing half-written, and the same command goes on."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path

import pytest

import lingualign.plan
from cli.conftest import Command, run_command, write_settings
from cli.kills import kill, seconds, start
from conftest import fill
from lingualign.edit import Edit
from lingualign.errors import NotEnoughMemory
from lingualign.evaluate.schema import Reply
from lingualign.evaluate.store import ReplyStore
from lingualign.runs import RUN_FILE, RunFolder

KILLS = 50
FULL = "is full; free some of it and give the same command again"


def _folder(path: Path) -> set[str]:
    return {str(file.relative_to(path)) for file in path.rglob("*")}


@pytest.mark.parametrize("propagation", ["none", "sequential"])
def test_edit_killed_at_any_moment(
    propagation: str, tiny_model_folder: Path, prompts_file: Path, tmp_path: Path
) -> None:
    settings = write_settings(tmp_path / "settings.toml", prompts_file, f'propagation = "{propagation}"')
    shared = ("edit", tiny_model_folder, "--config", settings, "--out")
    calm, killed = tmp_path / "calm" / "edit.safetensors", tmp_path / "killed" / "edit.safetensors"
    duration = seconds(*shared, calm)
    expected = Edit.load(calm).fingerprint

    moments, at_work, finished = random.Random(0), 0, 0
    for number in range(KILLS + 1):
        process = start(*shared, killed)
        if number < KILLS:
            time.sleep(duration * moments.random())
            at_work += kill(process)
        process.join()
        if killed.exists():
            # Whole from the moment that it is there; what is left beside it is what an undisturbed edit leaves.
            assert Edit.load(killed).fingerprint == expected
            assert process.exitcode != 0 or run_command(*shared, killed) == 0
            finished += process.exitcode == 0
            shutil.rmtree(killed.parent)
    assert process.exitcode == 0
    assert at_work >= KILLS // 4
