"""Rates corrected for the judge's error, with intervals that carry it.

A judge with sensitivity Se and specificity Sp that calls a share p̂ of replies refused has seen a true share of

    π = (p̂ + Sp − 1) / (Se + Sp − 1)

(Rogan and Gladen 1978, American Journal of Epidemiology 107:71). Se and Sp are themselves measured, on replies with
known labels, so the interval of π is wider than that of p̂. Differences between two audits by the same judge divide by
the same Se + Sp − 1; its uncertainty widens them too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from lingualign.evaluate.statistics import Interval, percentile_interval, resampled_means

#: Below this Se + Sp − 1 a judge knows too little for its rates to be corrected: the interval would be the whole range.
LEAST_YOUDEN = 0.3
#: Fewest labelled replies of either class on which an error may rest.
FEWEST_LABELS = 20


@dataclass(frozen=True, slots=True)
class JudgeError:
    """How often a judge was right on replies with known labels, in one language.

    Attributes:
        refused, found: replies that are refusals, and how many of them the judge called so.
        others, spared: replies that are not, and how many of them it did not call so.
    """

    refused: int
    found: int
    others: int
    spared: int

    def __add__(self, other: JudgeError) -> JudgeError:
        """The error on both sets of replies together."""
        return JudgeError(
            self.refused + other.refused,
            self.found + other.found,
            self.others + other.others,
            self.spared + other.spared,
        )

    @property
    def sensitivity(self) -> float:
        return self.found / self.refused

    @property
    def specificity(self) -> float:
        return self.spared / self.others

    @property
    def youden(self) -> float:
        """Se + Sp − 1: 1 for a perfect judge, 0 for one that guesses."""
        return self.sensitivity + self.specificity - 1.0

    @property
    def is_valid(self) -> bool:
        """Whether the judge's rates may be corrected, or reported at all."""
        return min(self.refused, self.others) >= FEWEST_LABELS and self.youden >= LEAST_YOUDEN


def rogan_gladen(rate: float, error: JudgeError) -> float:
    """The estimate of the true rate, which may lie outside [0, 1]; means are taken of these."""
    return (rate + error.specificity - 1.0) / error.youden


def corrected_rate(rate: float, error: JudgeError) -> float:
    """The Rogan–Gladen estimate of the true rate, cut to [0, 1]."""
    return min(1.0, max(0.0, rogan_gladen(rate, error)))


def corrected_interval(successes: int, n: int, error: JudgeError, confidence: float = 0.95) -> Interval:
    """Interval of the true rate behind `successes` of `n` by an imperfect judge.

    Source: Lang and Reiczigel 2014, Preventive Veterinary Medicine 113:13, equations 1 to 4: the counts are adjusted as
    in the intervals of Agresti and Coull, and the limits shifted by a term for the skewness that Se and Sp bring in.

    Returns:
        (low, high) in [0, 1]; (0, 1) when n is 0.
    """
    if n == 0:
        return (0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    size = n + z**2
    rate = (successes + z**2 / 2) / size
    labelled, sensitivity = error.refused + 2, (error.found + 1) / (error.refused + 2)
    others, specificity = error.others + 2, (error.spared + 1) / (error.others + 2)
    youden = sensitivity + specificity - 1.0
    if youden <= 0:
        return (0.0, 1.0)
    true = (rate + specificity - 1.0) / youden
    variance_sensitivity = sensitivity * (1 - sensitivity) / labelled
    variance_specificity = specificity * (1 - specificity) / others
    shift = 2 * z**2 * (true * variance_sensitivity - (1 - true) * variance_specificity)
    spread = rate * (1 - rate) / size + true**2 * variance_sensitivity + (1 - true) ** 2 * variance_specificity
    half_width = z * math.sqrt(spread) / youden
    return (min(1.0, max(0.0, true + shift - half_width)), min(1.0, max(0.0, true + shift + half_width)))


def corrected_mean_interval(
    values: npt.NDArray[np.float64],
    errors: Sequence[JudgeError],
    *,
    is_difference: bool,
    samples: int = 4000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Interval of the mean over languages of corrected rates or differences, by seed-clustered bootstrap.

    Each sample draws whole rows again, because translations of one request are not independent, and each language's Se
    and Sp from the Beta distribution that its labelled replies leave. Its prior is worth one reply and has the mean of
    all languages: Jeffreys' prior draws every language towards one half, and over many languages that adds up.

    Args:
        values: (seeds, languages): 1 and 0 for refused or not, or the difference of two audits; NaN where a seed has no
            value in a language.
        errors: the judge's error in each language.
        is_difference: whether the values are differences, whose offset Sp − 1 cancels.
        samples, seed, confidence: of the bootstrap.

    Returns:
        (low, high).
    """
    means = resampled_means(values, samples, seed)
    # A stream of its own: the rows' draw is kept and comes from the seed alone.
    generator = np.random.default_rng([seed, 1])
    sensitivity = _drawn(generator, [(error.found, error.refused) for error in errors], samples)
    specificity = _drawn(generator, [(error.spared, error.others) for error in errors], samples)
    youden = np.maximum(sensitivity + specificity - 1.0, 0.05)
    corrected = means / youden if is_difference else (means + specificity - 1.0) / youden
    low, high = percentile_interval(np.nanmean(corrected, axis=1), values.shape[0], confidence)
    if is_difference:
        return (max(-1.0, low), min(1.0, high))
    # The mean is cut, not each language: cutting those near 0 or 1 would draw the mean away from there.
    return (min(1.0, max(0.0, low)), min(1.0, max(0.0, high)))


def _drawn(generator: np.random.Generator, counts: Sequence[tuple[int, int]], samples: int) -> npt.NDArray[np.float64]:
    """(samples, languages) rates drawn from what (right, labelled) replies leave of them."""
    right, labelled = np.array(counts, dtype=np.float64).T
    prior = (right.sum() + 0.5) / (labelled.sum() + 1)
    return generator.beta(right + prior, labelled - right + 1 - prior, size=(samples, len(counts)))


def judge_errors(table: Mapping[str, Mapping[str, float | int | None]]) -> dict[str, JudgeError]:
    """The error of a judge by language from its published table (`sensitivity`, `specificity`, `refused`, `answered`).
    Languages where one of the classes was never measured are left out."""
    errors = {}
    for language, row in table.items():
        if row["sensitivity"] is None or row["specificity"] is None:
            continue
        refused, others = int(row["refused"] or 0), int(row["answered"] or 0)
        errors[language] = JudgeError(
            refused, round(float(row["sensitivity"]) * refused), others, round(float(row["specificity"]) * others)
        )
    return errors
