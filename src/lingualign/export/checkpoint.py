"""Bakes an edit into a copy of a checkpoint by overwriting only the changed tensors' bytes in its safetensors files.

The model is never built. The files are copied in one thread; another reads the changed tensors, a block of rows at a
time, checks that they are the edit's base and adds the change, so that the new bytes are there when the copy gets to
their place.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from math import prod
from pathlib import Path

import torch

from lingualign.disk import reading
from lingualign.edit import CONFIG_MARK, Edit, LowRankDelta, fingerprint_bytes
from lingualign.errors import ConfigError, FingerprintMismatch, NotEnoughMemory, UnsupportedModel, UserError
from lingualign.export.ahead import worked_ahead
from lingualign.export.card import card_section
from lingualign.export.copying import copy_replacing
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
#: Blocks of changed rows that wait for the copy: 130 MB in bfloat16, which is one matrix of an 8B model.
_BLOCKS_AHEAD = 128


@dataclass(frozen=True)
class _Change:
    """A stored tensor that the edit changes.

    Attributes:
        name: what the edit calls it.
        tensor: where it is.
        delta: its change.
        base: fingerprint that it must have.
    """

    name: str
    tensor: StoredTensor
    delta: LowRankDelta
    base: str


def _core(name: str) -> str:
    parts = name.split(".")
    while parts[0] in _WRAPPERS:
        parts.pop(0)
    return ".".join(parts)


def _changes(stored: Mapping[str, StoredTensor], edit: Edit) -> list[_Change]:
    """The touched parameters in the order of their bytes, checked: each exists once and can be edited."""
    places: dict[str, list[StoredTensor]] = {}
    for name, tensor in stored.items():
        places.setdefault(_core(name), []).append(tensor)
    found = []
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
        found.append(_Change(name, tensor, delta, edit.base[name]))
    return sorted(found, key=lambda change: change.tensor.start)


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


def _edited(changes: Iterable[_Change]) -> Iterator[memoryview]:
    """The new bytes of changed tensors, in blocks of rows. The last block of each comes once the tensor has turned out
    to be the edit's base.

    Raises:
        FingerprintMismatch: it is not.
        UserError: it cannot be read.
    """
    for change in changes:
        digest = hashlib.sha256()
        blocks = list(change.delta.row_blocks())
        for block, rows in zip(blocks, change.tensor.row_blocks(blocks), strict=True):
            digest.update(fingerprint_bytes(rows))
            if block == blocks[-1] and digest.hexdigest() != change.base:
                raise FingerprintMismatch(
                    f"{change.name} is not the weight this edit was made for (fingerprint differs); "
                    "export onto the base model the edit names"
                )
            change.delta.add_to_block(rows, block)
            yield rows.view(torch.uint8).numpy().reshape(-1).data


@contextmanager
def _one_core_less() -> Iterator[None]:
    """Within, arithmetic leaves a core to the copy: its threads wait for each other busily."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads - 1))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


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
        changes = _changes(stored, edit)
        with reading(source):
            sizes = {file: file.stat().st_size for file in _files(source, weights)}
        _check_space(sum(sizes.values()), out)
        changed_in = {file: [change for change in changes if change.tensor.file == file] for file in sizes}
        in_order = (change for file in sizes for change in changed_in[file])
        with _one_core_less(), worked_ahead(_edited(in_order), _BLOCKS_AHEAD) as content:
            for file, size in sizes.items():
                target = partial / file.relative_to(source)
                target.parent.mkdir(parents=True, exist_ok=True)
                ranges = [(change.tensor.start, change.tensor.stop) for change in changed_in[file]]
                copy_replacing(file, target, size, ranges, content)
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
