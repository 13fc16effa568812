"""Bakes an edit into a copy of a checkpoint by overwriting only the changed tensors' bytes in its safetensors files.

The model is never built: a copy of the files and one tensor in memory are all it takes. Layout of a safetensors file:
eight bytes with the header's length (little-endian), the header in JSON (dtype, shape and byte range of each tensor),
then the bytes themselves (https://huggingface.co/docs/safetensors, "Format").
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lingualign.disk import reading
from lingualign.edit import CONFIG_MARK, Edit, LowRankDelta, tensor_fingerprint
from lingualign.errors import ConfigError, FingerprintMismatch, NotEnoughMemory, UnsupportedModel, UserError
from lingualign.export.card import card_section
from lingualign.export.copying import Replacement, copy_replacing
from lingualign.export.folders import new_folder

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
#: Weights in formats that are not edited: a copy would still be the unedited model, a trap for whoever loads it.
_WEIGHTS_NOT_EDITED = (
    "pytorch_model*",
    "*.pth",
    "*.pt",
    "*.gguf",
    "*.onnx",
    "*.onnx_data",
    "*.h5",
    "*.msgpack",
    "*.tflite",
)
_NOT_COPIED = (*_WEIGHTS_NOT_EDITED, "*.safetensors", _INDEX, ".git", ".cache")
#: Leading parts of a parameter's name that differ between a checkpoint and the model class it is loaded into.
_WRAPPERS = {"model", "language_model", "transformer"}


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies: its file, dtype, shape and byte range from the start of the file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    def read(self) -> Tensor:
        """The tensor in its stored dtype.

        Raises:
            UserError: the file is gone, or shorter than its header says.
        """
        buffer = bytearray(self.stop - self.start)
        with reading(self.file), self.file.open("rb") as handle:
            handle.seek(self.start)
            if handle.readinto(buffer) != len(buffer):
                raise UserError(f"{self.file} has become shorter; download the checkpoint again")
        return torch.frombuffer(buffer, dtype=_DTYPES[self.dtype]).reshape(self.shape)


def read_header(file: Path) -> dict[str, StoredTensor]:
    """Tensors of a safetensors file by name.

    Raises:
        UserError: the file cannot be read, is truncated or not in the format.
    """
    from safetensors import SafetensorError, safe_open

    with reading(file), file.open("rb") as handle:
        try:
            # Checks all that the format asks for: dtypes, shapes, ranges without gap or overlap, to the file's end.
            with safe_open(file, framework="pt"):
                length = int.from_bytes(handle.read(8), "little")
                header: dict[str, Any] = json.loads(handle.read(length))
        except (SafetensorError, ValueError):
            raise UserError(f"{file} is truncated or not a safetensors file; download the checkpoint again") from None
    header.pop("__metadata__", None)
    base = 8 + length
    tensors = {}
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        tensors[name] = StoredTensor(file, entry["dtype"], tuple(entry["shape"]), base + start, base + stop)
    return tensors


def _read_json(file: Path) -> dict[str, Any]:
    try:
        with reading(file):
            value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise UserError(f"{file} is truncated or not JSON; download the checkpoint again")
    return value


def read_weights(source: Path) -> tuple[list[Path], dict[str, StoredTensor]]:
    """The safetensors files that transformers loads from a checkpoint folder, and the tensors in them by name.

    Raises:
        UserError: there are none, one is damaged, or the index does not say what is where.
    """
    if (source / _SINGLE).is_file():
        return [source / _SINGLE], read_header(source / _SINGLE)
    index = source / _INDEX
    if not index.is_file():
        raise UserError(
            f"{source} holds no safetensors weights; load the model with transformers and save it with save_pretrained"
        )
    places = _read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise UserError(f"{index} has no weight_map from tensors to files; download the checkpoint again")
    names = sorted(set(places.values()))
    # Also keeps a name with `..` in it from reaching out of the two folders.
    with reading(source):
        there = {file.name for file in source.iterdir()}
    if absent := [name for name in names if name not in there]:
        raise UserError(f"{index} names {absent[0]!r}, which is missing; download the checkpoint again")
    headers = {name: read_header(source / name) for name in names}
    for tensor, name in places.items():
        if tensor not in headers[name]:
            raise UserError(
                f"{index} looks for {tensor!r} in {name}, which does not hold it; download the checkpoint again"
            )
    for name, header in headers.items():
        if elsewhere := [tensor for tensor in header if places.get(tensor, name) != name]:
            raise UserError(
                f"{elsewhere[0]!r} is in {name} and in {places[elsewhere[0]]}; download the checkpoint again"
            )
    return [source / name for name in names], {
        tensor: place for header in headers.values() for tensor, place in header.items()
    }


def _core(name: str) -> str:
    parts = name.split(".")
    while parts[0] in _WRAPPERS:
        parts.pop(0)
    return ".".join(parts)


def _find(stored: Mapping[str, StoredTensor], edit: Edit) -> dict[str, StoredTensor]:
    """Each touched parameter's place, checked: it exists once, can be edited, and is the edit's base."""
    places: dict[str, list[StoredTensor]] = {}
    for name, tensor in stored.items():
        places.setdefault(_core(name), []).append(tensor)
    found = {}
    for name, delta in edit.deltas.items():
        matching = [stored[name]] if name in stored else places.get(_core(name), [])
        if len(matching) != 1:
            raise UnsupportedModel(
                f"the edit changes {name}, which this checkpoint does not hold; use the edit's own base model"
            )
        tensor = matching[0]
        if tensor.dtype not in _DTYPES:
            raise UnsupportedModel(
                f"{name} is stored as {tensor.dtype}, which cannot be edited; use the checkpoint that is not quantised"
            )
        if (
            tensor.shape != delta.stored_shape
            or prod(tensor.shape) * _DTYPES[tensor.dtype].itemsize != tensor.stop - tensor.start
        ):
            raise UnsupportedModel(
                f"the edit expects {name} of shape {delta.stored_shape}, the checkpoint has {tensor.shape}; "
                "use the edit's own base model"
            )
        if tensor_fingerprint(tensor.read()) != edit.base[name]:
            raise FingerprintMismatch(
                f"{name} is not the weight this edit was made for (fingerprint differs); "
                "export onto the base model the edit names"
            )
        found[name] = tensor
    return found


def _files(source: Path, weights: list[Path]) -> list[Path]:
    """What the export holds: the weights, their index, and every file that is no weight in another format."""
    index = [source / _INDEX] if weights != [source / _SINGLE] else []
    others = [
        file
        for file in sorted(source.rglob("*"))
        if file.is_file()
        and not any(fnmatch(part, pattern) for part in file.relative_to(source).parts for pattern in _NOT_COPIED)
    ]
    return [*weights, *index, *others]


def _edited(tensor: StoredTensor, delta: LowRankDelta) -> memoryview:
    weight = tensor.read()
    delta.add_to(weight)
    return weight.view(torch.uint8).numpy().data


def _check_space(needed: int, out: Path) -> None:
    parent = next(folder for folder in out.absolute().parents if folder.is_dir())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise NotEnoughMemory(
            f"the export needs {needed / 1e9:.1f} GB on the disk of {parent}, which has {free / 1e9:.1f} GB left; "
            "free some or choose another folder"
        )


def export_checkpoint(source: Path, edit: Edit, out: Path) -> Path:
    """Copies a checkpoint folder with the edit baked in; loading it needs nothing of lingualign.

    The sum is taken in float32 and rounded once to the stored dtype, as `Edit.applied` does. Every byte outside the
    changed tensors, config.json (which gets the mark that keeps it from being edited twice) and README.md (a section
    on the edit) is the source's. Weights in other formats are left out.

    Args:
        source: folder with config.json and safetensors, single or sharded (`source_folder` finds it for hub names).
        edit: the edit to bake in.
        out: folder to create.

    Returns:
        `out`.

    Raises:
        ConfigError: `out` exists, or lies inside `source`.
        FingerprintMismatch: the checkpoint is already edited, or not the edit's base.
        UnsupportedModel: a tensor is missing, of another shape, or quantised.
        NotEnoughMemory: the disk is too small.
        UserError: the checkpoint is incomplete or damaged.
    """
    if not (source / "config.json").is_file():
        raise UserError(f"{source} holds no config.json; give the folder of a Hugging Face checkpoint")
    if out.resolve().is_relative_to(source.resolve()):
        raise ConfigError(f"{out} lies inside the checkpoint {source}; choose an output folder outside it")
    config = _read_json(source / "config.json")
    if config.get(CONFIG_MARK):
        raise FingerprintMismatch(f"{source} is already edited by lingualign; export onto its base model instead")
    with new_folder(out) as partial:
        weights, stored = read_weights(source)
        found = _find(stored, edit)
        with reading(source):
            sizes = {file: file.stat().st_size for file in _files(source, weights)}
        _check_space(sum(sizes.values()), out)
        for file, size in sizes.items():
            target = partial / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            changed = [
                Replacement(tensor.start, tensor.stop, functools.partial(_edited, tensor, edit.deltas[name]))
                for name, tensor in found.items()
                if tensor.file == file
            ]
            copy_replacing(file, target, size, changed)
        config[CONFIG_MARK] = edit.mark()
        (partial / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        card = partial / "README.md"
        before = card.read_text(encoding="utf-8").rstrip() + "\n\n" if card.is_file() else ""
        card.write_text(before + card_section(edit), encoding="utf-8")
    return out


def source_folder(name: str, revision: str | None = None) -> Path:
    """The checkpoint folder of a local path, of `small` (the built-in model), or of a hub id, downloaded if need be.

    Raises:
        UserError: there is no such folder and the hub does not give one.
    """
    if Path(name).is_dir():
        return Path(name)
    from lingualign.models.load import SMALL_MODEL

    if name == SMALL_MODEL:
        from lingualign.organism.build import small_model_folder

        return small_model_folder()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, ignore_patterns=list(_WEIGHTS_NOT_EDITED)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"cannot find the checkpoint {name}: give a local folder or a hub id you can reach ({type(error).__name__})"
        ) from error
