"""MoCAN and PeCAN: λ from the dual, its interval, pseudo-preferences, one preference training."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lingualign import __version__
from lingualign.data.schema import Prompt
from lingualign.edit import Edit
from lingualign.errors import ConfigError, DataError
from lingualign.evaluate.sequences import check_responses
from lingualign.evaluate.statistics import expanded_percentiles, resampled_rows
from lingualign.methods.constrained_alignment.preferences import PreferenceTrainer, draw_pairs, pseudo_preferences
from lingualign.solvers.constrained_dual import minimise_dual

CITATION = "arXiv 2405.19544"
#: The name of the one constraint over all prompts.
ALL = "all"
_FAITHFULNESS = {
    "equal": [
        "the dual, its minimiser and the tilted policy",
        "pseudo-preferences drawn by Bradley-Terry, then one preference training",
    ],
    "differs": [
        "a projected Newton method to a tolerance instead of gradient steps with a halved rate",
        "infeasible constraints are found by the dual's growth along rays, not by lack of convergence",
        "pairs are drawn from the replies lambda was computed on, not from a preference data set",
        "per_language: one constraint and one lambda for each language",
        "negative margins are refused",
    ],
    "unknown": ["the paper's tables and intervals"],
}


@dataclass(frozen=True)
class Multipliers:
    """λ* of every constraint, and how far to trust it.

    Attributes:
        groups: what each constraint covers: `all`, or language tags.
        values: λ*.
        intervals: bootstrap interval of each λ*, by whole seeds; an end of None is unbounded: that many draws could not
            meet the constraint.
        infeasible_resamples: bootstrap draws in which no re-weighting met the constraints; they count as λ* = ∞.
        reference_safety: E_ref[g] of each group.
        predicted_safety: E_π*[g] of each group, what training aims at.
        best_safety: the most that re-weighting the sampled replies can reach.
        effective_sample_size: 1/Σp² of each prompt. Near 1, a single reply stands for the whole distribution, and λ* is
            biased; raise β or sample more replies.
        projected_gradient: convergence, zero at the optimum.
        steps: Newton steps.
    """

    groups: tuple[str, ...]
    values: tuple[float, ...]
    intervals: tuple[tuple[float | None, float | None], ...]
    infeasible_resamples: int
    reference_safety: tuple[float, ...]
    predicted_safety: tuple[float, ...]
    best_safety: tuple[float, ...]
    effective_sample_size: tuple[float, ...]
    projected_gradient: float
    steps: int

    def of(self, language: str) -> float:
        """λ* for prompts of a language."""
        return self.values[0 if self.groups == (ALL,) else self.groups.index(language)]


class _ConstrainedAlignment:
    """What MoCAN and PeCAN share; `name` and the scores differ."""

    name: str

    def __init__(
        self,
        *,
        margin: float | Mapping[str, float],
        beta: float = 0.1,
        per_language: bool = False,
        pairs_per_prompt: int = 1,
        resamples: int = 200,
        seed: int = 0,
    ) -> None:
        self.margin = margin
        self.beta = beta
        self.per_language = per_language
        self.pairs_per_prompt = pairs_per_prompt
        self.resamples = resamples
        self.seed = seed
        margins = list(margin.values()) if isinstance(margin, Mapping) else [margin]
        if isinstance(margin, Mapping) and not per_language:
            raise ConfigError("margins by language need per_language=True; give one number otherwise")
        if min(margins, default=0.0) < 0:
            raise ConfigError("a negative margin would trade safety away; give a margin of zero or more")
        if beta <= 0:
            raise ConfigError(f"beta must be above zero, not {beta}")
        if min(pairs_per_prompt, resamples) < 1:
            raise ConfigError("pairs_per_prompt and resamples must be at least 1")

    def settings(self) -> dict[str, Any]:
        """All parameters as plain values."""
        return {**vars(self), "margin": dict(self.margin) if isinstance(self.margin, Mapping) else self.margin}

    def _multipliers(
        self, prompts: Sequence[Prompt], reward: Tensor, safety: Tensor, temperature: float, margin_scale: float
    ) -> Multipliers:
        """λ* of scores (N, M) with β = `temperature`, and margins of safety in units of 1/`margin_scale`."""
        if reward.shape != safety.shape or reward.ndim != 2 or len(reward) != len(prompts) or not len(prompts):
            raise DataError(
                f"{len(prompts)} prompts need reward and safety scores of one shape (prompts, replies), "
                f"not {tuple(reward.shape)} and {tuple(safety.shape)}"
            )
        reward, safety = reward.double().cpu(), safety.double().cpu()
        groups = self._groups(prompts)
        members = torch.tensor(
            [[group in (ALL, prompt.language) for prompt in prompts] for group in groups], dtype=torch.float64
        )
        margins = torch.tensor([self._margin(group) for group in groups], dtype=torch.float64) * margin_scale
        equal = torch.full((len(prompts),), 1.0 / len(prompts), dtype=torch.float64)
        reference = _group_means(safety.mean(1), members, equal)
        best = _group_means(safety.amax(1), members, equal)
        _check_attainable(groups, best - reference - margins)
        constraints = _constraints(safety, members, reference + margins)
        solution = minimise_dual(reward, constraints, temperature)
        policy = solution.point.policy
        draws, failed = self._bootstrap(prompts, reward, safety, members, margins, temperature, solution.multipliers)
        return Multipliers(
            groups=groups,
            values=tuple(solution.multipliers.tolist()),
            intervals=_intervals(draws, len({(prompt.kind, prompt.seed_id) for prompt in prompts})),
            infeasible_resamples=failed,
            reference_safety=tuple(reference.tolist()),
            predicted_safety=tuple(_group_means((policy * safety).sum(1), members, equal).tolist()),
            best_safety=tuple(best.tolist()),
            effective_sample_size=tuple(solution.point.effective_sample_size.tolist()),
            projected_gradient=solution.projected_gradient,
            steps=solution.steps,
        )

    def _bootstrap(
        self,
        prompts: Sequence[Prompt],
        reward: Tensor,
        safety: Tensor,
        members: Tensor,
        margins: Tensor,
        temperature: float,
        start: Tensor,
    ) -> tuple[Tensor, int]:
        """λ* of resamples, (resamples, J), infinite where one is infeasible; and how many are."""
        # Translations of one request are not independent: a seed is drawn with all its languages.
        units = {key: index for index, key in enumerate(dict.fromkeys((p.kind, p.seed_id) for p in prompts))}
        unit_of = [units[prompt.kind, prompt.seed_id] for prompt in prompts]
        draws = torch.full((self.resamples, len(members)), torch.inf, dtype=torch.float64)
        failed = 0
        for index, counts in enumerate(resampled_rows(len(units), self.resamples, self.seed)):
            weights = torch.from_numpy(counts[unit_of] / counts[unit_of].sum())
            if not bool((members @ weights > 0).all()):
                failed += 1
                continue
            reference = _group_means(safety.mean(1), members, weights)
            constraints = _constraints(safety, members, reference + margins)
            try:
                found = minimise_dual(reward, constraints, temperature, prompt_weights=weights, start=start)
            except ConfigError:
                failed += 1
                continue
            draws[index] = found.multipliers
        return draws, failed

    def _groups(self, prompts: Sequence[Prompt]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(prompt.language for prompt in prompts)) if self.per_language else (ALL,)

    def _margin(self, group: str) -> float:
        if not isinstance(self.margin, Mapping):
            return self.margin
        try:
            return self.margin[group]
        except KeyError:
            raise ConfigError(f"there is no margin for {group}; add it to `margin`") from None

    def _trained(
        self,
        prompts: Sequence[Prompt],
        responses: Sequence[Sequence[str]],
        combined: Tensor,
        multipliers: Multipliers,
        preference_trainer: PreferenceTrainer,
        started: float,
    ) -> Edit:
        """One preference training on pseudo-preferences by the combined scores (N, M)."""
        if check_responses(prompts, responses) != combined.shape[1]:
            raise DataError(f"every prompt needs {combined.shape[1]} replies, one for each score")
        pairs, scores = draw_pairs(prompts, responses, combined, self.pairs_per_prompt, self.seed)
        preferences = pseudo_preferences(pairs, scores, self.seed + 1)
        solved = time.monotonic()
        edit = preference_trainer(preferences)
        trainer = dict(edit.manifest)
        # Where every edit has them.
        lists: dict[str, Any] = {name: trainer.pop(name) for name in ("diagnostics", "loss_curve") if name in trainer}
        manifest = {
            "method": self.name,
            "citation": CITATION,
            "lingualign": __version__,
            "settings": self.settings(),
            "languages": list(dict.fromkeys(prompt.language for prompt in prompts)),
            "multipliers": asdict(multipliers),
            "preferences": len(preferences),
            "trainer": trainer,
            **lists,
            "seconds": {"solve": round(solved - started, 2), "total": round(time.monotonic() - started, 2)},
            "faithfulness": _FAITHFULNESS,
        }
        return Edit(edit.deltas, edit.base, manifest)


class MoCAN(_ConstrainedAlignment):
    """Model-based constrained alignment: reward and safety are scores of given models.

    A judge's probability of refusal on harmful prompts can serve as safety score, and zeros as reward, where there is
    no reward model: then the policy nearest to the reference is sought that refuses by `margin` more.

    Args:
        margin: b ≥ 0, by how much E_π[g] shall exceed E_ref[g], in the unit of the safety score; by language tag where
            they differ.
        beta: β, the KL weight; the preference training must use the same.
        per_language: one constraint and one λ for each language, instead of one over all prompts.
        pairs_per_prompt: pseudo-preferences drawn for each prompt.
        resamples: bootstrap draws for the intervals of λ.
        seed: of bootstrap, pairs and preferences.
    """

    name = "mocan"

    def solve(self, prompts: Sequence[Prompt], reward: Tensor, safety: Tensor) -> Multipliers:
        """λ* alone: what a margin costs, before any training.

        Args:
            prompts: N prompts.
            reward: r, (N, M), of M replies sampled from the unchanged model.
            safety: g, (N, M), higher is safer (the paper's negative cost).

        Raises:
            ConfigError: no re-weighting of the replies meets the margin.
            DataError, NumericalError: the scores do not fit together or are not finite.
        """
        return self._multipliers(prompts, reward, safety, self.beta, 1.0)

    def fit(
        self,
        prompts: Sequence[Prompt],
        responses: Sequence[Sequence[str]],
        reward: Tensor,
        safety: Tensor,
        *,
        preference_trainer: PreferenceTrainer,
    ) -> Edit:
        """λ*, pseudo-preferences by r + λ*g, and one preference training. Arguments and errors as in `solve`.

        Args:
            responses: the M replies to each prompt.
            preference_trainer: trains the base model once on what it is given.
        """
        started = time.monotonic()
        multipliers = self.solve(prompts, reward, safety)
        combined = _combined(prompts, reward, safety, multipliers)
        return self._trained(prompts, responses, combined, multipliers, preference_trainer, started)


class PeCAN(_ConstrainedAlignment):
    """Preference-based constrained alignment: the scores are log-ratios of two adapted models to the reference.

    With s_r = ln π_r − ln π_ref and s_g = ln π_g − ln π_ref, where π_r was trained by DPO on helpfulness and π_g on
    safety alone, r ≈ β s_r and g ≈ β s_g up to terms of the prompt. So the dual is MoCAN's on (s_r, s_g) with
    temperature 1 and margin b/β; the paper's KL(π_ref ‖ π_g) is −E_ref[s_g].

    Args:
        margin, beta, per_language, pairs_per_prompt, resamples, seed: as for `MoCAN`; β is that of both DPO trainings.
        scale_preferences: multiply s_r + λ*s_g by β, as the theory has it. The authors' code does not, and that is the
            default here.
    """

    name = "pecan"

    def __init__(
        self,
        *,
        margin: float | Mapping[str, float],
        beta: float = 0.1,
        per_language: bool = False,
        pairs_per_prompt: int = 1,
        scale_preferences: bool = False,
        resamples: int = 200,
        seed: int = 0,
    ) -> None:
        super().__init__(
            margin=margin,
            beta=beta,
            per_language=per_language,
            pairs_per_prompt=pairs_per_prompt,
            resamples=resamples,
            seed=seed,
        )
        self.scale_preferences = scale_preferences

    def solve(self, prompts: Sequence[Prompt], reference: Tensor, helpful: Tensor, safe: Tensor) -> Multipliers:
        """λ* alone.

        Args:
            prompts: N prompts.
            reference, helpful, safe: ln π_ref, ln π_r and ln π_g of M replies sampled from the reference, (N, M) each,
                as `sequence_log_probabilities` gives them.

        Raises:
            ConfigError, DataError, NumericalError: as for `MoCAN.solve`.
        """
        return self._multipliers(prompts, helpful - reference, safe - reference, 1.0, 1.0 / self.beta)

    def fit(
        self,
        prompts: Sequence[Prompt],
        responses: Sequence[Sequence[str]],
        reference: Tensor,
        helpful: Tensor,
        safe: Tensor,
        *,
        preference_trainer: PreferenceTrainer,
    ) -> Edit:
        """λ*, pseudo-preferences by s_r + λ*s_g, one preference training. Arguments as in `solve` and `MoCAN.fit`."""
        started = time.monotonic()
        multipliers = self.solve(prompts, reference, helpful, safe)
        combined = _combined(prompts, helpful - reference, safe - reference, multipliers)
        if self.scale_preferences:
            combined = self.beta * combined
        return self._trained(prompts, responses, combined, multipliers, preference_trainer, started)


def _combined(prompts: Sequence[Prompt], reward: Tensor, safety: Tensor, multipliers: Multipliers) -> Tensor:
    weights = torch.tensor([multipliers.of(prompt.language) for prompt in prompts], dtype=torch.float64)
    return reward.double().cpu() + weights[:, None] * safety.double().cpu()


def _group_means(values: Tensor, members: Tensor, weights: Tensor) -> Tensor:
    """(J,) weighted mean of (N,) values over each group's members (J, N)."""
    shares = members * weights
    return shares @ values / shares.sum(1)


def _constraints(safety: Tensor, members: Tensor, thresholds: Tensor) -> Tensor:
    """h, (J, N, M): g − E_ref[g] − b on the group's prompts, zero elsewhere."""
    return members[:, :, None] * (safety[None] - thresholds[:, None, None])


def _check_attainable(groups: Sequence[str], room: Tensor) -> None:
    """Names the groups whose margin is out of reach; every prompt is in one group, so each can be told by itself."""
    lacking = [f"{group} by {-value:.3g}" for group, value in zip(groups, room.tolist(), strict=True) if value <= 0.0]
    if lacking:
        raise ConfigError(
            f"the safest sampled replies do not exceed the margin for {', '.join(lacking)}; "
            "lower the margin or sample more replies"
        )


def _intervals(draws: Tensor, units: int) -> tuple[tuple[float | None, float | None], ...]:
    """Percentile intervals of the columns; an infinite end becomes None, which JSON can hold."""
    # No interpolation: infeasible draws are infinite.
    ends = np.quantile(draws.numpy(), expanded_percentiles(units, 0.95), axis=0, method="inverted_cdf")
    low, high = ([float(end) if np.isfinite(end) else None for end in row] for row in ends)
    return tuple(zip(low, high, strict=True))
