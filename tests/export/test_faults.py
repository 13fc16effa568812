"""Exports that are killed, run out of disk, or get a damaged checkpoint: one clear line, and all or nothing."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cli.conftest import run_command
from cli.kills import kills
from lingualign.edit import Edit, LowRankDelta, tensor_fingerprint
from lingualign.errors import NotEnoughMemory, UserError
from lingualign.export import checkpoint
from lingualign.export.checkpoint import export_checkpoint
from lingualign.models.stored import read_header
from small_disks import Mount, fill

SHARDS, BLOCKS, KILLS = 3, 9, 50
INDEX = "model.safetensors.index.json"


def shard_name(number: int) -> str:
    return f"model-{number + 1:05d}-of-{SHARDS:05d}.safetensors"


def weight_name(block: int) -> str:
    return f"model.layers.{block}.mlp.down_proj.weight"


def write_checkpoint(folder: Path, rows: int, columns: int) -> Edit:
    """Random bfloat16 matrices in three shards, and an edit of one matrix in each of the first two."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    tensors = {
        weight_name(block): torch.randn(rows, columns, generator=generator).bfloat16() for block in range(BLOCKS)
    }
    places = {weight_name(block): shard_name(block % SHARDS) for block in range(BLOCKS)}
    for file in set(places.values()):
        save_file({name: tensors[name] for name in tensors if places[name] == file}, folder / file)
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer.json").write_text("{}")
    changed = [weight_name(3), weight_name(4)]
    deltas = {
        name: LowRankDelta(
            torch.randn(rows, 4, generator=generator), torch.randn(columns, 4, generator=generator), (rows, columns)
        )
        for name in changed
    }
    return Edit(deltas, {name: tensor_fingerprint(tensors[name]) for name in changed}, {"method": "test"})


def digests(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file()
    }


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "source"


@pytest.fixture
def edit(source: Path) -> Edit:
    return write_checkpoint(source, 8, 16)


def refusal(source: Path, edit: Edit, out: Path) -> str:
    """The one line of an export that must be refused and leave nothing."""
    there = sorted(out.parent.iterdir()) if out.parent.is_dir() else []
    with pytest.raises(UserError) as caught:
        export_checkpoint(source, edit, out)
    assert (sorted(out.parent.iterdir()) if out.parent.is_dir() else []) == there
    (line,) = str(caught.value).splitlines()
    return line


# Bytes


def test_hash_of_every_byte_range_outside_the_changed_tensors(source: Path, edit: Edit, tmp_path: Path) -> None:
    out = export_checkpoint(source, edit, tmp_path / "out")
    for number in range(SHARDS):
        file = shard_name(number)
        before, after = (source / file).read_bytes(), (out / file).read_bytes()
        assert len(before) == len(after)
        changed = sorted((t.start, t.stop) for name, t in read_header(source / file).items() if name in edit.deltas)
        edges = [0, *(edge for both in changed for edge in both), len(before)]
        for first, last in zip(edges[::2], edges[1::2], strict=True):
            assert hashlib.sha256(before[first:last]).digest() == hashlib.sha256(after[first:last]).digest()
        for first, last in changed:
            assert before[first:last] != after[first:last]
        with safe_open(source / file, framework="pt") as old, safe_open(out / file, framework="pt") as new:
            assert old.metadata() == new.metadata()
    assert (out / INDEX).read_bytes() == (source / INDEX).read_bytes()


def test_shared_blocks_give_the_same_checkpoint(tmp_path: Path, mount: Mount) -> None:
    program = shutil.which("mkfs.btrfs", path=os.environ["PATH"] + ":/sbin:/usr/sbin")
    if program is None:
        pytest.skip("btrfs-progs are not installed")
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(256 * 2**20)
    subprocess.run([program, "-q", str(image)], check=True, capture_output=True)
    disk = mount("-o", "loop", str(image))
    edit = write_checkpoint(disk / "source", 1024, 1024)
    before, size = digests(disk / "source"), 2 * 1024 * 1024 * BLOCKS
    subprocess.run(["sync", "-f", str(disk)], check=True)
    free = shutil.disk_usage(disk).free
    found = digests(export_checkpoint(disk / "source", edit, disk / "out"))
    subprocess.run(["sync", "-f", str(disk)], check=True)
    # Two of nine matrices are new.
    assert free - shutil.disk_usage(disk).free < size / 2
    shutil.copytree(disk / "source", tmp_path / "source")
    assert found == digests(export_checkpoint(tmp_path / "source", edit, tmp_path / "out"))
    assert digests(disk / "source") == before


# Kills


def test_killed_at_any_moment_it_leaves_all_or_nothing(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "work" / "out"
    edit_file = write_checkpoint(source, 1024, 2048).save(tmp_path / "edit.safetensors")
    before = digests(source)
    shared = ("export", source, edit_file, "--quiet", "--out")
    assert run_command(*shared, tmp_path / "calm") == 0
    expected = digests(tmp_path / "calm")
    at_work = leftovers = 0
    for code in kills(*shared, out, times=KILLS):
        at_work += code < 0
        leftovers += out.with_name("out.partial").exists()
        if not out.exists():
            assert run_command(*shared, out) == 0
        assert digests(out) == expected
        assert list(out.parent.iterdir()) == [out]
        shutil.rmtree(out)
    assert digests(source) == before
    assert KILLS // 4 <= at_work < KILLS
    assert leftovers >= 5, "no kill fell into the copying"


# The target's disk


def test_full_disk(source: Path, edit: Edit, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = digests(export_checkpoint(source, edit, source.parent / "elsewhere"))
    # Others fill the disk once the export has begun.
    monkeypatch.setattr(checkpoint, "_check_space", lambda *_: None)
    size = sum(file.stat().st_size for file in source.iterdir())
    for left in range(0, size, 4096):
        filler = fill(small_disk, left)
        with pytest.raises(NotEnoughMemory, match=r"is full; free some of it and give the same command again$"):
            export_checkpoint(source, edit, small_disk / "out")
        assert list(small_disk.iterdir()) == [filler]
        filler.unlink()
        assert digests(export_checkpoint(source, edit, small_disk / "out")) == expected
        shutil.rmtree(small_disk / "out")


def test_read_only_disk(source: Path, edit: Edit, mount: Mount) -> None:
    disk = mount("-t", "tmpfs", "-o", "ro", "tmpfs")
    assert "Read-only file system" in refusal(source, edit, disk / "out")


@pytest.mark.parametrize("name", ["file/out", "out"])
def test_file_in_the_way(source: Path, edit: Edit, tmp_path: Path, name: str) -> None:
    for blocking in ("file", "out.partial"):
        (tmp_path / blocking).write_text("mine")
    assert refusal(source, edit, tmp_path / name).startswith("cannot write ")
    assert (tmp_path / "file").read_text() == (tmp_path / "out.partial").read_text() == "mine"


def test_disk_that_fails(source: Path, edit: Edit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_self: Path, _target: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "replace", fails)
    assert "Input/output error" in refusal(source, edit, tmp_path / "out")


# The source


@pytest.mark.parametrize("number", range(SHARDS))
def test_truncated_shard(source: Path, edit: Edit, tmp_path: Path, number: int) -> None:
    shard = source / shard_name(number)
    whole = shard.read_bytes()
    for length in (0, 4, 8, 40, len(whole) - 1):
        shard.write_bytes(whole[:length])
        assert refusal(source, edit, tmp_path / "out").startswith(f"{shard} is truncated or not a safetensors file")
    shard.write_bytes(whole + b"more")
    assert refusal(source, edit, tmp_path / "out").startswith(f"{shard} is truncated or not a safetensors file")


_ENTRY = {"dtype": "BF16", "shape": [8, 16], "data_offsets": [0, 256]}


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"not json",
        b"[]",
        b"null",
        b'{"a": ' + b"[" * 100_000,
        b'{"\xff": {}}',
        json.dumps({"a": []}).encode(),
        json.dumps({"a": {**_ENTRY, "dtype": "BF17"}}).encode(),
        json.dumps({"a": {**_ENTRY, "dtype": 7}}).encode(),
        json.dumps({"a": {**_ENTRY, "shape": [-8, -16]}}).encode(),
        json.dumps({"a": {**_ENTRY, "shape": [2**40, 2**40]}}).encode(),
        json.dumps({"a": {**_ENTRY, "data_offsets": [-256, 0]}}).encode(),
        json.dumps({"a": {**_ENTRY, "data_offsets": [256, 0]}}).encode(),
        json.dumps({"a": {**_ENTRY, "data_offsets": [0]}}).encode(),
        json.dumps({"a": {**_ENTRY, "data_offsets": [0, 2**70]}}).encode(),
        json.dumps({"a": {"dtype": "BF16", "shape": [8, 16]}}).encode(),
        json.dumps({"a": _ENTRY, "b": {**_ENTRY, "data_offsets": [128, 384]}}).encode(),
        json.dumps({"a": _ENTRY, "b": {**_ENTRY, "data_offsets": [300, 556]}}).encode(),
        json.dumps({"a": _ENTRY, "__metadata__": [1]}).encode(),
    ],
)
def test_impossible_header(source: Path, edit: Edit, tmp_path: Path, header: bytes) -> None:
    shard = source / shard_name(0)
    shard.write_bytes(len(header).to_bytes(8, "little") + header + bytes(256))
    assert refusal(source, edit, tmp_path / "out").startswith(f"{shard} is truncated or not a safetensors file")


@pytest.mark.parametrize("length", [0, 2**20, 2**40, 2**64 - 1])
def test_impossible_header_length(source: Path, edit: Edit, tmp_path: Path, length: int) -> None:
    shard = source / shard_name(0)
    shard.write_bytes(length.to_bytes(8, "little") + shard.read_bytes()[8:])
    assert refusal(source, edit, tmp_path / "out").startswith(f"{shard} is truncated or not a safetensors file")


@given(
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4),
    number=st.integers(0, SHARDS - 1),
)
def test_any_damage_to_a_header_is_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], number: int
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    edit = write_checkpoint(folder / "source", 8, 16)
    shard = folder / "source" / shard_name(number)
    content = bytearray(shard.read_bytes())
    end = 8 + int.from_bytes(content[:8], "little")
    for position, value in changes:
        content[position % end] = value
    shard.write_bytes(content)
    before = digests(folder / "source")
    try:
        out = export_checkpoint(folder / "source", edit, folder / "out")
    except UserError as error:
        line = str(error)
    else:
        line = ""
        for name in edit.deltas:
            file = shard_name(int(name.split(".")[2]) % SHARDS)
            assert not torch.equal(load_file(out / file)[name], load_file(folder / "source" / file)[name])
    assert len(line.splitlines()) <= 1
    assert [path.name for path in folder.iterdir() if path.name != "source"] == ([] if line else ["out"])
    assert digests(folder / "source") == before
    shutil.rmtree(folder)


def _missing_file(index: dict[str, dict[str, str]]) -> object:
    index["weight_map"][weight_name(0)] = "model-00009-of-00003.safetensors"
    return index


def _outside(index: dict[str, dict[str, str]]) -> object:
    index["weight_map"][weight_name(0)] = "../outside.safetensors"
    return index


def _other_shard(index: dict[str, dict[str, str]]) -> object:
    index["weight_map"][weight_name(3)] = shard_name(1)
    return index


def _unknown_tensor(index: dict[str, dict[str, str]]) -> object:
    index["weight_map"]["two\nlines"] = shard_name(1)
    return index


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_missing_file, "which is missing"),
        (_outside, "which is missing"),
        (_other_shard, "which does not hold it"),
        (_unknown_tensor, "which does not hold it"),
        (lambda _index: {"metadata": {}}, "no weight_map"),
        (lambda _index: {"weight_map": [1]}, "no weight_map"),
        (lambda _index: {"weight_map": {"a": 1}}, "no weight_map"),
        (lambda _index: [], "not JSON"),
    ],
)
def test_wrong_index(
    source: Path, edit: Edit, tmp_path: Path, change: Callable[[dict[str, dict[str, str]]], object], message: str
) -> None:
    shutil.copyfile(source / shard_name(0), tmp_path / "outside.safetensors")
    index = source / INDEX
    index.write_text(json.dumps(change(json.loads(index.read_text()))))
    line = refusal(source, edit, tmp_path / "out")
    assert message in line
    assert line.startswith(str(index))


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"null"])
@pytest.mark.parametrize("name", ["config.json", INDEX])
def test_json_that_cannot_be_read(source: Path, edit: Edit, tmp_path: Path, name: str, content: bytes) -> None:
    (source / name).write_bytes(content)
    assert refusal(source, edit, tmp_path / "out").startswith(f"{source / name} is truncated or not JSON")


def test_tensor_in_two_shards(source: Path, edit: Edit, tmp_path: Path) -> None:
    tensors = load_file(source / shard_name(2))
    save_file({**tensors, weight_name(3): torch.zeros(8, 16)}, source / shard_name(2))
    assert f"{weight_name(3)!r} is in {shard_name(2)} and in {shard_name(0)}" in refusal(source, edit, tmp_path / "out")


def _vanish(shard: Path) -> None:
    shard.unlink()


def _shrink(shard: Path) -> None:
    os.truncate(shard, 300)


@pytest.mark.parametrize("damage", [_vanish, _shrink])
@pytest.mark.parametrize("number", range(SHARDS))
def test_source_that_changes_while_it_is_copied(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], None],
    number: int,
) -> None:
    edit = write_checkpoint(source, 64, 1024)
    expected = digests(export_checkpoint(source, edit, tmp_path / "calm"))
    shard = source / shard_name(number)
    whole = LowRankDelta.add_to_block

    def add_to_block(delta: LowRankDelta, rows: torch.Tensor, block: slice) -> None:
        # Called first before any byte behind the first changed tensor, which is in the first shard, is copied.
        if shard.exists() and shard.stat().st_size > 300:
            damage(shard)
        whole(delta, rows, block)

    monkeypatch.setattr(LowRankDelta, "add_to_block", add_to_block)
    try:
        out = export_checkpoint(source, edit, tmp_path / "out")
    except UserError as error:
        (line,) = str(error).splitlines()
        assert str(shard) in line
        assert sorted(path.name for path in tmp_path.iterdir()) == ["calm", "source"]
    else:
        # Only a shard that the copy had opened already.
        assert number == 0
        assert damage is _vanish
        assert digests(out) == expected
