"""Tensors with text metadata in one safetensors file: written whole or not at all, read without pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lingualign.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Path:
    """Writes a file so that `path` holds either its old content or all of the new."""
    import torch
    from safetensors.torch import save_file

    # Copies: two names may share one tensor, which safetensors refuses to write twice.
    copies = {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    save_file(copies, partial, metadata=dict(metadata))
    partial.replace(path)
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
