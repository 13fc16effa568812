"""Tensors where they lie in a checkpoint folder, single or sharded, each read without its neighbours.

Layout of a safetensors file: eight bytes with the header's length (little-endian), the header in JSON (dtype, shape and
byte range of each tensor), then the bytes themselves (https://huggingface.co/docs/safetensors, "Format").
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lingualign.disk import reading
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
        stop: the byte behind the last.
    """

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def torch_dtype(self) -> torch.dtype:
        """Raises UserError for a format that torch does not have."""
        if self.dtype not in _DTYPES:
            raise UserError(
                f"{self.name} is stored as {self.dtype}, which cannot be read; use a checkpoint in bfloat16"
            )
        return _DTYPES[self.dtype]

    def read(self) -> Tensor:
        """The whole tensor in its stored dtype.

        Raises:
            UserError: the file is gone, or shorter than its header says.
        """
        tensor = torch.empty(self.shape, dtype=self.torch_dtype)
        with reading(self.file), self.file.open("rb") as handle:
            handle.seek(self.start)
            # Unbuffered in effect: the bytes go straight into the tensor.
            self._fill(handle, tensor.reshape(-1).view(torch.uint8).numpy().data)
        return tensor

    def rows(self, indices: Tensor) -> Tensor:
        """Some rows of a matrix, (len(indices), …), without reading the others.

        Args:
            indices: one-dimensional, on the CPU.

        Raises:
            UserError: as for `read`.
        """
        width = (self.stop - self.start) // self.shape[0]
        found = torch.empty(len(indices), *self.shape[1:], dtype=self.torch_dtype)
        places = found.view(len(indices), -1).view(torch.uint8).numpy()
        with reading(self.file), self.file.open("rb") as handle:
            for number, index in enumerate(indices.tolist()):
                handle.seek(self.start + index * width)
                self._fill(handle, places[number].data)
        return found

    def row_blocks(self, blocks: Iterable[slice]) -> Iterator[Tensor]:
        """Consecutive rows of a matrix, each block of them in memory of its own.

        Raises:
            UserError: as for `read`.
        """
        width = (self.stop - self.start) // self.shape[0]
        with reading(self.file):
            handle = self.file.open("rb")
        with handle:
            for block in blocks:
                found = torch.empty(block.stop - block.start, *self.shape[1:], dtype=self.torch_dtype)
                with reading(self.file):
                    handle.seek(self.start + block.start * width)
                    self._fill(handle, found.view(torch.uint8).numpy().reshape(-1).data)
                yield found

    def values(self, positions: slice) -> Tensor:
        """Some of the values, as if the tensor were flat: for samples, a seek each.

        Raises:
            UserError: as for `read`.
        """
        indices = range(positions.start, positions.stop, positions.step)
        found = torch.empty(len(indices), dtype=self.torch_dtype)
        places = found.view(-1, 1).view(torch.uint8).numpy()
        with reading(self.file), self.file.open("rb") as handle:
            for number, index in enumerate(indices):
                handle.seek(self.start + index * self.torch_dtype.itemsize)
                self._fill(handle, places[number].data)
        return found

    def warm(self, buffer: bytearray) -> None:
        """Has the system hold the bytes in its cache of files, in nobody's memory, by reading them into a buffer that
        is written over."""
        with self.file.open("rb", buffering=0) as handle:
            handle.seek(self.start)
            left = self.stop - self.start
            while left > 0 and (count := handle.readinto(memoryview(buffer)[: min(left, len(buffer))])):
                left -= count

    def _fill(self, handle: BufferedReader, place: memoryview) -> None:
        if handle.readinto(place) != place.nbytes:
            raise UserError(f"{self.file} has become shorter; {_AGAIN}")


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
            raise UserError(f"{file} is truncated or not a safetensors file; {_AGAIN}") from None
    header.pop("__metadata__", None)
    base = 8 + length
    return {
        name: StoredTensor(
            name, file, entry["dtype"], tuple(entry["shape"]), *(base + place for place in entry["data_offsets"])
        )
        for name, entry in header.items()
    }


def read_json(file: Path) -> dict[str, Any]:
    """An object in a JSON file of a checkpoint.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    try:
        with reading(file):
            value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise UserError(f"{file} is truncated or not JSON; {_AGAIN}")
    return value


def read_weights(source: Path) -> tuple[list[Path], dict[str, StoredTensor]]:
    """The safetensors files that transformers loads from a checkpoint folder, and the tensors in them by name.

    Raises:
        UserError: there are none, one is damaged, or the index does not say what is where.
    """
    if (source / SINGLE).is_file():
        return [source / SINGLE], read_header(source / SINGLE)
    index = source / INDEX
    if not index.is_file():
        raise UserError(
            f"{source} holds no safetensors weights; load the model with transformers and save it with save_pretrained"
        )
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise UserError(f"{index} has no weight_map from tensors to files; {_AGAIN}")
    names = sorted(set(places.values()))
    # Also keeps a name with `..` in it from reaching out of the two folders.
    with reading(source):
        there = {file.name for file in source.iterdir()}
    if absent := [name for name in names if name not in there]:
        raise UserError(f"{index} names {absent[0]!r}, which is missing; {_AGAIN}")
    headers = {name: read_header(source / name) for name in names}
    for tensor, name in places.items():
        if tensor not in headers[name]:
            raise UserError(f"{index} looks for {tensor!r} in {name}, which does not hold it; {_AGAIN}")
    for name, header in headers.items():
        if elsewhere := [tensor for tensor in header if places.get(tensor, name) != name]:
            raise UserError(f"{elsewhere[0]!r} is in {name} and in {places[elsewhere[0]]}; {_AGAIN}")
    return [source / name for name in names], {
        tensor: place for header in headers.values() for tensor, place in header.items()
    }
