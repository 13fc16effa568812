"""Bakes an edit into a copy of a checkpoint by overwriting only the changed tensors' bytes in its safetensors files.

The model is never built: a copy of the files and one tensor in memory are all it takes.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Mapping
from fnmatch import fnmatch
from math import prod
from pathlib import Path

import torch

from lingualign.disk import reading
from lingualign.edit import CONFIG_MARK, Edit, LowRankDelta, tensor_fingerprint
from lingualign.errors import ConfigError, FingerprintMismatch, NotEnoughMemory, UnsupportedModel, UserError
from lingualign.export.card import card_section
from lingualign.export.copying import Replacement, copy_replacing
from lingualign.export.folders import new_folder
from lingualign.models.stored import EDITABLE, INDEX, SINGLE, StoredTensor, read_json, read_weights

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
_NOT_COPIED = (*_WEIGHTS_NOT_EDITED, "*.safetensors", INDEX, ".git", ".cache")
#: Leading parts of a parameter's name that differ between a checkpoint and the model class it is loaded into.
_WRAPPERS = {"model", "language_model", "transformer"}


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
        if tensor.dtype not in EDITABLE:
            raise UnsupportedModel(
                f"{name} is stored as {tensor.dtype}, which cannot be edited; use the checkpoint that is not quantised"
            )
        if (
            tensor.shape != delta.stored_shape
            or prod(tensor.shape) * tensor.torch_dtype.itemsize != tensor.stop - tensor.start
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
    index = [source / INDEX] if weights != [source / SINGLE] else []
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
    config = read_json(source / "config.json")
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
