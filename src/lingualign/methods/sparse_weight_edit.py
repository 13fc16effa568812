"""Sparse Weight Editing (Liang, Wang, Wang 2026, arXiv 2602.22554): a closed-form, rank-limited edit of MLP weights.

Two families share the solver and differ in what they change and aim at:

- `paper`: rows of `gate_proj` and `up_proj` that belong to safety neurons. Target: what those rows give for the
  paired reference prompt. `target="pre"` compares pre-activations, the reading under which the objective is exact;
  `target="post"` takes the reference's post-activations.
- `output`: `down_proj`, on all or on the selected neurons' columns. The MLP is linear in this weight, so the target
  is exact: the MLP's own output for the paired reference prompt. In a mixture of experts the shared expert's
  `down_proj` is changed, for what the whole mixture put out: linear too, since every token passes that expert.

The paper leaves layers, token positions, γ, λ and the number of anchors open; here all are explicit and recorded in
the edit's manifest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lingualign import __version__
from lingualign.edit import Edit, LowRankDelta, weight_fingerprint
from lingualign.errors import ConfigError, UnsupportedModel
from lingualign.features.block_major import Batch, trajectories
from lingualign.features.carry import Trajectories
from lingualign.features.collect import Site
from lingualign.features.moments import Moments
from lingualign.features.positions import Positions
from lingualign.features.store import FeatureSource
from lingualign.methods.anchor_chats import encode_anchors
from lingualign.methods.anchors import Anchors
from lingualign.methods.controls import frobenius
from lingualign.methods.layers import choose_layers
from lingualign.methods.own_language import Lesson
from lingualign.methods.selection import Selection, select_neurons
from lingualign.models.chat import EncodedChat
from lingualign.models.locate import locate_mlps
from lingualign.models.matrices import MlpMatrices, require_editable
from lingualign.models.stages import weight_of
from lingualign.solvers.low_rank import Solution, solve_dual, solve_primal
from lingualign.solvers.null_space import null_space_basis

#: What the manifest of its edits names it.
METHOD = "sparse-weight-edit"
Family = Literal["paper", "output"]
#: What progress calls the groups of the keep set.
_KEEP_NAMES = {"harmless": "harmless", "look-alike": "look-alikes", "harmful": "reference"}
#: Where features are read unless told otherwise. Without reply tokens replies begin like the reference's refusal and go
#: on in the prompt's language (docs/choosing-defaults.md).
POSITIONS = Positions(template_tokens=5, reply_tokens=4)
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Matrix:
    """One weight to be solved: which rows or columns change, how it is stored, and where its features come from."""

    parameter: str
    inputs: Site
    outputs: Site
    rows: Tensor | None
    columns: Tensor | None
    layer: int
    transposed: bool
    activation: Any | None = None


class SparseWeightEdit:
    """The closed-form edit; the constructor only stores parameters, `fit` returns an `Edit`.

    Args:
        family: `output` or `paper`, see the module's text.
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
        if self.teacher == "own-language" and not lessons:
            raise ConfigError(
                "no anchor has a refusal in its own language, even where the model is told to refuse in it; "
                "use teacher = 'reference'"
            )
        fit = _Fit(
            self,
            model,
            tokenizer,
            anchors,
            FeatureSource(model, fingerprint, pad_id=tokenizer.pad_token_id or 0, cache=cache, progress=progress),
            replies or {},
            (lessons or {}) if self.teacher == "own-language" else {},
        )
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
            "lessons": len(fit.taught),
            **fit.chosen.record(),
            "model_fingerprint": fingerprint,
            "diagnostics": fit.diagnostics,
            "seconds": seconds,
        }
        return Edit(edit.deltas, edit.base, manifest)


class _Fit:
    """One call of `fit`: the model, the encoded anchors, and what has been solved so far."""

    def __init__(
        self,
        method: SparseWeightEdit,
        model: Any,
        tokenizer: Any,
        anchors: Anchors,
        source: FeatureSource,
        replies: Mapping[tuple[str, str, str], str],
        lessons: Mapping[tuple[str, str, str], Lesson],
    ) -> None:
        self.method = method
        self.model = model
        self.source = source
        self.mlps = locate_mlps(model)
        require_editable(self.mlps)
        self.anchors = anchors
        chats = encode_anchors(tokenizer, anchors, method.positions, replies, lessons)
        self.reference_of = chats.reference_of
        self.taught, self.teacher_chats = chats.taught, chats.teachers
        self.reference_chats, self.low_chats, self.keep_chats = chats.reference, chats.low, chats.keep
        keep = list(zip(anchors.keep, self.keep_chats, strict=True))
        self._groups = {kind: [chat for prompt, chat in keep if prompt.kind == kind] for kind in _KEEP_NAMES}
        self._plain = [
            chat for prompt, chat in keep if prompt.language == anchors.reference and prompt.kind != "harmful"
        ]
        self.solve_seconds = 0.0
        self.diagnostics: list[dict[str, Any]] = []
        self.chosen = choose_layers(
            method.layers,
            method.layer_count,
            source,
            self.mlps,
            [*chats.references, *(low for _, low in anchors.pairs)],
            [*chats.reference, *chats.low],
        )
        self.layers = self.chosen.layers

    def solve(self) -> Edit:
        """The edit of all chosen layers, by the method's propagation."""
        states = self._trajectories()
        edit = Edit({}, {})
        for index, layer in enumerate(self.layers):
            # Neurons and targets are the unedited model's, whatever the propagation.
            self.source.states = states.unedited
            matrices = self._matrices(layer)
            wanted = self._wanted([matrix.outputs for matrix in matrices])
            self.source.states = states.edited
            before = Edit({}, {}) if self.method.propagation == "none" else edit
            share = len(self.layers) - index if self.method.propagation == "split" else 1
            edit = edit + self._solve(matrices, wanted, before, share)
            if self.method.propagation != "none":
                states.follow(edit)
        return edit

    def _trajectories(self) -> Trajectories:
        """The states of all chats that will be read, on their way through the blocks."""
        neurons = self._plain if self.method.selection != "all" else []
        kept = list(self._groups.values())
        if self._dual:
            kept = [[chat for group in kept for chat in group]]

        def batches(*groups: list[EncodedChat]) -> list[Batch]:
            return [batch for group in groups for batch in self.source.batches(group)]

        return trajectories(
            self.model,
            self.mlps[0].block.rpartition(".")[0],
            batches(self.reference_chats, self.teacher_chats, neurons),
            batches(self.low_chats, *kept),
            pad_id=self.source.pad_id,
            folder=self.source.cache,
            on_block=lambda done, total: self.source.progress("passing blocks", done, total),
        )

    def _wanted(self, outputs: Sequence[Site]) -> dict[Site, Tensor]:
        """What each output should be for each pair, (pairs, positions, width): the teacher's."""
        positions = self.method.positions
        wanted = {
            site: rows[self.reference_of]
            for site, rows in self.source.rows(self.reference_chats, outputs, positions, "reference").items()
        }
        if self.taught:
            for site, rows in self.source.rows(self.teacher_chats, outputs, positions, "own language").items():
                wanted[site][self.taught] = rows
        return wanted

    def _solve(self, matrices: Sequence[Matrix], wanted: Mapping[Site, Tensor], before: Edit, share: int) -> Edit:
        """Solves some matrices from features of the model with `before` applied; the target is divided by `share`."""
        fingerprint = self.source.fingerprint
        with before.applied(self.model):
            self.source.fingerprint = fingerprint + (before.fingerprint if before.deltas else "")
            try:
                inputs = list(dict.fromkeys(matrix.inputs for matrix in matrices))
                outputs = list(dict.fromkeys(matrix.outputs for matrix in matrices))
                positions = self.method.positions
                low = self.source.rows(self.low_chats, list(dict.fromkeys([*inputs, *outputs])), positions, "anchors")
                keep = self._keep_features(inputs)
            finally:
                self.source.fingerprint = fingerprint
        started = time.monotonic()
        edit = Edit({}, {})
        for matrix in matrices:
            # Fingerprints are of the weight as it is stored, all else is of the matrix.
            base = weight_fingerprint(self.model, matrix.parameter)
            weight = weight_of(self.model, matrix.parameter)
            weight = weight.T if matrix.transposed else weight
            target = self._target(matrix, low[matrix.outputs], wanted[matrix.outputs]) / share
            rows = low[matrix.inputs].reshape(-1, low[matrix.inputs].shape[-1])
            solution = self._solve_matrix(matrix, rows.double(), target.double(), keep[matrix.inputs])
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

    def _matrices(self, layer: int) -> list[Matrix]:
        mlp = self.mlps[layer]
        down = mlp.down_matrix
        if self.method.family == "output":
            # Neurons are the columns of the output matrix: their activations are its inputs.
            inputs = Site(down.module, "input")
            columns = self._select(inputs, slice(0, down.in_width))
            return [Matrix(down.parameter, inputs, Site(mlp.output, "output"), None, columns, layer, down.transposed)]
        if mlp.routed:
            raise UnsupportedModel(
                f"{mlp.mlp} is a mixture of experts, where the family 'paper' would change the shared expert's neurons "
                "and none of the routed ones'; use family = 'output'"
            )
        matrices = []
        for inner in mlp.inner_matrices:
            outputs = Site(inner.module, "output")
            neurons = slice(inner.first_row, inner.first_row + inner.out_width)
            rows = self._select(outputs, neurons)
            if rows is None and self.model.get_parameter(inner.parameter).numel() != inner.in_width * inner.out_width:
                rows = torch.arange(neurons.start, neurons.stop)
            activation = _activation(self.model, mlp) if inner.role == "gate" and self.method.target == "post" else None
            matrices.append(
                Matrix(
                    inner.parameter,
                    Site(inner.module, "input"),
                    outputs,
                    rows,
                    None,
                    layer,
                    inner.transposed,
                    activation,
                )
            )
        return matrices

    def _select(self, site: Site, neurons: slice) -> Tensor | None:
        """The neurons to change, by their activations on the reference language's harmful and harmless prompts:
        indices among the site's features, of which `neurons` are asked for. None for all."""
        method = self.method
        if method.selection == "all":
            return None
        harmful_rows = self.source.rows(self.reference_chats, [site], method.positions, "neurons")[site].mean(1)
        harmless_rows = self.source.rows(self._plain, [site], method.positions, "neurons")[site].mean(1)
        harmful_rows, harmless_rows = harmful_rows[:, neurons], harmless_rows[:, neurons]
        chosen = select_neurons(
            method.selection,
            harmful_rows,
            harmless_rows,
            magnitude_threshold=method.magnitude_threshold,
            effect_threshold=method.effect_threshold,
            fraction=method.fraction,
            seed=method.seed,
        )
        if chosen is not None and len(chosen) == 0:
            raise ConfigError(
                f"no neuron of {site.module} passes the selection; lower the thresholds or give `fraction`"
            )
        return None if chosen is None else chosen + neurons.start

    def _target(self, matrix: Matrix, low: Tensor, wanted: Tensor) -> Tensor:
        """D, (pairs · positions, changed outputs): what the matrix should add for each row."""
        if matrix.activation is not None:
            wanted = matrix.activation(wanted)
        gap = self.method.aim(matrix.outputs, low, wanted, self.anchors).reshape(-1, low.shape[-1])
        return gap if matrix.rows is None else gap[:, matrix.rows]

    @property
    def _dual(self) -> bool:
        """Whether the dual solver is used, which needs the keep set's rows."""
        method = self.method
        row_count = (len(self.low_chats) + len(self.keep_chats)) * method.positions.rows
        narrow = row_count < min(self.mlps[0].inner_size, self.mlps[0].hidden_size)
        return method.solver == "dual" or (method.solver == "auto" and narrow and method.null_space is None)

    def _keep_features(self, inputs: Sequence[Site]) -> Mapping[Site, Tensor | Moments]:
        """Rows of the keep set for the dual solver, else their moments, which take no more room however many rows
        there are."""
        method, positions = self.method, self.method.positions
        weight_of = {"harmless": 1.0, "look-alike": method.look_alike_weight, "harmful": method.reference_weight}
        if self._dual:
            chats = [chat for group in self._groups.values() for chat in group]
            rows = self.source.rows(chats, inputs, positions, "keep set")
            counts = torch.tensor([weight_of[kind] for kind, group in self._groups.items() for _ in group])
            # Mean second moments of the scaled rows equal those of rows counted so many times.
            scale = (counts / counts.mean()).sqrt()[:, None, None]
            return {site: values * scale for site, values in rows.items()}
        kept: dict[Site, Moments] = {}
        for kind, group in self._groups.items():
            if not group:
                continue
            found = self.source.moments(group, inputs, positions, f"keep set, {_KEEP_NAMES[kind]}")
            for site, moments in found.items():
                part = moments.weighted(weight_of[kind])
                kept[site] = kept[site].merged(part) if site in kept else part
        return kept

    def _solve_matrix(self, matrix: Matrix, rows: Tensor, target: Tensor, keep: Tensor | Moments) -> Solution:
        method = self.method
        options: dict[str, Any] = {"keep_weight": method.keep_weight, "ridge": method.ridge, "rank": method.rank}
        if matrix.columns is not None:
            rows = rows[:, matrix.columns]
        if isinstance(keep, Tensor):
            kept = keep.reshape(-1, keep.shape[-1]).double()
            return solve_dual(rows, target, kept if matrix.columns is None else kept[:, matrix.columns], **options)
        keep_gram = keep.gram
        if matrix.columns is not None:
            keep_gram = keep_gram[matrix.columns][:, matrix.columns]
        basis = None if method.null_space is None else null_space_basis(keep_gram, method.null_space)
        if basis is not None:
            rows, keep_gram = rows @ basis, basis.T @ keep_gram @ basis
        count = rows.shape[0]
        target_square = float(target.square().sum()) / count
        solution = solve_primal(rows.T @ rows / count, rows.T @ target / count, target_square, keep_gram, **options)
        return solution if basis is None else replace(solution, in_factor=basis @ solution.in_factor)


def _activation(model: Any, mlp: MlpMatrices) -> Any:
    """The MLP's activation function: its only child without parameters."""
    children = [child for child in model.get_submodule(mlp.mlp).children() if not list(child.parameters())]
    if len(children) != 1:
        raise ConfigError(
            f"{mlp.mlp} has no single activation module, so the post-activation target is unknown; use target='pre'"
        )
    return children[0]


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
