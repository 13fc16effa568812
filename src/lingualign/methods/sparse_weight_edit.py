"""Sparse Weight Editing (Liang, Wang, Wang 2026, arXiv 2602.22554): a closed-form, rank-limited edit of MLP weights.

Families share the solver and differ in what they change and aim at:

- `paper`: rows of `gate_proj` and `up_proj` that belong to safety neurons. Target: what those rows give for the
  paired reference prompt. `target="pre"` compares pre-activations, the reading under which the objective is exact;
  `target="post"` takes the reference's post-activations.
- `output`: `down_proj`, on all or on the selected neurons' columns. The MLP is linear in this weight, so the target
  is exact: the MLP's own output for the paired reference prompt. In a mixture of experts the shared expert's
  `down_proj` is changed, for what the whole mixture put out: linear too, since every token passes that expert.
- `attention`: the attention's output projection, for its own output for the paired reference prompt. Exact likewise,
  and there in every model, mixtures of experts without a shared one among them.
- `residual`: both, solved at once from the same pass, so that what the attention's change does to the MLP of its block
  is left to the next block.

The paper leaves layers, token positions, γ, λ and the number of anchors open; here all are explicit and recorded in
the edit's manifest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lingualign import __version__
from lingualign.edit import Edit, LowRankDelta, weight_fingerprint
from lingualign.errors import ConfigError
from lingualign.features.collect import Site
from lingualign.features.positions import Positions
from lingualign.features.store import FeatureSource
from lingualign.methods.anchor_features import AnchorFeatures, Matrix, counted_gram, counted_rows, keep_counts
from lingualign.methods.anchors import Anchors
from lingualign.methods.controls import frobenius
from lingualign.methods.own_language import Lesson
from lingualign.methods.selection import Selection
from lingualign.models.changed import Family
from lingualign.models.stages import weight_of
from lingualign.solvers.gram import mean_gram, mean_product, whole
from lingualign.solvers.low_rank import Solution, solve_dual, solve_primal
from lingualign.solvers.null_space import null_space_basis

#: What the manifest of its edits names it.
METHOD = "sparse-weight-edit"
#: Where features are read unless told otherwise. Without reply tokens replies begin like the reference's refusal and go
#: on in the prompt's language (docs/choosing-defaults.md).
POSITIONS = Positions(template_tokens=5, reply_tokens=4)
#: From this λ on, float32 products of the rows do: their error is about 1e-5 of the mean diagonal in spectral norm.
_FLOAT32_RIDGE = 1e-3
Progress = Callable[[str, int, int], None]


class SparseWeightEdit:
    """The closed-form edit; the constructor only stores parameters, `fit` returns an `Edit`.

    Args:
        family: `output`, `attention`, `residual` or `paper`, see the module's text.
        selection: which neurons may change: `paper`, `probe`, `random` or `all`.
        fraction: take this share of neurons by Cohen's d (or at random) instead of the thresholds.
        magnitude_threshold, effect_threshold: z and d thresholds of the paper's selection.
        layers: block indices, or `auto` for the label-free rule of LASA (arXiv 2604.12710).
        layer_count: number of consecutive blocks when `layers` is `auto`.
        target: `pre` or `post`, the paper family's target.
        rank: r, or None for no constraint.
        keep_weight: γ, weight of the keep set.
        look_alike_weight: how many times each look-alike counts in the keep set: those lie nearest to what must change.
        reference_weight: how many times each of the reference language's harmful prompts counts in the keep set, where
            they are few; without it the edit may cost refusals in the reference language.
        ridge: λ, relative to the mean diagonal of the system.
        null_space: if given, the edit is confined to the directions that carry at most this share of the keep set's
            second moment.
        propagation: `none` takes all features from the unedited model; `sequential` edits layer by layer, so that each
            adds what those before it left of the gap; `split` does so and divides the gap over the layers left (MEMIT).
            The target stays the unedited model's output for the reference prompt.
        teacher: whose outputs are the target: `reference`, those for the paired reference prompt; or `own-language`,
            the model's own for the prompt with an instruction to refuse in its language (`methods.own_language`), so
            that refusals come in that language. Pairs without such a lesson keep the reference.
        solver: `primal`, `dual`, or `auto` for the cheaper one.
        positions: token positions that become feature rows.
        strength: factor on the finished edit.
        seed: for random selection.
    """

    def __init__(
        self,
        *,
        family: Family = "output",
        selection: Selection = "all",
        fraction: float | None = None,
        magnitude_threshold: float = 2.0,
        effect_threshold: float = 1.0,
        layers: Sequence[int] | Literal["auto"] = "auto",
        layer_count: int = 6,
        target: Literal["pre", "post"] = "pre",
        rank: int | None = 128,
        keep_weight: float = 10.0,
        look_alike_weight: float = 3.0,
        reference_weight: float = 9.0,
        ridge: float = 1e-3,
        null_space: float | None = None,
        propagation: Literal["none", "sequential", "split"] = "sequential",
        teacher: Literal["reference", "own-language"] = "reference",
        solver: Literal["auto", "primal", "dual"] = "auto",
        positions: Positions | None = None,
        strength: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.family = family
        self.selection = selection
        self.fraction = fraction
        self.magnitude_threshold = magnitude_threshold
        self.effect_threshold = effect_threshold
        self.layers = layers
        self.layer_count = layer_count
        self.target = target
        self.rank = rank
        self.keep_weight = keep_weight
        self.look_alike_weight = look_alike_weight
        self.reference_weight = reference_weight
        self.ridge = ridge
        self.null_space = null_space
        self.propagation = propagation
        self.teacher = teacher
        self.solver = solver
        self.positions = positions or POSITIONS
        self.strength = strength
        self.seed = seed
        if solver == "dual" and null_space is not None:
            raise ConfigError("the hard null space needs second moments; use solver='primal' with null_space")

    def aim(self, site: Site, low: Tensor, wanted: Tensor, anchors: Anchors) -> Tensor:
        """What an output should gain for each pair, (pairs, positions, width): the teacher's less the present one.
        Other aims override this (benchmarks/ideas.py).

        Args:
            site: which output.
            low: the present outputs for the anchors, (pairs, positions, width).
            wanted: the teacher's for the same.
            anchors: the pairs, in the order of the rows.
        """
        del site, anchors
        return wanted - low

    def settings(self) -> dict[str, Any]:
        """All parameters as plain values."""
        return {**{k: v for k, v in vars(self).items() if k != "positions"}, "positions": asdict(self.positions)}

    def fit(
        self,
        model: Any,
        tokenizer: Any,
        anchors: Anchors,
        *,
        cache: Path | None = None,
        fingerprint: str = "",
        replies: Mapping[tuple[str, str, str], str] | None = None,
        lessons: Mapping[tuple[str, str, str], Lesson] | None = None,
        progress: Progress | None = None,
    ) -> Edit:
        """Solves for the edit. The model is left as it was found.

        Args:
            model, tokenizer: the base model.
            anchors: pairs and keep set of the fit split.
            cache: folder for collected features; with it a killed fit resumes and a re-solve needs no forward pass.
            fingerprint: identifies the model's weights in the cache.
            replies: the base model's own replies by prompt key, needed for reply positions: each reference prompt's
                reply is also teacher-forced behind its translations.
            lessons: refusals in the anchors' languages by prompt key, for the teacher `own-language`.
            progress: called with (stage, done, total).

        Raises:
            ConfigError: a setting does not fit the model, or lessons are missing.
            DataError, NumericalError, UnsupportedModel: as raised by the parts.
        """
        started = time.monotonic()
        features = AnchorFeatures(
            self,
            model,
            tokenizer,
            anchors,
            FeatureSource(model, fingerprint, pad_id=tokenizer.pad_token_id or 0, cache=cache, progress=progress),
            replies or {},
            lessons or {},
        )
        fit = _Fit(self, model, features)
        edit = fit.solve()
        seconds = {"total": round(time.monotonic() - started, 2), "solve": round(fit.solve_seconds, 2)}
        manifest = {
            "method": METHOD,
            "citation": "arXiv 2602.22554",
            "lingualign": __version__,
            "family": self.family,
            "settings": self.settings(),
            "reference": anchors.reference,
            "anchor_languages": list(anchors.languages),
            "anchor_pairs": len(anchors.pairs),
            "keep_prompts": len(anchors.keep),
            "lessons": len(features.chats.taught),
            **features.chosen.record(),
            "model_fingerprint": fingerprint,
            "diagnostics": fit.diagnostics,
            "seconds": seconds,
        }
        return Edit(edit.deltas, edit.base, manifest)


class _Fit:
    """One call of `fit`: what is read of the model, and what has been solved so far."""

    def __init__(self, method: SparseWeightEdit, model: Any, features: AnchorFeatures) -> None:
        self.method = method
        self.model = model
        self.features = features
        self.source = features.source
        self.solve_seconds = 0.0
        self.diagnostics: list[dict[str, Any]] = []

    def solve(self) -> Edit:
        """The edit of all chosen layers, by the method's propagation."""
        states = self.features.trajectories()
        layers = self.features.layers
        edit = Edit({}, {})
        for index, layer in enumerate(layers):
            # Neurons and targets are the unedited model's, whatever the propagation.
            self.source.states = states.unedited
            matrices = self.features.matrices(layer)
            wanted = self.features.wanted([matrix.outputs for matrix in matrices])
            self.source.states = states.edited
            before = Edit({}, {}) if self.method.propagation == "none" else edit
            share = len(layers) - index if self.method.propagation == "split" else 1
            edit = edit + self._solve(matrices, wanted, before, share)
            if self.method.propagation != "none":
                states.follow(edit)
        return edit

    def _solve(self, matrices: Sequence[Matrix], wanted: Mapping[Site, Tensor], before: Edit, share: int) -> Edit:
        """Solves some matrices from features of the model with `before` applied; the target is divided by `share`."""
        fingerprint = self.source.fingerprint
        with before.applied(self.model):
            self.source.fingerprint = fingerprint + (before.fingerprint if before.deltas else "")
            try:
                inputs = list(dict.fromkeys(matrix.inputs for matrix in matrices))
                outputs = list(dict.fromkeys(matrix.outputs for matrix in matrices))
                low = self.features.low(list(dict.fromkeys([*inputs, *outputs])))
                keep = self._keep(inputs)
            finally:
                self.source.fingerprint = fingerprint
        started = time.monotonic()
        edit = Edit({}, {})
        for matrix in matrices:
            # Fingerprints are of the weight as it is stored, all else is of the matrix.
            base = weight_fingerprint(self.model, matrix.parameter)
            weight = weight_of(self.model, matrix.parameter)
            weight = weight.T if matrix.transposed else weight
            target = self.features.target(matrix, low[matrix.outputs], wanted[matrix.outputs]).flatten(0, 1) / share
            rows = low[matrix.inputs].reshape(-1, low[matrix.inputs].shape[-1])
            solution = self._solve_matrix(matrix, rows, target, keep[matrix.inputs])
            delta = LowRankDelta(
                (solution.out_factor * self.method.strength).float().contiguous(),
                solution.in_factor.float().contiguous(),
                (weight.shape[0], weight.shape[1]),
                matrix.rows,
                matrix.columns,
                matrix.transposed,
            )
            # Gate and up may lie in one weight: then their changes add.
            edit = edit + Edit({matrix.parameter: delta}, {matrix.parameter: base})
            self.diagnostics.append(_diagnose(matrix, delta, solution, weight))
        self.solve_seconds += time.monotonic() - started
        return Edit(edit.deltas, edit.base)

    def _keep(self, inputs: Sequence[Site]) -> dict[Site, Tensor]:
        """The keep set's rows where the solver is the dual, else their second moments (`counted_gram`); each kind is
        counted as often as the method says."""
        counts = keep_counts(self.method.look_alike_weight, self.method.reference_weight)
        if self.features.dual:
            of_chats = [counts[kind] for kind, group in self.features.groups.items() for _ in group]
            return {site: counted_rows(rows, of_chats) for site, rows in self.features.keep_rows(inputs).items()}
        return {site: counted_gram(parts, counts) for site, parts in self.features.keep_moments(inputs).items()}

    def _solve_matrix(self, matrix: Matrix, rows: Tensor, target: Tensor, keep: Tensor) -> Solution:
        method = self.method
        options: dict[str, Any] = {"keep_weight": method.keep_weight, "ridge": method.ridge, "rank": method.rank}
        if matrix.columns is not None:
            rows, keep = rows[:, matrix.columns], keep[..., matrix.columns]
        if self.features.dual:
            return solve_dual(rows, target, keep.flatten(0, 1), **options)
        if matrix.columns is not None:
            keep = keep[matrix.columns]
        basis = None if method.null_space is None else null_space_basis(keep, method.null_space)
        if basis is not None or method.ridge < _FLOAT32_RIDGE:
            rows, target = rows.double(), target.double()
        if basis is not None:
            rows, keep = rows @ basis, basis.T @ whole(keep) @ basis
        target_square = float(target.square().sum(dtype=torch.float64)) / rows.shape[0]
        solution = solve_primal(mean_gram(rows), mean_product(rows, target), target_square, keep, **options)
        return solution if basis is None else replace(solution, in_factor=basis @ solution.in_factor)


def _diagnose(matrix: Matrix, delta: LowRankDelta, solution: Solution, weight: Tensor) -> dict[str, Any]:
    return {
        "tensor": matrix.parameter,
        "layer": matrix.layer,
        "rank": delta.rank,
        "rows": len(matrix.rows) if matrix.rows is not None else delta.shape[0],
        "columns": len(matrix.columns) if matrix.columns is not None else delta.shape[1],
        "relative_change": frobenius(delta.out_factor, delta.in_factor) / float(weight.float().norm()),
        "explained": solution.explained,
        "objective": solution.objective,
        "singular_values": [float(value) for value in solution.singular_values[:64]],
    }
