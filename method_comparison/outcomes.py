"""What became of every prompt, without any text: small enough for git, and all that the page's statistics need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lingualign.data.schema import KINDS, Prompt
from lingualign.evaluate.schema import OUTCOMES, Outcome, Reply
from lingualign.evaluate.statistics import Interval, percentile_interval, resampled_rows

Array = npt.NDArray[np.float64]
#: One letter for each outcome, and one for a prompt that a language lacks.
LETTERS: dict[Outcome, str] = {outcome: outcome[0] for outcome in OUTCOMES}
MISSING = "-"


def encode(replies: Sequence[Reply], seeds: Mapping[str, Sequence[str]]) -> dict[str, dict[str, str]]:
    """By kind and language one letter for each seed.

    Args:
        replies: of one audit.
        seeds: by kind, in the order of the letters.
    """
    letters = {reply.key: LETTERS[reply.outcome] for reply in replies}
    languages = dict.fromkeys(reply.language for reply in replies)
    return {
        kind: {
            language: "".join(letters.get((kind, seed, language), MISSING) for seed in chosen) for language in languages
        }
        for kind, chosen in seeds.items()
    }


def encode_scores(
    prompts: Sequence[Prompt], scores: Sequence[float], seeds: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, list[float | None]]]:
    """By kind and language one score for each seed, to two decimals; None for a prompt that a language lacks.

    Args:
        prompts: those that were audited.
        scores: of each.
        seeds: by kind, in the order of the scores.
    """
    found = {prompt.key: round(score, 2) for prompt, score in zip(prompts, scores, strict=True)}
    languages = dict.fromkeys(prompt.language for prompt in prompts)
    return {
        kind: {language: [found.get((kind, seed, language)) for seed in chosen] for language in languages}
        for kind, chosen in seeds.items()
    }


def scores_of(records: Sequence[Mapping[str, Any]], side: str, kind: str, languages: Sequence[str]) -> Array | None:
    """Refusal scores (runs, prompts, languages); None where a run or a prompt has none.

    Args:
        records: results of runs on the same prompts.
        side: `before` or `after`.
        kind: of the prompts.
        languages: those counted.
    """
    tables = [record["refusal_scores"] and record["refusal_scores"][side].get(kind) for record in records]
    if not languages or not all(tables):
        return None
    values = np.array([[table[tag] for tag in languages] for table in tables], dtype=np.float64).transpose(0, 2, 1)
    return None if np.isnan(values).any() else values


def seeds_by_kind(replies: Sequence[Reply]) -> dict[str, list[str]]:
    """Seed ids in the order of the replies."""
    found: dict[str, dict[str, None]] = {kind: {} for kind in KINDS}
    for reply in replies:
        found[reply.kind][reply.seed_id] = None
    return {kind: list(seeds) for kind, seeds in found.items() if seeds}


def indicators(
    record: Mapping[str, Any], side: str, kinds: Sequence[str], outcome: Outcome, languages: Sequence[str]
) -> Array:
    """(prompts, languages): 1 where the outcome occurred, 0 where not, NaN without a reply.

    Args:
        record: a result.
        side: `before` or `after`.
        kinds: the rows of several kinds are below each other.
        outcome: what is counted.
        languages: the columns.
    """
    coded, seeds = record["outcomes"][side], record["outcomes"]["seeds"]
    # In the order of `lingualign.evaluate.metrics`, so that a bootstrap draws the same prompts as there.
    places = {kind: sorted(range(len(seeds[kind])), key=seeds[kind].__getitem__) for kind in kinds}
    columns = [
        [
            np.nan if coded[kind][tag][place] == MISSING else float(coded[kind][tag][place] == LETTERS[outcome])
            for kind in kinds
            for place in places[kind]
        ]
        for tag in languages
    ]
    return np.array(columns, dtype=np.float64).reshape(len(columns), -1).T


@dataclass(frozen=True, slots=True)
class RunsEstimate:
    """A change averaged over runs and languages.

    Attributes:
        runs: number of runs; of models, where there are several.
        prompts: seeds in each.
        before, after: mean shares with the outcome.
        difference: after - before, with its 95% interval.
    """

    runs: int
    prompts: int
    before: float
    after: float
    difference: float
    interval: Interval


def estimate(
    records: Sequence[Mapping[str, Any]], kinds: Sequence[str], outcome: Outcome, languages: Sequence[str]
) -> RunsEstimate | None:
    """The change of one outcome, averaged over runs of the same prompts; None where no such prompt was audited.

    Where the runs are of several models each model counts once, and models are drawn again in place of runs.
    """
    present = [kind for kind in kinds if all(kind in record["outcomes"]["after"] for record in records)]
    if not present or not languages:
        return None
    by_model: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        by_model.setdefault(record["model"]["name"], []).append(record)
    before, after = (
        [
            np.stack([indicators(record, side, present, outcome, languages) for record in runs])
            for runs in by_model.values()
        ]
        for side in ("before", "after")
    )
    if len(by_model) > 1:
        before, after = ([runs.mean(axis=0, keepdims=True) for runs in side] for side in (before, after))
    first, second = np.concatenate(before), np.concatenate(after)
    was, now = (float(np.nanmean(values, axis=1).mean()) for values in (first, second))
    return RunsEstimate(len(first), first.shape[1], was, now, now - was, crossed_bootstrap(second - first))


def difference(
    first: Sequence[Mapping[str, Any]],
    second: Sequence[Mapping[str, Any]],
    kinds: Sequence[str],
    outcome: Outcome,
    languages: Sequence[str],
) -> tuple[float, Interval] | None:
    """The share with an outcome after one method less that after another, averaged over runs and languages; None where
    no such prompt was audited.

    Both get the same draws of prompts, and of runs where they have equally many: what prompts do to both is no part of
    the interval.

    Args:
        first, second: runs of two methods on one model and the same prompts.
        kinds, outcome, languages: what is counted.
    """
    present = [kind for kind in kinds if all(kind in record["outcomes"]["after"] for record in (*first, *second))]
    if not present or not languages:
        return None
    values = [
        np.stack([indicators(record, "after", present, outcome, languages) for record in runs])
        for runs in (first, second)
    ]
    mean, other = (float(np.nanmean(of, axis=1).mean()) for of in values)
    drawn, drawn_too = (crossed_means(of) for of in values)
    return mean - other, percentile_interval(drawn - drawn_too, values[0].shape[1])


def crossed_bootstrap(values: Array, samples: int = 2000, seed: int = 0, confidence: float = 0.95) -> Interval:
    """Interval of the mean over runs and languages, from `crossed_means`.

    Args:
        values: (runs, prompts, languages); NaN where a prompt has no value in a language.
        samples: bootstrap samples.
        seed: of the random generator.
        confidence: of the interval.
    """
    return percentile_interval(crossed_means(values, samples, seed), values.shape[1], confidence)


def crossed_means(values: Array, samples: int = 2000, seed: int = 0) -> Array:
    """(samples,) means over runs and languages, of runs and prompts each drawn on their own.

    Every run has the same prompts, so the two are crossed. With one run only prompts are drawn, and the interval is
    that of `clustered_bootstrap`. Two or three runs say little about how much runs differ: their part of the interval
    is then too narrow. Source: Owen 2007, The pigeonhole bootstrap, Annals of Applied Statistics 1:386.

    Args:
        values: (runs, prompts, languages); NaN where a prompt has no value in a language.
        samples: bootstrap samples.
        seed: of the random generator, on which alone the draws of equally many prompts or runs depend.
    """
    runs, prompts, languages = values.shape
    drawn = resampled_rows(prompts, samples, seed)
    of_runs = resampled_rows(runs, samples, seed + 1) / runs
    sums, weights = np.zeros((samples, languages)), np.zeros((samples, languages))
    for place, run in enumerate(values):
        present = ~np.isnan(run)
        share = of_runs[:, [place]]
        sums += share * (drawn @ np.where(present, run, 0.0))
        weights += share * (drawn @ present.astype(np.float64))
    means = np.divide(sums, weights, out=np.full_like(sums, np.nan), where=weights > 0)
    return np.asarray(np.nanmean(means, axis=1))
