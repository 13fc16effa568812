"""Tensors where they lie in a checkpoint folder, single or sharded, each read without its neighbours.

Layout of a safetensors file: eight bytes with the header's length (little-endian), the header in JSON (dtype, shape and
byte range of each tensor), then the bytes themselves (https://huggingface.co/docs/safetensors, "Format").
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lingualign.errors import UserError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
#: Floating-point formats that an edit can be computed in and added to.
EDITABLE = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_DTYPES = {
    **EDITABLE,
    "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_AGAIN = "download the checkpoint again"


@dataclass(frozen=True)
class StoredTensor:
    """One tensor on disk.

    Attributes:
        name: its name in the checkpoint.
        file: the safetensors file.
        dtype: in the format's spelling, such as `BF16`.
        shape: as stored.
        start: first byte, counted from the start of the file.
    """

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int

    @property
    def torch_dtype(self) -> torch.dtype:
        """Raises UserError for a format that torch does not have."""
        if self.dtype not in _DTYPES:
            raise UserError(
                f"{self.name} is stored as {self.dtype}, which cannot be read; use a checkpoint in bfloat16"
            )
        return _DTYPES[self.dtype]

    @property
    def bytes(self) -> int:
        return prod(self.shape) * self.torch_dtype.itemsize

    def read(self) -> Tensor:
        """The whole tensor in its stored dtype.

        Raises:
            UserError: the file has become shorter since its header was read.
        """
        tensor = torch.empty(self.shape, dtype=self.torch_dtype)
        with self.file.open("rb") as handle:
            handle.seek(self.start)
            # Unbuffered in effect: the bytes go straight into the tensor.
            count = handle.readinto(tensor.reshape(-1).view(torch.uint8).numpy().data)
        if count != self.bytes:
            raise UserError(f"{self.file} is truncated in {self.name}; {_AGAIN}")
        return tensor

    def rows(self, indices: Tensor) -> Tensor:
        """Some rows of a matrix, (len(indices), …), without reading the others.

        Args:
            indices: one-dimensional, on the CPU.
        """
        width = self.bytes // self.shape[0]
        found = torch.empty(len(indices), *self.shape[1:], dtype=self.torch_dtype)
        places = found.view(len(indices), -1).view(torch.uint8).numpy()
        with self.file.open("rb") as handle:
            for number, index in enumerate(indices.tolist()):
                handle.seek(self.start + index * width)
                if handle.readinto(places[number].data) != width:
                    raise UserError(f"{self.file} is truncated in {self.name}; {_AGAIN}")
        return found

    def values(self, positions: slice) -> Tensor:
        """Some of the values, as if the tensor were flat: for samples, a seek each."""
        width = self.torch_dtype.itemsize
        found = bytearray()
        with self.file.open("rb") as handle:
            for index in range(positions.start, positions.stop, positions.step):
                handle.seek(self.start + index * width)
                found += handle.read(width)
        return torch.frombuffer(found, dtype=self.torch_dtype)

    def warm(self, buffer: bytearray) -> None:
        """Has the system hold the bytes in its cache of files, in nobody's memory, by reading them into a buffer that
        is written over."""
        with self.file.open("rb", buffering=0) as handle:
            handle.seek(self.start)
            left = self.bytes
            while left > 0 and (count := handle.readinto(memoryview(buffer)[: min(left, len(buffer))])):
                left -= count


def read_tensors_of(file: Path) -> dict[str, StoredTensor]:
    """Tensors of one safetensors file by name.

    Raises:
        UserError: the file is missing, truncated or not in the format.
    """
    damaged = UserError(f"{file} is missing, truncated or not a safetensors file; {_AGAIN}")
    if not file.is_file():
        raise damaged
    size = file.stat().st_size
    with file.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if size < 8 + length:
            raise damaged
        try:
            header: dict[str, Any] = json.loads(handle.read(length))
            header.pop("__metadata__", None)
            entries = [
                (name, str(entry["dtype"]), tuple(entry["shape"]), *entry["data_offsets"])
                for name, entry in header.items()
            ]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise damaged from None
    base = 8 + length
    if size != base + max((stop for *_, stop in entries), default=0):
        raise damaged
    tensors = {}
    for name, dtype, shape, start, stop in entries:
        tensor = StoredTensor(name, file, dtype, shape, base + start)
        if dtype in _DTYPES and tensor.bytes != stop - start:
            raise damaged
        tensors[name] = tensor
    return tensors


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """All tensors that transformers loads from a checkpoint folder, by name.

    Raises:
        UserError: there are no safetensors, a file is missing or damaged, or the index names another file than the one
            that holds a tensor.
    """
    if (folder / SINGLE).is_file():
        return read_tensors_of(folder / SINGLE)
    index = folder / INDEX
    if not index.is_file():
        raise UserError(
            f"{folder} holds no safetensors weights; load the model with transformers and save it with save_pretrained"
        )
    try:
        weight_map: dict[str, str] = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{index} is truncated or not an index of safetensors; {_AGAIN}") from None
    files = {name: read_tensors_of(folder / name) for name in sorted(set(weight_map.values()))}
    for name, file in weight_map.items():
        if name not in files[file]:
            raise UserError(f"{index} says that {file} holds {name}, which it does not; {_AGAIN}")
    return {name: files[file][name] for name, file in weight_map.items()}
