"""Edits and audits that are killed or run out of disk: nothing half-written, and the same command goes on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import lingualign.plan
from cli.conftest import Command, run_command, write_settings
from cli.kills import kills
from lingualign.edit import Edit
from lingualign.errors import NotEnoughMemory
from lingualign.evaluate.schema import Reply
from lingualign.evaluate.store import ReplyStore
from lingualign.features import block_major
from lingualign.models.stored import StoredTensor
from lingualign.runs import RUN_FILE, RunFolder
from small_disks import Mount, fill

KILLS = 50
FULL = "is full; free some of it and give the same command again"


def _folder(path: Path) -> set[str]:
    return {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("propagation", "options"), [("none", ()), ("sequential", ()), ("sequential", ("--streamed",))]
)
def test_edit_killed_at_any_moment(
    propagation: str, options: tuple[str, ...], tiny_model_folder: Path, prompts_file: Path, tmp_path: Path
) -> None:
    settings = write_settings(tmp_path / "settings.toml", prompts_file, f'propagation = "{propagation}"')
    shared = ("edit", tiny_model_folder, *options, "--config", settings, "--out")
    calm, killed = tmp_path / "calm" / "edit.safetensors", tmp_path / "killed" / "edit.safetensors"
    assert run_command(*shared, calm) == 0
    expected = Edit.load(calm).fingerprint

    at_work = whole = 0
    for code in kills(*shared, killed, times=KILLS):
        at_work += code < 0
        if killed.exists():
            # Whole from the moment that it is there, after however many kills.
            assert Edit.load(killed).fingerprint == expected
            whole += 1
            shutil.rmtree(killed.parent)
    assert run_command(*shared, killed) == 0
    assert Edit.load(killed).fingerprint == expected
    assert _folder(killed.parent) == _folder(calm.parent)
    assert at_work >= KILLS // 4
    assert whole >= 3


@pytest.fixture
def unplanned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan would refuse at once: others fill the disk once the command has begun."""
    monkeypatch.setattr(lingualign.plan, "free_disk", lambda _where: 2**40)


@pytest.mark.usefixtures("unplanned")
@pytest.mark.parametrize(("name", "options"), [("edit", ()), ("edit", ("--streamed",)), ("audit", ())])
def test_disk_that_fills_up(
    name: str,
    options: tuple[str, ...],
    command: Command,
    tiny_model_folder: Path,
    prompts_file: Path,
    tmp_path: Path,
    small_disk: Path,
) -> None:
    settings = write_settings(tmp_path / "settings.toml", prompts_file)
    shared = (name, tiny_model_folder, *options, "--config", settings, "--quiet", "--out")
    calm, out = tmp_path / "calm" / "edit.safetensors", small_disk / "work" / "edit.safetensors"
    if name == "audit":
        calm, out = calm.parent, out.parent
    assert run_command(*shared, calm) == 0
    needed = sum(file.stat().st_size for file in (tmp_path / "calm").rglob("*") if file.is_file())

    for share in (0.05, 0.3, 0.6, 0.9):
        done = sum(file.stat().st_size for file in small_disk.rglob("*"))
        filler = fill(small_disk, max(0, int(needed * share) - done))
        outcome = command(*shared, out)
        assert outcome.code == 2
        (line,) = outcome.error_lines
        assert "No space left on device" in line or line.endswith(FULL)
        if name == "edit":
            assert not out.exists()
        assert not [file for file in small_disk.rglob("*.partial") if file.is_file()]
        filler.unlink()
    assert command(*shared, out).code == 0
    if name == "edit":
        assert Edit.load(out).fingerprint == Edit.load(calm).fingerprint
    else:
        assert ReplyStore(out / "before.jsonl").load() == ReplyStore(calm / "before.jsonl").load()
    assert _folder(small_disk / "work") == _folder(tmp_path / "calm")


@pytest.mark.usefixtures("unplanned")
def test_disk_too_small_for_the_hidden_states_of_a_streamed_edit(
    command: Command,
    tiny_model_folder: Path,
    prompts_file: Path,
    tmp_path: Path,
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = write_settings(tmp_path / "settings.toml", prompts_file)
    out = small_disk / "edit.safetensors"
    arguments = ("edit", tiny_model_folder, "--streamed", "--config", settings, "--quiet", "--out", out)
    filler = fill(small_disk, 16384)
    with monkeypatch.context() as patch:
        patch.setattr(block_major, "IN_MEMORY_BYTES", 0)
        outcome = command(*arguments)
    assert outcome.code == 2
    (line,) = outcome.error_lines
    assert "the hidden states of the anchors need" in line
    assert "No space left on device" in line
    assert not out.exists()
    assert not list(small_disk.rglob("*.hidden"))
    filler.unlink()
    assert command(*arguments).code == 0
    assert Edit.load(out).deltas


@pytest.mark.parametrize("options", [(), ("--streamed",)])
def test_read_only_disk(
    options: tuple[str, ...], command: Command, tiny_model_folder: Path, settings_file: Path, mount: Mount
) -> None:
    out = mount("-t", "tmpfs", "-o", "ro", "tmpfs") / "work" / "edit.safetensors"
    outcome = command("edit", tiny_model_folder, *options, "--config", settings_file, "--quiet", "--out", out)
    assert outcome.code == 2
    (line,) = outcome.error_lines
    assert line.startswith("error: cannot write to ")
    assert "Read-only file system" in line


@pytest.mark.parametrize("share", [0.4, 0.7, 0.95])
def test_checkpoint_that_is_cut_during_a_streamed_edit(
    share: float,
    command: Command,
    tiny_model_folder: Path,
    settings_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = Path(shutil.copytree(tiny_model_folder, tmp_path / "model"))
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    shared = ("edit", folder, "--streamed", "--config", settings_file, "--quiet", "--out")
    read, reads, cut_at = StoredTensor.read, 0, float("inf")

    def counted(tensor: StoredTensor) -> torch.Tensor:
        nonlocal reads
        reads += 1
        if reads == cut_at:
            weights.write_bytes(whole[: tensor.stop - 1])
        return read(tensor)

    monkeypatch.setattr(StoredTensor, "read", counted)
    calm, out = tmp_path / "calm.safetensors", tmp_path / "out.safetensors"
    assert command(*shared, calm).code == 0
    cut_at, reads = round(share * reads), 0
    outcome = command(*shared, out)
    assert outcome.code == 2
    (line,) = outcome.error_lines
    assert line == f"error: {weights} has become shorter; download the checkpoint again"
    assert not out.exists()
    outcome = command(*shared, out)
    assert outcome.code == 2
    assert outcome.stderr.startswith(f"error: {weights} is truncated or not a safetensors file")
    weights.write_bytes(whole)
    cut_at = float("inf")
    assert command(*shared, out).code == 0
    assert Edit.load(out).fingerprint == Edit.load(calm).fingerprint


def test_replies_on_a_full_disk(small_disk: Path) -> None:
    replies = [Reply(f"s{number}", "en", "harmless", "x" * 3000, 9, True, "answered", 0.0, "") for number in range(9)]
    store = ReplyStore(small_disk / "before.jsonl")
    store.append(replies[:2])
    filler = fill(small_disk, 8192)
    with pytest.raises(NotEnoughMemory, match=FULL):
        store.append(replies[2:])
    filler.unlink()
    # What was cut is gone, what was whole is kept.
    kept = store.load()
    assert replies[:2] == kept[:2]
    assert kept == replies[: len(kept)]
    store.append(replies[len(kept) :])
    assert store.load() == replies


def test_run_folder_on_a_full_disk(small_disk: Path) -> None:
    path = small_disk / "run"
    with RunFolder.open(path, {"model": "a"}) as folder:
        filler = fill(small_disk, 0)
        before = (path / RUN_FILE).read_bytes()
        with pytest.raises(NotEnoughMemory, match=FULL):
            folder.bind({"edit": "b" * 5000})
        assert (path / RUN_FILE).read_bytes() == before
        filler.unlink()
    with RunFolder.open(path, {"model": "a", "edit": "c"}):
        assert not list(path.glob(".*.partial"))
