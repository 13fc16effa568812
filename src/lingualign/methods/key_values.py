"""Layer-by-layer edits of `down_proj` that map keys to values: the loop that MEMIT and AlphaEdit share.

Keys K₁ are the inputs of `down_proj` at the declared positions of harmful prompts in the anchors' languages, values V₁
its outputs for the paired reference prompts on the unedited model (the target of `SparseWeightEdit`'s output family).
Layers are edited from shallow to deep; before each, keys and residuals R = V₁ − W K₁ are read anew from the model as
edited so far, and R is divided by the number of layers left.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lingualign import __version__
from lingualign.edit import Edit, LowRankDelta, tensor_fingerprint
from lingualign.features.carry import CarriedStates
from lingualign.features.collect import Site
from lingualign.features.positions import Positions
from lingualign.features.store import FeatureSource
from lingualign.methods.anchor_chats import encode_anchors
from lingualign.methods.anchors import Anchors
from lingualign.methods.controls import frobenius
from lingualign.methods.layers import choose_layers
from lingualign.models.changed import require_editable
from lingualign.models.locate import locate_mlps
from lingualign.solvers.low_rank import Solution

Batches = Literal["all", "language"]
Progress = Callable[[str, int, int], None]
#: (keys (n, d), residuals (n, m), past keys (p, d)), float64, to the change of one weight.
LayerSolver = Callable[[Tensor, Tensor, Tensor], Solution]


class KeyValueEdit(ABC):
    """Base of MEMIT and AlphaEdit; the constructor only stores parameters, `fit` returns an `Edit`.

    Args:
        layers: block indices, or `auto` for the label-free rule of LASA (arXiv 2604.12710).
        layer_count: number of consecutive blocks when `layers` is `auto`.
        split: whether the residual is divided by the number of layers left, as published; otherwise each layer takes
            all of what is left of its own.
        batches: `all` anchors at once, or one `language` after the other: then the keys of the languages done are past
            keys, whose outputs the next must not change.
        positions: token positions that become keys; by default the template's last five.
    """

    method: str
    citation: str
    faithfulness: tuple[str, ...]

    def __init__(
        self,
        *,
        layers: Sequence[int] | Literal["auto"] = "auto",
        layer_count: int = 5,
        split: bool = True,
        batches: Batches = "all",
        positions: Positions | None = None,
    ) -> None:
        self.layers = layers
        self.layer_count = layer_count
        self.split = split
        self.batches = batches
        self.positions = positions or Positions(template_tokens=5)

    def settings(self) -> dict[str, Any]:
        """All parameters as plain values."""
        return {**{k: v for k, v in vars(self).items() if k != "positions"}, "positions": asdict(self.positions)}

    @abstractmethod
    def prepare(self, keep_gram: Tensor) -> tuple[LayerSolver, dict[str, Any]]:
        """The solver of one layer, and what the manifest says about it.

        Args:
            keep_gram: mean second moment of the keep set's keys, (d, d) float64, on the unedited model.
        """

    def fit(
        self,
        model: Any,
        tokenizer: Any,
        anchors: Anchors,
        *,
        cache: Path | None = None,
        fingerprint: str = "",
        replies: Mapping[tuple[str, str, str], str] | None = None,
        progress: Progress | None = None,
    ) -> Edit:
        """Solves for the edit. The model is left as it was found.

        Args:
            model, tokenizer: the base model.
            anchors: pairs and keep set of the fit split.
            cache: folder for collected features.
            fingerprint: identifies the model's weights in the cache.
            replies: the base model's own replies by prompt key, needed for reply positions.
            progress: called with (stage, done, total).

        Raises:
            ConfigError: a setting does not fit the model.
            DataError, NumericalError, UnsupportedModel: as raised by the parts.
        """
        started = time.monotonic()
        chats = encode_anchors(tokenizer, anchors, self.positions, replies or {})
        source = FeatureSource(model, fingerprint, pad_id=tokenizer.pad_token_id or 0, cache=cache, progress=progress)
        mlps = locate_mlps(model)
        require_editable(mlps)
        chosen = choose_layers(
            self.layers,
            self.layer_count,
            source,
            mlps,
            [*chats.references, *(low for _, low in anchors.pairs)],
            [*chats.reference, *chats.low],
        )
        layers = chosen.layers
        inputs = {layer: Site(mlps[layer].down, "input") for layer in layers}
        outputs = {layer: Site(mlps[layer].output, "output") for layer in layers}
        values = source.rows(chats.reference, list(outputs.values()), self.positions, "reference")
        kept = source.moments(chats.keep, list(inputs.values()), self.positions, "keep set")
        solvers = {layer: self.prepare(kept[inputs[layer]].gram) for layer in layers}
        matrices = {layer: mlps[layer].down_matrix for layer in layers}
        stored = {layer: model.get_parameter(matrix.parameter) for layer, matrix in matrices.items()}
        base = {layer: tensor_fingerprint(weight) for layer, weight in stored.items()}
        weights = {layer: weight.T if matrices[layer].transposed else weight for layer, weight in stored.items()}
        past = {layer: torch.zeros(0, mlps[layer].inner_size, dtype=torch.float64) for layer in layers}
        edit = Edit({}, {})
        diagnostics: list[dict[str, Any]] = []
        for batch in self._batches(anchors):
            low = [chats.low[index] for index in batch]
            source.states = CarriedStates(model, mlps[0].block.rpartition(".")[0])
            for done, layer in enumerate(layers):
                with edit.applied(model):
                    source.fingerprint = fingerprint + (edit.fingerprint if edit.deltas else "")
                    rows = source.rows(low, [inputs[layer], outputs[layer]], self.positions, "anchors")
                wanted = values[outputs[layer]][[chats.reference_of[index] for index in batch]]
                residuals = (wanted - rows[outputs[layer]]).flatten(0, 1).double()
                keys = rows[inputs[layer]].flatten(0, 1).double()
                solve, about = solvers[layer]
                solution = solve(keys, residuals / (len(layers) - done if self.split else 1), past[layer])
                delta = LowRankDelta(
                    solution.out_factor.float().contiguous(),
                    solution.in_factor.float().contiguous(),
                    (weights[layer].shape[0], weights[layer].shape[1]),
                    transposed=matrices[layer].transposed,
                )
                name = matrices[layer].parameter
                edit = edit + Edit({name: delta}, {name: base[layer]})
                # A layer's keys do not depend on its own weight, nor on later ones: these are the keys after the batch.
                past[layer] = torch.cat([past[layer], keys])
                languages = sorted({anchors.pairs[index][1].language for index in batch})
                known = {"tensor": name, "layer": layer, "languages": languages, **about}
                diagnostics.append(known | _diagnose(delta, solution, weights[layer], kept[inputs[layer]].gram))
        manifest = {
            "method": self.method,
            "citation": self.citation,
            "faithfulness": list(self.faithfulness),
            "lingualign": __version__,
            "settings": self.settings(),
            "reference": anchors.reference,
            "anchor_languages": list(anchors.languages),
            "anchor_pairs": len(anchors.pairs),
            "keep_prompts": len(anchors.keep),
            **chosen.record(),
            "model_fingerprint": fingerprint,
            "diagnostics": diagnostics,
            "seconds": {"total": round(time.monotonic() - started, 2)},
        }
        return Edit(edit.deltas, edit.base, manifest)

    def _batches(self, anchors: Anchors) -> list[list[int]]:
        """Indices of the pairs that are edited together, batch by batch."""
        if self.batches == "all":
            return [list(range(len(anchors.pairs)))]
        return [
            [index for index, (_, low) in enumerate(anchors.pairs) if low.language == language]
            for language in anchors.languages
        ]


def _diagnose(delta: LowRankDelta, solution: Solution, weight: Tensor, keep_gram: Tensor) -> dict[str, Any]:
    inner = solution.in_factor.T @ keep_gram @ solution.in_factor
    keep_square = ((solution.out_factor.T @ solution.out_factor) * inner).sum().clamp_min(0)
    return {
        "rank": delta.rank,
        "rows": delta.shape[0],
        "columns": delta.shape[1],
        "relative_change": frobenius(delta.out_factor, delta.in_factor) / float(weight.detach().float().norm()),
        "explained": solution.explained,
        # Root mean square of ΔW k over the keys k of the keep set.
        "keep_change": float(keep_square.sqrt()),
        "singular_values": [float(value) for value in solution.singular_values[:64]],
    }
