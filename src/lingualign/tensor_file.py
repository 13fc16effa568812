"""Tensors with text metadata in one safetensors file: written whole or not at all, read without pickle."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lingualign.disk import writing
from lingualign.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None, *, durable: bool = False
) -> None:
    """Writes a file so that `path` holds either its old content or all of the new.

    Args:
        path: the file.
        tensors: contiguous, and no two in the same memory.
        metadata: text for the header.
        durable: return only once the file would outlive a power cut.

    Raises:
        NotEnoughMemory: the disk is full.
        UserError: the file cannot be written for another reason.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # safetensors writes under a random name first: in a folder of its own, the next write finds what a kill left.
    folder = path.with_name(f".{path.name}.partial")
    with writing(path):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            partial = folder / path.name
            save_file(dict(tensors), partial, metadata=None if metadata is None else dict(metadata))
            if durable:
                with partial.open("rb") as file:
                    os.fsync(file.fileno())
            partial.replace(path)
        except SafetensorError as error:
            # Of what the system said, its text is all that this error tells.
            number = re.search(r"\(os error (\d+)\)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Path:
    """Writes any tensors as `save_tensors` does, and returns once they are on the disk."""
    import torch

    # Copies: two names may share one tensor, which safetensors refuses to write twice.
    copies = {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    save_tensors(path, copies, metadata, durable=True)
    return path


def read_tensors(path: Path, *, remedy: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a file.

    Args:
        path: the file; it exists.
        remedy: what to do where it cannot be read.

    Raises:
        UserError: the file is truncated, or no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as handle:
            metadata = handle.metadata() or {}
            tensors = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118 (a safetensors handle is no dict)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is truncated or not a safetensors file ({error}); {remedy}") from error
    return tensors, metadata
