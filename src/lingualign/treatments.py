"""What is done to a model, in whatever way: audited, verified and reported alike."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lingualign.edit import Edit
from lingualign.errors import UserError
from lingualign.steering import Steering

if TYPE_CHECKING:
    from torch import nn


class Treatment(Protocol):
    """An `Edit` changes weights, a `Steering` changes activations; both are undone at the end of a `with` block."""

    @property
    def manifest(self) -> Mapping[str, Any]:
        """Method, settings, diagnostics and provenance; JSON-serialisable."""
        ...

    @property
    def fingerprint(self) -> str:
        """Identifies the treatment by its numbers."""
        ...

    def applied(self, model: nn.Module) -> AbstractContextManager[nn.Module]:
        """The treated model for the duration of a `with` block."""
        ...

    def save(self, path: Path) -> Path:
        """Writes one safetensors file."""
        ...


def load_treatment(path: Path) -> Treatment:
    """Reads an edit or a steering, by what the file says it is.

    Raises:
        UserError: the file is missing, damaged, or neither.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"no edit or steering file at {path}; make an edit with `lingualign edit MODEL --out {path}`")
    try:
        with safe_open(path, framework="pt") as handle:
            written = (handle.metadata() or {}).get("format", "")
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is truncated or not a safetensors file ({error}); make or copy it anew") from error
    return Steering.load(path) if written.startswith("lingualign-steering-") else Edit.load(path)
