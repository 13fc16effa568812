"""Statistics of paired yes/no outcomes: intervals, tests, corrections. Pure functions on numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Interval = tuple[float, float]


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Score interval of a proportion, good for small n and for rates near 0 and 1.

    Source: Wilson 1927, JASA 22:209; recommended by Newcombe 1998, Statistics in Medicine 17:857.

    Returns:
        (low, high) in [0, 1]; (0, 1) when n is 0, because nothing is known.
    """
    if n == 0:
        return (0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate = successes / n
    centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half_width = z / (1 + z**2 / n) * math.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    # Exact at the ends: rounding would leave 1e-17 where the interval touches 0 or 1.
    low = 0.0 if successes == 0 else centre - half_width
    high = 1.0 if successes == n else centre + half_width
    return (low, high)


def mcnemar_exact(gained: int, lost: int) -> float:
    """Two-sided exact p value for paired yes/no outcomes.

    Under the null hypothesis each discordant pair goes either way with probability one half. Source: McNemar 1947,
    Psychometrika 12:153, in its exact binomial form.

    Args:
        gained: pairs that went from no to yes.
        lost: pairs that went from yes to no.

    Returns:
        p in (0, 1]; 1 when no pair is discordant.
    """
    from scipy.stats import binomtest

    if gained + lost == 0:
        return 1.0
    return float(binomtest(gained, gained + lost, 0.5).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Step-down adjusted p values that bound the family-wise error under any dependence.

    Source: Holm 1979, Scandinavian Journal of Statistics 6:65.

    Returns:
        Adjusted p values in the order given.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def paired_difference_interval(before: Sequence[bool], after: Sequence[bool], confidence: float = 0.95) -> Interval:
    """Interval of the difference (after - before) of two proportions measured on the same items.

    Square-and-add of the two Wilson intervals with a continuity-corrected phi for their correlation. Source:
    Newcombe 1998, Statistics in Medicine 17:2635, method 10.

    Args:
        before, after: outcomes of the same items in the same order.

    Returns:
        (low, high) in [-1, 1]; (-1, 1) when there are no items.

    Raises:
        ValueError: the two differ in length.
    """
    n = len(before)
    if n == 0 and len(after) == 0:
        return (-1.0, 1.0)
    both = gained = lost = 0
    for was, now in zip(before, after, strict=True):
        both += was and now
        gained += now and not was
        lost += was and not now
    neither = n - both - gained - lost
    count_after, count_before = both + gained, both + lost
    rate_after, rate_before = count_after / n, count_before / n
    low_after, high_after = wilson_interval(count_after, n, confidence)
    low_before, high_before = wilson_interval(count_before, n, confidence)

    margins = count_after * (n - count_after) * count_before * (n - count_before)
    product = float(both * neither - gained * lost)
    if product > 0:
        product = max(product - n / 2, 0.0)
    phi = product / math.sqrt(margins) if margins else 0.0

    def combined(first: float, second: float) -> float:
        return math.sqrt(max(first**2 - 2 * phi * first * second + second**2, 0.0))

    difference = rate_after - rate_before
    return (
        max(difference - combined(rate_after - low_after, high_before - rate_before), -1.0),
        min(difference + combined(high_after - rate_after, rate_before - low_before), 1.0),
    )


def clustered_bootstrap(
    values: npt.NDArray[np.float64], samples: int = 2000, seed: int = 0, confidence: float = 0.95
) -> Interval:
    """Interval of the mean of the columns' means, by bootstrap of whole rows.

    Translations of one request are not independent, so the row (the seed prompt with all its languages) is the unit
    drawn again. Plain percentiles are too narrow for few seeds, so they are expanded. Coverage: benchmarks/coverage.py.
    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13; Field and Welsh 2007, JRSS B 69:369
    (clusters); Hesterberg 2015, The American Statistician 69:371 (expanded percentiles).

    Args:
        values: (seeds, languages) array; NaN where a seed has no value in a language. Every seed and every language has
            at least one value.
        samples: bootstrap samples.
        seed: of the random generator.

    Returns:
        (low, high). With a single row the interval is that row's value twice: it says nothing.
    """
    means = np.nanmean(resampled_means(values, samples, seed), axis=1)
    return percentile_interval(means, values.shape[0], confidence)


@lru_cache(maxsize=4)
def resampled_rows(rows: int, samples: int, seed: int) -> npt.NDArray[np.float64]:
    """(samples, rows) how often each row is drawn. Kept: one comparison asks for the same draw many times."""
    counts = np.random.default_rng(seed).multinomial(rows, np.full(rows, 1 / rows), size=samples).astype(np.float64)
    counts.flags.writeable = False
    return counts


def resampled_means(values: npt.NDArray[np.float64], samples: int, seed: int) -> npt.NDArray[np.float64]:
    """(samples, languages) column means of a (seeds, languages) array whose rows are drawn again.

    NaN where a sample left out every row that has a value in the column.
    """
    counts = resampled_rows(values.shape[0], samples, seed)
    present = ~np.isnan(values)
    weights = counts @ present.astype(np.float64)
    sums = counts @ np.where(present, values, 0.0)
    return np.divide(sums, weights, out=np.full_like(sums, np.nan), where=weights > 0)


def percentile_interval(values: npt.NDArray[np.float64], rows: int, confidence: float = 0.95) -> Interval:
    """The interval that bootstrap estimates from this many rows give.

    Args:
        values: one estimate for each sample.
        rows: how many rows were drawn again.
        confidence: of the interval.
    """
    low, high = np.quantile(values, expanded_percentiles(rows, confidence))
    return (float(low), float(high))


def expanded_percentiles(rows: int, confidence: float) -> tuple[float, float]:
    """The two quantiles of the bootstrap distribution that bound an interval from this many rows.

    For the mean of normal data they give the width of Student's interval: the bootstrap's variance is too small by
    (n - 1) / n, and its tails are the normal distribution's. Source: Hesterberg 2015, The American Statistician 69:371.
    """
    from scipy.special import stdtrit

    tail = (1 - confidence) / 2
    if rows > 1:
        tail = NormalDist().cdf(math.sqrt(rows / (rows - 1)) * float(stdtrit(rows - 1, tail)))
    return (tail, 1 - tail)


def minimum_detectable_difference(
    n: int, discordant: float = 0.5, power: float = 0.8, confidence: float = 0.95
) -> float:
    """Smallest true difference of two paired proportions that McNemar's test finds with the given power.

    The sample size formula of Connor 1987, Biometrics 43:207, solved for the difference.

    Args:
        n: pairs.
        discordant: expected share of pairs whose outcome changes in either direction; the default is that of two
            unrelated fair coins.

    Returns:
        The difference as a share; infinite when it would exceed `discordant`: then none is detectable.
    """
    z_test = NormalDist().inv_cdf(0.5 + confidence / 2)
    z_power = NormalDist().inv_cdf(power)
    remainder = n + z_power**2 - z_test**2
    if remainder < 0:
        return math.inf
    difference = math.sqrt(discordant) * (z_test * math.sqrt(n) + z_power * math.sqrt(remainder)) / (n + z_power**2)
    return difference if difference <= discordant else math.inf
