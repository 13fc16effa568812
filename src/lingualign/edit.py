"""The edit: low-rank changes to a few weight matrices, kept apart from the model so that it can be undone, scaled,
added and shared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lingualign.errors import ConfigError, FingerprintMismatch, UnsupportedModel, UserError
from lingualign.models.stages import streamed_weights
from lingualign.tensor_file import read_tensors, write_tensors

if TYPE_CHECKING:
    from torch import nn

FORMAT_VERSION = 1
#: Key in a checkpoint's config.json that says an edit is baked in.
CONFIG_MARK = "lingualign_edit"
#: Values of a change that are in memory at once, in float32: 2 MiB, which a processor's cache holds.
_VALUES_AT_ONCE = 2**19


def fingerprint_bytes(tensor: Tensor) -> memoryview:
    """What a fingerprint hashes: a weight's values rounded to bfloat16, so that the same checkpoint matches in float32
    and in bfloat16. Those of consecutive rows, in order, are those of the whole."""
    rounded = tensor.detach().to("cpu", torch.bfloat16).contiguous()
    return rounded.view(torch.uint8).numpy().data


def tensor_fingerprint(tensor: Tensor) -> str:
    """SHA-256 of `fingerprint_bytes`."""
    return hashlib.sha256(fingerprint_bytes(tensor)).hexdigest()


def weight_fingerprint(model: nn.Module, name: str) -> str:
    """The fingerprint of a model's weight; of a streamed model it is taken once, from the unedited weight."""
    streamed = streamed_weights(model)
    if streamed is None:
        return tensor_fingerprint(model.get_parameter(name))
    if name not in streamed.fingerprints:
        streamed.fingerprints[name] = tensor_fingerprint(streamed.weight(name))
    return streamed.fingerprints[name]


@dataclass(frozen=True)
class LowRankDelta:
    """The change of one weight matrix W (d_out × d_in): ΔW[rows, columns] = out_factor · in_factorᵀ, zero elsewhere.

    Attributes:
        out_factor: (len(rows), r) float32.
        in_factor: (len(columns), r) float32.
        shape: (d_out, d_in) of the whole matrix.
        rows: indices of the changed rows, or None for all.
        columns: indices of the changed columns, or None for all.
        transposed: whether the weight is stored (d_in, d_out), as GPT-2's is; all else here is of W itself.
    """

    out_factor: Tensor
    in_factor: Tensor
    shape: tuple[int, int]
    rows: Tensor | None = None
    columns: Tensor | None = None
    transposed: bool = False

    @property
    def stored_shape(self) -> tuple[int, int]:
        """Shape of the weight as the model and its checkpoint keep it."""
        return (self.shape[1], self.shape[0]) if self.transposed else self.shape

    @property
    def rank(self) -> int:
        return self.out_factor.shape[1]

    def full_factors(self) -> tuple[Tensor, Tensor]:
        """Factors over the whole matrix, (d_out, r) and (d_in, r), zero outside the index sets."""
        factors = []
        for factor, index, size in (
            (self.out_factor, self.rows, self.shape[0]),
            (self.in_factor, self.columns, self.shape[1]),
        ):
            if index is None:
                factors.append(factor)
            else:
                factors.append(factor.new_zeros(size, factor.shape[1]).index_copy_(0, index, factor))
        return factors[0], factors[1]

    def dense(self) -> Tensor:
        """ΔW, (d_out, d_in) float32."""
        out_factor, in_factor = self.full_factors()
        return out_factor @ in_factor.T

    def add_to(self, weight: Tensor) -> None:
        """Adds ΔW in place to a weight as it is stored: float32 sum, one rounding to the weight's dtype, and only
        declared rows and columns are written."""
        for block in self.row_blocks():
            self.add_to_block(weight[block], block)

    def row_blocks(self) -> Iterator[slice]:
        """The stored weight's rows in the portions that they are changed in."""
        height, width = self.stored_shape
        at_once = max(1, _VALUES_AT_ONCE // width)
        for first in range(0, height, at_once):
            yield slice(first, min(first + at_once, height))

    def add_to_block(self, rows: Tensor, block: slice) -> None:
        """Adds ΔW in place to one portion of a weight, with the bits that `add_to` gives it.

        Args:
            rows: those of the stored weight in `block`.
            block: one of `row_blocks`.
        """
        row_side, column_side = (self.out_factor, self.rows), (self.in_factor, self.columns)
        if self.transposed:
            row_side, column_side = column_side, row_side
        (row_factor, row_index), (column_factor, column_index) = row_side, column_side
        if row_index is None:
            row_factor, row_index = row_factor[block], torch.arange(block.stop - block.start)
        else:
            inside = (row_index >= block.start) & (row_index < block.stop)
            row_factor, row_index = row_factor[inside], row_index[inside] - block.start
        change = (row_factor @ column_factor.T).to(rows.device)
        if self.rows is None and self.columns is None:
            # The same sum without index tensors or a copy of the weight.
            rows.copy_(change.add_(rows))
            return
        if column_index is None:
            column_index = torch.arange(rows.shape[1])
        index = (row_index.to(rows.device)[:, None], column_index.to(rows.device)[None, :])
        rows[index] = change.add_(rows[index]).to(rows.dtype)


@dataclass(frozen=True)
class Edit:
    """A reversible edit of a model.

    Attributes:
        deltas: change by parameter name (`model.layers.8.mlp.down_proj.weight`).
        base: fingerprint of each touched parameter before the edit, by the same names.
        manifest: method, settings, diagnostics and provenance; JSON-serialisable.
    """

    deltas: Mapping[str, LowRankDelta]
    base: Mapping[str, str]
    manifest: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Identifies the edit by its numbers, exactly, whatever file they are in. First 16 hexadecimal digits."""
        digest = hashlib.sha256()
        for name, delta in sorted(self.deltas.items()):
            digest.update(f"{name} {self.base[name]}".encode())
            for part in (delta.out_factor, delta.in_factor, delta.rows, delta.columns):
                if part is not None:
                    digest.update(f"{tuple(part.shape)}".encode())
                    digest.update(part.contiguous().numpy().tobytes())
                digest.update(b";")
            if delta.transposed:
                digest.update(b"transposed;")
        return digest.hexdigest()[:16]

    # Arithmetic

    def scaled(self, factor: float) -> Edit:
        """The same edit at `factor` times its strength."""
        return replace(
            self,
            deltas={name: replace(delta, out_factor=delta.out_factor * factor) for name, delta in self.deltas.items()},
            manifest={**self.manifest, "scale": factor * float(self.manifest.get("scale", 1.0))},
        )

    def inverted(self) -> Edit:
        """The edit that takes this one back (in exact arithmetic; `applied` restores bit-exactly)."""
        return self.scaled(-1.0)

    def __add__(self, other: Edit) -> Edit:
        """Both edits together. They must have been made for the same base model.

        Raises:
            FingerprintMismatch: a matrix touched by both has different base fingerprints.
        """
        deltas = dict(self.deltas)
        for name, delta in other.deltas.items():
            if name not in deltas:
                deltas[name] = delta
                continue
            if self.base[name] != other.base[name]:
                raise FingerprintMismatch(
                    f"the edits were made for different base weights of {name}; refit one of them on the other's base"
                )
            left, right = deltas[name].full_factors(), delta.full_factors()
            deltas[name] = LowRankDelta(
                torch.cat([left[0], right[0]], 1),
                torch.cat([left[1], right[1]], 1),
                delta.shape,
                transposed=delta.transposed,
            )
        return Edit(deltas, {**self.base, **other.base}, {"sum_of": [dict(self.manifest), dict(other.manifest)]})

    def __mul__(self, factor: float) -> Edit:
        return self.scaled(factor)

    __rmul__ = __mul__

    def __neg__(self) -> Edit:
        return self.inverted()

    # Application

    def _parameters(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """The touched parameters of a model, checked against the base fingerprints."""
        config = getattr(model, "config", None)
        if config is not None and getattr(config, CONFIG_MARK, None):
            raise FingerprintMismatch(
                "this model is already edited by lingualign; apply the edit to its base model instead"
            )
        parameters = dict(model.named_parameters())
        found = {}
        for name, delta in self.deltas.items():
            if name not in parameters:
                raise UnsupportedModel(
                    f"the edit changes {name}, which {type(model).__name__} does not have; "
                    "use the edit's own base model"
                )
            parameter = parameters[name]
            if tuple(parameter.shape) != delta.stored_shape:
                raise UnsupportedModel(
                    f"the edit expects {name} of shape {delta.stored_shape}, the model has "
                    f"{tuple(parameter.shape)}; use the edit's own base model"
                )
            streamed = streamed_weights(model)
            edited = streamed is not None and name in streamed.deltas
            if edited or weight_fingerprint(model, name) != self.base[name]:
                raise FingerprintMismatch(
                    f"{name} is not the weight this edit was made for (fingerprint differs); "
                    "load the base model the edit names, or refit the edit on this model"
                )
            found[name] = parameter
        return found

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[nn.Module]:
        """Applies the edit for the duration of a `with` block; the original weights come back bit for bit.

        Raises:
            FingerprintMismatch: the model's touched weights are not those the edit was made for.
            UnsupportedModel: a touched weight is missing or has another shape.
        """
        parameters = self._parameters(model)
        streamed = streamed_weights(model)
        if streamed is not None:
            with streamed.edited({**streamed.deltas, **self.deltas}):
                yield model
            return
        originals = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        try:
            with torch.no_grad():
                for name, parameter in parameters.items():
                    self.deltas[name].add_to(parameter)
            yield model
        finally:
            with torch.no_grad():
                for name, parameter in parameters.items():
                    parameter.copy_(originals[name])

    def apply_permanently(self, model: nn.Module) -> None:
        """Writes the edit into the model and marks its config, so that it is never edited twice."""
        parameters = self._parameters(model)
        streamed = streamed_weights(model)
        if streamed is not None:
            streamed.deltas = {**streamed.deltas, **self.deltas}
        else:
            with torch.no_grad():
                for name, parameter in parameters.items():
                    self.deltas[name].add_to(parameter)
        setattr(model.config, CONFIG_MARK, self.mark())

    def mark(self) -> dict[str, Any]:
        """What an edited checkpoint's config.json says under `CONFIG_MARK`."""
        return {"method": self.manifest.get("method"), "tensors": sorted(self.deltas)}

    # Files

    def save(self, path: Path) -> Path:
        """Writes factors, indices, fingerprints and manifest as one safetensors file, atomically."""
        if path.suffix != ".safetensors":
            raise ConfigError(f"an edit is saved as .safetensors, not {path.name!r}; name it e.g. edit.safetensors")
        tensors = {
            f"{name}:{part}": value
            for name, delta in self.deltas.items()
            for part in ("out_factor", "in_factor", "rows", "columns")
            if (value := getattr(delta, part)) is not None
        }
        metadata = {
            "format": f"lingualign-edit-{FORMAT_VERSION}",
            "shapes": json.dumps({name: list(delta.shape) for name, delta in self.deltas.items()}),
            "transposed": json.dumps([name for name, delta in self.deltas.items() if delta.transposed]),
            "base": json.dumps(dict(self.base)),
            "manifest": json.dumps(dict(self.manifest), ensure_ascii=False),
        }
        return write_tensors(path, tensors, metadata)

    @classmethod
    def load(cls, path: Path) -> Edit:
        """Reads an edit file.

        Raises:
            UserError: the file is missing, truncated or not an edit.
        """
        if not path.is_file():
            raise UserError(f"no edit file at {path}; make one with `lingualign edit MODEL --out {path}`")
        tensors, metadata = read_tensors(path, remedy="make the edit again or copy it anew")
        if metadata.get("format") != f"lingualign-edit-{FORMAT_VERSION}":
            raise UserError(
                f"{path} is not a lingualign edit of format {FORMAT_VERSION}; make it again with `lingualign edit`"
            )
        # Files of earlier versions know no transposed weights.
        transposed = json.loads(metadata.get("transposed", "[]"))
        deltas = {
            name: LowRankDelta(
                tensors[f"{name}:out_factor"],
                tensors[f"{name}:in_factor"],
                (shape[0], shape[1]),
                tensors.get(f"{name}:rows"),
                tensors.get(f"{name}:columns"),
                transposed=name in transposed,
            )
            for name, shape in json.loads(metadata["shapes"]).items()
        }
        return cls(deltas, json.loads(metadata["base"]), json.loads(metadata["manifest"]))
