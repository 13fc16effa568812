"""Many settings of the closed-form edit from one pass over the anchors: every block is solved again from its features,
and scored on prompts that it was not solved from.

What can be swept needs no further forward pass: the weights γ, λ and those of the keep set, the null space, rank,
strength, and which of the collected blocks change. All features are the unedited model's, as for `propagation="none"`.

For one matrix the second moments are computed once; other weights combine them anew. One solve serves all ranks, since
its first r columns are the solution of rank r, all strengths and all windows of blocks: the scores are sums over its
components. Another γ or λ is another factorisation: one eigendecomposition for all λ of a γ takes the time of several
(`benchmarks/sweep.py`), and a grid has few λ.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from lingualign.data.schema import Prompt
from lingualign.errors import ConfigError, DataError
from lingualign.features.collect import Site
from lingualign.features.moments import Moments
from lingualign.methods.anchor_features import AnchorFeatures, Matrix, counted_gram, counted_rows, keep_counts
from lingualign.solvers.gram import mean_gram, mean_product, whole
from lingualign.solvers.low_rank import Solution, solve_dual, solve_primal
from lingualign.solvers.null_space import null_space_basis

#: Share of the seeds that are not solved from.
HELD_OUT = 0.2
#: Kind and language of prompts.
Group = tuple[str, str]


@dataclass(frozen=True)
class Setting:
    """One point of the grid; names and meaning as in `SparseWeightEdit`. `layers` are some of the collected blocks, all
    of them where it is None."""

    keep_weight: float
    look_alike_weight: float
    reference_weight: float
    ridge: float
    null_space: float | None
    rank: int | None
    strength: float
    layers: tuple[int, ...] | None = None

    @property
    def solve(self) -> Setting:
        """The same for all settings that one solve serves."""
        return replace(self, rank=None, strength=1.0, layers=None)


@dataclass(frozen=True)
class Score:
    """Proxies of one setting, on held-out prompts. Means over the collected blocks, of which those that the setting
    leaves alone explain nothing and leak nothing; in a block, means over its edited matrices.

    Attributes:
        setting: with its blocks named.
        explained_by_language: 1 - ‖X ΔWᵀ - D‖² / ‖D‖² of harmful prompts in each anchor language: the share of the gap
            to the teacher's outputs that the edit closes; negative where it makes it wider.
        change_by_group: ‖K ΔWᵀ‖² / ‖Y‖² of the keep set by kind and language: the change of the outputs Y in units of
            their own second moment.
    """

    setting: Setting
    explained_by_language: Mapping[str, float]
    change_by_group: Mapping[Group, float]

    @cached_property
    def explained(self) -> float:
        """Mean over the anchors' languages: the proxy of what is gained."""
        return _mean(self.explained_by_language.values())

    @property
    def worst_explained(self) -> float:
        """In the language where it is least."""
        return min(self.explained_by_language.values())

    @cached_property
    def leakage(self) -> float:
        """Mean change over harmless and look-alike prompts of all languages: the proxy of what it costs."""
        return _mean(self._leaks)

    @property
    def worst_leakage(self) -> float:
        """In the kind and language where it is largest."""
        return max(self._leaks)

    @property
    def reference_change(self) -> float:
        """Of the reference language's harmful prompts, whose refusals are to stay as they are."""
        return _mean(value for (kind, _), value in self.change_by_group.items() if kind == "harmful")

    @property
    def _leaks(self) -> list[float]:
        return [value for (kind, _), value in self.change_by_group.items() if kind != "harmful"]


@dataclass(frozen=True)
class Sweep:
    """What a sweep found.

    Attributes:
        layers: the collected blocks.
        scores: one a setting, in the settings' order.
        solves: number of factorisations for each matrix.
        solved: number of pairs that were solved from.
        held_out: number of prompts scored on by kind and language.
        seconds: `collect` and `re-solve`.
    """

    layers: tuple[int, ...]
    scores: tuple[Score, ...]
    solves: int
    solved: int
    held_out: Mapping[Group, int]
    seconds: Mapping[str, float]


def is_held_out(seed_id: str) -> bool:
    """Whether a seed is scored on instead of solved from: by a hash of its id alone, so that its languages and kinds
    fall on one side."""
    # Salted: the splits hash ids too, and must be independent of this.
    digest = hashlib.sha256(f"sweep\0{seed_id}".encode()).digest()
    return int.from_bytes(digest[:8]) < HELD_OUT * 2**64


def pareto_front(scores: Iterable[Score]) -> list[Score]:
    """Those that no other beats in `explained` or `leakage` without being worse in the other, by rising leakage. Of
    equals the first."""
    front: list[Score] = []
    for score in sorted(scores, key=lambda score: (score.leakage, -score.explained)):
        if not front or score.explained > front[-1].explained:
            front.append(score)
    return front


def sweep(
    features: AnchorFeatures,
    settings: Sequence[Setting],
    progress: Callable[[str, int, int], None] = lambda _stage, _done, _total: None,
) -> Sweep:
    """Solves and scores all settings, block by block; what is in memory is one block's features.

    Args:
        features: of the unedited model; their layers are the blocks that any setting may change.
        settings: the grid.
        progress: called with (stage, done, total).

    Raises:
        ConfigError: a setting has a null space, and the features are for the dual solver.
        DataError: there are too few prompts to hold some out in each language.
        NumericalError: a setting's system is singular; raised as by the solvers.
    """
    started = time.monotonic()
    if features.dual and any(setting.null_space is not None for setting in settings):
        raise ConfigError("the hard null space needs second moments; use solver = 'primal' with null_space")
    division = _Division(features)
    layers = tuple(features.layers)
    # Those with the same keep set and null space follow each other: what they share is computed once.
    solves = sorted({setting.solve for setting in settings}, key=_shared_first)
    ranks = tuple(dict.fromkeys(setting.rank for setting in settings))
    states = features.trajectories(division.held_chats)
    components: dict[Setting, list[list[_Components]]] = {solve: [] for solve in solves}
    solving = 0.0
    for block, layer in enumerate(layers):
        features.source.states = states.unedited
        matrices = features.matrices(layer)
        wanted = features.wanted([matrix.outputs for matrix in matrices])
        features.source.states = states.edited
        problems = division.problems(matrices, wanted)
        since = time.monotonic()
        for done, solve in enumerate(solves, start=1):
            components[solve].append([problem.scored(solve, ranks) for problem in problems])
            progress("solving", block * len(solves) + done, len(layers) * len(solves))
        solving += time.monotonic() - since
    since = time.monotonic()
    scores = tuple(
        _score(replace(setting, layers=setting.layers or layers), layers, components[setting.solve], ranks, division)
        for setting in settings
    )
    now = time.monotonic()
    return Sweep(
        layers,
        scores,
        len(solves),
        len(division.solved_pairs),
        division.counts,
        {"collect": round(since - started - solving, 3), "re-solve": round(solving + now - since, 3)},
    )


def _shared_first(solve: Setting) -> tuple[float, ...]:
    null_space = -1.0 if solve.null_space is None else solve.null_space
    return (solve.look_alike_weight, solve.reference_weight, null_space, solve.keep_weight, solve.ridge)


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)


@dataclass(frozen=True)
class _Components:
    """Sums over held-out rows that give the score of one solution at each of some ranks and at any strength.

    Attributes:
        linear: ⟨X ΔWᵀ, D⟩ / ‖D‖², (languages, ranks).
        quadratic: ‖X ΔWᵀ‖² / ‖D‖², (languages, ranks).
        change: ‖K ΔWᵀ‖² / ‖Y‖², (groups, ranks).
    """

    linear: Tensor
    quadratic: Tensor
    change: Tensor


def _score(
    setting: Setting,
    layers: Sequence[int],
    blocks: Sequence[Sequence[_Components]],
    ranks: Sequence[int | None],
    division: _Division,
) -> Score:
    """1 - ‖s X ΔWᵀ - D‖² / ‖D‖² is 2s⟨X ΔWᵀ, D⟩/‖D‖² - s²‖X ΔWᵀ‖²/‖D‖²."""
    assert setting.layers is not None
    at, strength = ranks.index(setting.rank), setting.strength
    explained = torch.zeros(len(division.languages), dtype=torch.float64)
    change = torch.zeros(len(division.groups), dtype=torch.float64)
    for layer, matrices in zip(layers, blocks, strict=True):
        if layer not in setting.layers:
            continue
        for found in matrices:
            explained += (2 * strength * found.linear[:, at] - strength**2 * found.quadratic[:, at]) / len(matrices)
            change += strength**2 * found.change[:, at] / len(matrices)
    return Score(
        setting,
        dict(zip(division.languages, (explained / len(layers)).tolist(), strict=True)),
        dict(zip(division.groups, (change / len(layers)).tolist(), strict=True)),
    )


class _Division:
    """Which anchors are solved from and which are scored on.

    Raises:
        DataError: a language has no pair on one of the sides, or neither harmless nor look-alike prompts are.
    """

    def __init__(self, features: AnchorFeatures) -> None:
        self.features = features
        anchors = features.anchors
        lows = [low for _, low in anchors.pairs]
        self._positions = features.method.positions.rows
        self.solved_pairs, self.held_pairs = _sides(lows)
        self.languages = anchors.languages
        for side, pairs in (("held out", self.held_pairs), ("solved from", self.solved_pairs)):
            present = {lows[pair].language for pair in pairs}
            if missing := [language for language in self.languages if language not in present]:
                raise DataError(
                    f"a sweep holds out one of five harmful seeds, and none in {missing[0]} is {side}; "
                    "add prompts to the fit split"
                )
        # In the order of the groups, as `keep_rows` gives them.
        self.keep = [prompt for kind in features.groups for prompt in anchors.keep if prompt.kind == kind]
        chats = [chat for group in features.groups.values() for chat in group]
        self.solved_keep, self.held_keep = _sides(self.keep)
        self.held_chats = [chats[index] for index in self.held_keep]
        held = [self.keep[index] for index in self.held_keep]
        self.groups: tuple[Group, ...] = tuple(dict.fromkeys((prompt.kind, prompt.language) for prompt in held))
        for side, keep in (("held out", self.held_keep), ("solved from", self.solved_keep)):
            if all(self.keep[index].kind == "harmful" for index in keep):
                raise DataError(
                    "a sweep holds out one of five harmless and look-alike seeds, and none is "
                    f"{side}; add prompts to the fit split"
                )
        of_language = {language: place for place, language in enumerate(self.languages)}
        of_group = {group: place for place, group in enumerate(self.groups)}
        self.pair_places = self._rows([of_language[lows[pair].language] for pair in self.held_pairs])
        self.keep_places = self._rows([of_group[prompt.kind, prompt.language] for prompt in held])

    @property
    def counts(self) -> dict[Group, int]:
        """Held-out prompts by kind and language."""
        found: dict[Group, int] = {}
        lows = [self.features.anchors.pairs[pair][1] for pair in self.held_pairs]
        for prompt in (*lows, *(self.keep[index] for index in self.held_keep)):
            found[prompt.kind, prompt.language] = found.get((prompt.kind, prompt.language), 0) + 1
        return found

    def problems(self, matrices: Sequence[Matrix], wanted: Mapping[Site, Tensor]) -> list[_Problem]:
        """Reads what the matrices of one block are solved from and scored on."""
        features = self.features
        inputs = list(dict.fromkeys(matrix.inputs for matrix in matrices))
        sites = list(dict.fromkeys([*inputs, *(matrix.outputs for matrix in matrices)]))
        low = features.low(sites)
        held = features.source.rows(self.held_chats, sites, features.method.positions, "held-out keep set")
        kept_rows = features.keep_rows(inputs) if features.dual else {}
        kept_moments = {} if features.dual else features.keep_moments(inputs)
        problems = []
        for matrix in matrices:
            columns: Tensor | slice = slice(None) if matrix.columns is None else matrix.columns
            changed: Tensor | slice = slice(None) if matrix.rows is None else matrix.rows
            rows = low[matrix.inputs][..., columns]
            target = features.target(matrix, low[matrix.outputs], wanted[matrix.outputs])
            held_inputs = held[matrix.inputs][..., columns]
            held_outputs = held[matrix.outputs][..., changed]
            solved = (rows[self.solved_pairs].flatten(0, 1).double(), target[self.solved_pairs].flatten(0, 1).double())
            system: _System
            if features.dual:
                kinds = [self.keep[index].kind for index in self.solved_keep]
                system = _Dual(*solved, kept_rows[matrix.inputs][self.solved_keep][..., columns], kinds)
            else:
                system = _Primal(*solved, self._solved_moments(kept_moments[matrix.inputs], held_inputs, columns))
            scored_on = (rows[self.held_pairs], target[self.held_pairs], held_inputs, held_outputs)
            problems.append(_Problem(system, self, *(part.flatten(0, 1) for part in scored_on)))
        return problems

    def _solved_moments(
        self, moments: Mapping[str, Moments], held_inputs: Tensor, columns: Tensor | slice
    ) -> dict[str, Moments]:
        """Moments by kind of what is solved from: all less those held out. So the cache has what a fit of all anchors
        needs."""
        solved = {}
        for kind, both in moments.items():
            kept = Moments(both.count, both.total[columns], both.outer[columns][:, columns])
            held = Moments.empty(held_inputs.shape[-1])
            held.add(held_inputs[torch.tensor([self.keep[index].kind == kind for index in self.held_keep])])
            solved[kind] = kept.without(held)
        return solved

    def _rows(self, places: Sequence[int]) -> Tensor:
        """The place of each prompt for each of its rows."""
        return torch.tensor(places).repeat_interleave(self._positions)


def _sides(prompts: Sequence[Prompt]) -> tuple[list[int], list[int]]:
    """Indices of those that are solved from, and of those held out."""
    held = [is_held_out(prompt.seed_id) for prompt in prompts]
    return [index for index, out in enumerate(held) if not out], [index for index, out in enumerate(held) if out]


class _System(Protocol):
    """What one matrix is solved from, as often as asked."""

    def solve(self, setting: Setting, rank: int | None) -> Solution: ...


class _Primal:
    """From second moments.

    Args:
        rows: X, (n, d) float64.
        targets: D, (n, m) float64.
        keep: moments of the keep set by kind.
    """

    def __init__(self, rows: Tensor, targets: Tensor, keep: Mapping[str, Moments]) -> None:
        self._gram, self._cross = mean_gram(rows), mean_product(rows, targets)
        self._target_square = float(targets.square().sum()) / rows.shape[0]
        self._keep = keep
        self._shared: tuple[object, tuple[Tensor, Tensor, Tensor, Tensor | None]] | None = None

    def solve(self, setting: Setting, rank: int | None) -> Solution:
        gram, cross, keep_gram, basis = self._moments(setting)
        solution = solve_primal(
            gram,
            cross,
            self._target_square,
            keep_gram,
            keep_weight=setting.keep_weight,
            ridge=setting.ridge,
            rank=rank,
        )
        return solution if basis is None else replace(solution, in_factor=basis @ solution.in_factor)

    def _moments(self, setting: Setting) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """XᵀX/n, XᵀD/n and KᵀK/k, in the coordinates of the null space where there is one, and its basis."""
        key = (setting.look_alike_weight, setting.reference_weight, setting.null_space)
        if self._shared is None or self._shared[0] != key:
            counts = keep_counts(setting.look_alike_weight, setting.reference_weight)
            keep_gram = counted_gram(self._keep, counts)
            gram, cross = self._gram, self._cross
            basis: Tensor | None = None
            if setting.null_space is not None:
                basis = null_space_basis(keep_gram, setting.null_space)
                gram, keep_gram = (basis.T @ whole(lower) @ basis for lower in (gram, keep_gram))
                cross = basis.T @ cross
            self._shared = (key, (gram, cross, keep_gram, basis))
        return self._shared[1]


class _Dual:
    """From rows, where they are fewer than the matrix is wide; the null space needs the other form.

    Args:
        rows: X, (n, d).
        targets: D, (n, m).
        keep: K, (chats, positions, d).
        kinds: of the keep set's chats.
    """

    def __init__(self, rows: Tensor, targets: Tensor, keep: Tensor, kinds: Sequence[str]) -> None:
        self._rows, self._targets, self._keep, self._kinds = rows, targets, keep, kinds

    def solve(self, setting: Setting, rank: int | None) -> Solution:
        counts = keep_counts(setting.look_alike_weight, setting.reference_weight)
        kept = counted_rows(self._keep, [counts[kind] for kind in self._kinds]).flatten(0, 1)
        return solve_dual(
            self._rows, self._targets, kept, keep_weight=setting.keep_weight, ridge=setting.ridge, rank=rank
        )


class _Problem:
    """One matrix: what it is solved from, and the held-out rows that a solution is scored on.

    Args:
        system: solves it.
        division: which language and group each row is of.
        rows, targets: X and D of held-out pairs, (rows, d) and (rows, m).
        keep_inputs, keep_outputs: K and Y of held-out prompts of the keep set, (rows, d) and (rows, m).
    """

    def __init__(
        self,
        system: _System,
        division: _Division,
        rows: Tensor,
        targets: Tensor,
        keep_inputs: Tensor,
        keep_outputs: Tensor,
    ) -> None:
        self._system, self._division = system, division
        self._rows, self._targets, self._keep_inputs = rows, targets, keep_inputs
        self._target_square = self._by_language(targets.square().sum(1, keepdim=True))
        self._output_square = self._by_group(keep_outputs.square().sum(1, keepdim=True))

    def scored(self, solve: Setting, ranks: Sequence[int | None]) -> _Components:
        """Solves at the largest rank and scores at each."""
        solution = self._system.solve(solve, None if None in ranks else max(rank for rank in ranks if rank is not None))
        in_factor, out_factor = solution.in_factor.float(), solution.out_factor.float()
        at = [solution.rank if rank is None else min(rank, solution.rank) for rank in ranks]
        # The columns of the out-factor are orthonormal, so that squares and products are sums over components.
        projected = self._rows @ in_factor
        return _Components(
            _sums(self._by_language(projected * (self._targets @ out_factor)), at) / self._target_square,
            _sums(self._by_language(projected.square()), at) / self._target_square,
            _sums(self._by_group((self._keep_inputs @ in_factor).square()), at) / self._output_square,
        )

    def _by_language(self, values: Tensor) -> Tensor:
        return _summed(values, self._division.pair_places, len(self._division.languages))

    def _by_group(self, values: Tensor) -> Tensor:
        return _summed(values, self._division.keep_places, len(self._division.groups))


def _summed(values: Tensor, places: Tensor, count: int) -> Tensor:
    """Sums of rows by place, (count, width) float64."""
    return torch.zeros(count, values.shape[1], dtype=torch.float64).index_add_(0, places, values.double())


def _sums(components: Tensor, ranks: Sequence[int]) -> Tensor:
    """Sums over the first components, (rows, ranks)."""
    started = torch.cat([components.new_zeros(len(components), 1), components.cumsum(1)], 1)
    return started[:, list(ranks)]
