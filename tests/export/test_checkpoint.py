"""Baking an edit into a checkpoint: only declared bytes change; every way to go wrong is refused, with nothing left."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import lingualign.edit
from lingualign.edit import CONFIG_MARK, Edit, LowRankDelta, tensor_fingerprint
from lingualign.errors import ConfigError, FingerprintMismatch, NotEnoughMemory, UnsupportedModel, UserError
from lingualign.export import checkpoint, copying
from lingualign.export.checkpoint import export_checkpoint, source_folder
from lingualign.models.stored import read_header

DOWN, GATE = "model.layers.1.mlp.down_proj.weight", "model.layers.2.mlp.gate_proj.weight"


def make_edit(tensors: dict[str, torch.Tensor]) -> Edit:
    """All of one output matrix, and three rows of one gate matrix."""
    generator = torch.Generator().manual_seed(5)
    down, gate = tensors[DOWN], tensors[GATE]
    rows = torch.tensor([0, 7, 40])
    draw = lambda *shape: torch.randn(*shape, generator=generator) * 0.1  # noqa: E731
    deltas = {
        DOWN: LowRankDelta(draw(down.shape[0], 4), draw(down.shape[1], 4), (down.shape[0], down.shape[1])),
        GATE: LowRankDelta(draw(3, 2), draw(gate.shape[1], 2), (gate.shape[0], gate.shape[1]), rows=rows),
    }
    base = {name: tensor_fingerprint(tensors[name]) for name in deltas}
    return Edit(deltas, base, {"method": "test", "anchor_languages": ["it"], "reference": "en"})


@pytest.fixture
def source(tiny_model_folder: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    shutil.copytree(tiny_model_folder, folder)
    return folder


@pytest.fixture
def edit(source: Path) -> Edit:
    return make_edit(load_file(source / "model.safetensors"))


def rewrite(source: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(source / "model.safetensors").items()}
    save_file(change(tensors), source / "model.safetensors", metadata={"format": "pt"})


def shard(source: Path) -> None:
    """Splits the single file into two shards with an index."""
    tensors = {name: tensor.clone() for name, tensor in load_file(source / "model.safetensors").items()}
    (source / "model.safetensors").unlink()
    names = sorted(tensors)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, source / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(part, file))
    (source / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def assert_nothing_written(tmp_path: Path, source: Path, before: dict[str, bytes]) -> None:
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]
    assert contents(source) == before


# What is written


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sharded", [False, True])
def test_only_the_changed_tensors_bytes_differ(source: Path, tmp_path: Path, dtype: torch.dtype, sharded: bool) -> None:
    rewrite(source, lambda tensors: {name: tensor.to(dtype) for name, tensor in tensors.items()})
    original = load_file(source / "model.safetensors")
    edit = make_edit(original)
    if sharded:
        shard(source)
    before = contents(source)
    out = export_checkpoint(source, edit, tmp_path / "deep" / "out")
    after = contents(out)
    assert contents(source) == before
    assert set(after) == {*before, "README.md"}
    changed_files = {name for name, data in after.items() if before.get(name) != data}
    weights = {name for name in before if name.endswith(".safetensors")}
    assert changed_files - weights == {"config.json", "README.md"}

    touched = set()
    for file in weights:
        old, new = bytearray(before[file]), bytearray(after[file])
        assert len(old) == len(new)
        for name, stored in read_header(source / file).items():
            if name in edit.deltas:
                delta = edit.deltas[name]
                dense = torch.zeros(delta.shape)
                dense[slice(None) if delta.rows is None else delta.rows] = delta.out_factor @ delta.in_factor.T
                # One rounding of the float32 sum.
                expected = (original[name].float() + dense).to(dtype)
                assert new[stored.start : stored.stop] == expected.view(torch.uint8).numpy().tobytes()
                old[stored.start : stored.stop] = new[stored.start : stored.stop]
                touched.add(name)
        assert old == new
    assert touched == set(edit.deltas)


def test_every_other_byte_is_the_sources(source: Path, edit: Edit, tmp_path: Path) -> None:
    out = export_checkpoint(source, edit, tmp_path / "out")
    old, new = (bytearray((folder / "model.safetensors").read_bytes()) for folder in (source, out))
    assert len(old) == len(new)
    header = read_header(source / "model.safetensors")
    rows = edit.deltas[GATE].rows
    assert rows is not None
    width = 4 * edit.deltas[GATE].shape[1]
    ranges = [(header[DOWN].start, header[DOWN].stop)]
    ranges += [(header[GATE].start + row * width, header[GATE].start + (row + 1) * width) for row in rows.tolist()]
    for start, stop in ranges:
        assert old[start:stop] != new[start:stop]
        old[start:stop] = new[start:stop] = bytes(stop - start)
    assert old == new


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_many_blocks_of_rows_are_the_edit_in_memory(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, transposed: bool
) -> None:
    # More blocks than wait for the copy, the last of them shorter.
    rewrite(source, lambda tensors: {name: tensor.to(dtype) for name, tensor in tensors.items()})
    weights = {name: tensor.clone() for name, tensor in load_file(source / "model.safetensors").items()}
    edit = make_edit({name: weights[name].T if transposed else weights[name] for name in (DOWN, GATE)})
    deltas = {name: replace(delta, transposed=transposed) for name, delta in edit.deltas.items()}
    edit = Edit(deltas, {name: tensor_fingerprint(weights[name]) for name in deltas})
    height, width = weights[DOWN].shape
    assert height % 3
    monkeypatch.setattr(checkpoint, "_BLOCKS_AHEAD", 4)
    monkeypatch.setattr(lingualign.edit, "_VALUES_AT_ONCE", 3 * width)
    out = export_checkpoint(source, edit, tmp_path / "out")
    for name, delta in deltas.items():
        delta.add_to(weights[name])
        assert torch.equal(load_file(out / "model.safetensors")[name], weights[name])
        change = delta.dense().T if transposed else delta.dense()
        expected = (load_file(source / "model.safetensors")[name].float() + change).to(dtype)
        torch.testing.assert_close(weights[name], expected)


def test_loaded_export_equals_the_applied_edit(
    source: Path, edit: Edit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: tuple[Any, Any]
) -> None:
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(lingualign.edit, "_VALUES_AT_ONCE", 7 * edit.deltas[DOWN].shape[1])
    out = export_checkpoint(source, edit, tmp_path / "out")
    baked = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    model, _ = tiny_model
    with edit.applied(model), torch.no_grad():
        expected = dict(model.named_parameters())
        for name, parameter in baked.named_parameters():
            assert torch.equal(parameter, expected[name]), name
    # The mark survives loading, so the baked model is not edited twice.
    with pytest.raises(FingerprintMismatch, match="already edited"), edit.applied(baked):
        pass


def test_card_and_mark(source: Path, edit: Edit, tmp_path: Path) -> None:
    (source / "README.md").write_text("---\nlicense: mit\n---\n# Base model\n", encoding="utf-8")
    out = export_checkpoint(source, edit, tmp_path / "out")
    card = (out / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlicense: mit\n---\n# Base model\n\n## Edited with lingualign")
    assert DOWN in card
    assert "carried to: it" in card
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert config.pop(CONFIG_MARK) == {"method": "test", "tensors": sorted(edit.deltas)}
    assert config == json.loads((source / "config.json").read_text(encoding="utf-8"))


def test_unedited_weights_in_other_formats_stay_behind(source: Path, edit: Edit, tmp_path: Path) -> None:
    for name in ("pytorch_model.bin", "consolidated.safetensors", "original/consolidated.00.pth", "model.gguf"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes(b"unedited")
    (source / "notes").mkdir()
    (source / "notes" / "licence.txt").write_text("kept")
    out = export_checkpoint(source, edit, tmp_path / "out")
    names = set(contents(out))
    assert "notes/licence.txt" in names
    assert not {name for name in names if name.endswith((".bin", ".pth", ".gguf")) or "consolidated" in name}


@pytest.mark.parametrize("prefix", ["", "language_model.model.", "transformer."])
def test_stored_names_without_or_with_another_wrapper_are_found(
    source: Path, edit: Edit, tmp_path: Path, prefix: str
) -> None:
    rewrite(source, lambda tensors: {prefix + name.removeprefix("model."): tensor for name, tensor in tensors.items()})
    out = export_checkpoint(source, edit, tmp_path / "out")
    stored = prefix + DOWN.removeprefix("model.")
    changed = load_file(out / "model.safetensors")[stored] - load_file(source / "model.safetensors")[stored]
    torch.testing.assert_close(changed, edit.deltas[DOWN].dense(), rtol=1e-3, atol=1e-5)


def test_symlinked_files_of_a_hub_cache_become_real_files(source: Path, edit: Edit, tmp_path: Path) -> None:
    blob = tmp_path / "blob"
    shutil.move(source / "model.safetensors", blob)
    blob.chmod(0o444)
    (source / "model.safetensors").symlink_to(blob)
    before = blob.read_bytes()
    out = export_checkpoint(source, edit, tmp_path / "out")
    assert not (out / "model.safetensors").is_symlink()
    assert blob.read_bytes() == before
    assert (out / "model.safetensors").read_bytes() != before


def test_leftovers_of_a_killed_export_do_not_matter(source: Path, edit: Edit, tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "half.txt").write_text("half")
    out = export_checkpoint(source, edit, tmp_path / "out")
    assert not (out / "half.txt").exists()
    assert not (tmp_path / "out.partial").exists()


# What is refused


def _other_base(name: str) -> Callable[[Path, Edit], Edit]:
    """One value at the end of one weight differs."""

    def last_value(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        tensors[name][-1, -1] += 1
        return tensors

    def spoil(source: Path, edit: Edit) -> Edit:
        rewrite(source, last_value)
        return edit

    return spoil


def _missing_name(source: Path, edit: Edit) -> Edit:
    rewrite(source, lambda tensors: {name: tensor for name, tensor in tensors.items() if name != GATE})
    return edit


def _quantised(source: Path, edit: Edit) -> Edit:
    rewrite(source, lambda tensors: {**tensors, DOWN: tensors[DOWN].to(torch.int8)})
    return edit


def _other_shape(source: Path, edit: Edit) -> Edit:
    rewrite(source, lambda tensors: {**tensors, DOWN: tensors[DOWN].T.contiguous()})
    return edit


def _already_edited(source: Path, edit: Edit) -> Edit:
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    (source / "config.json").write_text(json.dumps({**config, CONFIG_MARK: edit.mark()}))
    return edit


def _truncated(source: Path, edit: Edit) -> Edit:
    data = (source / "model.safetensors").read_bytes()
    (source / "model.safetensors").write_bytes(data[:-100])
    return edit


def _truncated_header(source: Path, edit: Edit) -> Edit:
    (source / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes()[:60])
    return edit


def _empty_file(source: Path, edit: Edit) -> Edit:
    (source / "model.safetensors").write_bytes(b"")
    return edit


def _missing_shard(source: Path, edit: Edit) -> Edit:
    shard(source)
    (source / "model-00002-of-00002.safetensors").unlink()
    return edit


def _truncated_index(source: Path, edit: Edit) -> Edit:
    shard(source)
    index = source / "model.safetensors.index.json"
    index.write_text(index.read_text()[:-20])
    return edit


def _no_weights(source: Path, edit: Edit) -> Edit:
    (source / "model.safetensors").unlink()
    return edit


def _no_config(source: Path, edit: Edit) -> Edit:
    (source / "config.json").unlink()
    return edit


@pytest.mark.parametrize(
    ("break_it", "kind", "message"),
    [
        (_other_base(DOWN), FingerprintMismatch, f"{DOWN} is not the weight this edit was made for"),
        (_other_base(GATE), FingerprintMismatch, f"{GATE} is not the weight this edit was made for"),
        (_missing_name, UnsupportedModel, "does not hold"),
        (_quantised, UnsupportedModel, "stored as I8"),
        (_other_shape, UnsupportedModel, "of shape"),
        (_already_edited, FingerprintMismatch, "already edited"),
        (_truncated, UserError, "truncated"),
        (_truncated_header, UserError, "truncated"),
        (_empty_file, UserError, "truncated"),
        (_missing_shard, UserError, "missing"),
        (_truncated_index, UserError, "not JSON"),
        (_no_weights, UserError, "no safetensors weights"),
        (_no_config, UserError, "config.json"),
    ],
)
def test_bad_checkpoints_are_refused_in_one_line_with_nothing_written(
    source: Path,
    edit: Edit,
    tmp_path: Path,
    break_it: Callable[[Path, Edit], Edit],
    kind: type[UserError],
    message: str,
) -> None:
    edit = break_it(source, edit)
    before = contents(source)
    with pytest.raises(kind, match=message) as caught:
        export_checkpoint(source, edit, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert_nothing_written(tmp_path, source, before)


def test_existing_output_is_refused_and_left_alone(source: Path, edit: Edit, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="exists; remove it"):
        export_checkpoint(source, edit, tmp_path / "out")
    assert contents(tmp_path / "out") == {"mine.txt": b"mine"}


def test_output_inside_the_source_is_refused(source: Path, edit: Edit, tmp_path: Path) -> None:
    before = contents(source)
    with pytest.raises(ConfigError, match="inside the checkpoint"):
        export_checkpoint(source, edit, source / "out")
    assert_nothing_written(tmp_path, source, before)


def test_full_disk_is_noticed_before_anything_is_copied(
    source: Path, edit: Edit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    size = (source / "model.safetensors").stat().st_size
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(10**9, 0, size))
    before = contents(source)
    with pytest.raises(NotEnoughMemory, match="GB left"):
        export_checkpoint(source, edit, tmp_path / "out")
    assert_nothing_written(tmp_path, source, before)


@pytest.mark.parametrize(("where", "name"), [(LowRankDelta, "add_to_block"), (copying, "_write")])
def test_failure_in_either_thread_leaves_nothing(
    source: Path, edit: Edit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: object, name: str
) -> None:
    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(where, name, broken)
    before = contents(source)
    with pytest.raises(KeyboardInterrupt):
        export_checkpoint(source, edit, tmp_path / "out")
    assert_nothing_written(tmp_path, source, before)


# Where checkpoints come from


def test_source_folder(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    assert source_folder(str(source)) == source
    asked = {}

    def download(name: str, *, revision: str | None, ignore_patterns: list[str]) -> str:
        asked.update(name=name, revision=revision, ignored=ignore_patterns)
        return str(source)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert source_folder("someone/model", "v1") == source
    assert asked["name"] == "someone/model"
    assert asked["revision"] == "v1"
    assert "*.safetensors" not in asked["ignored"]

    def unreachable(_name: str, **_options: object) -> str:
        raise LocalEntryNotFoundError("no network\nsecond line")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(UserError, match="give a local folder or a hub id") as caught:
        source_folder("someone/model")
    assert "\n" not in str(caught.value)
