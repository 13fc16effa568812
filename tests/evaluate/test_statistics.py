"""Statistics against scipy, statsmodels, published examples and their own definitions."""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from scipy.stats import t as student
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from lingualign.evaluate.statistics import (
    clustered_bootstrap,
    holm,
    mcnemar_exact,
    minimum_detectable_difference,
    paired_difference_interval,
    wilson_interval,
)


def paired(both: int, lost: int, gained: int, neither: int) -> tuple[list[bool], list[bool]]:
    before = [True] * (both + lost) + [False] * (gained + neither)
    after = [True] * both + [False] * lost + [True] * gained + [False] * neither
    return before, after


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_matches_the_published_examples(successes: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=5e-5)


@settings(deadline=None)
@given(
    st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.8, 0.95, 0.99])
)
def test_wilson_matches_scipy(counts: tuple[int, int], confidence: float) -> None:
    expected = binomtest(*counts).proportion_ci(confidence, method="wilson")
    assert wilson_interval(*counts, confidence) == pytest.approx((expected.low, expected.high), abs=1e-9)


@settings(deadline=None)
@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_matches_statsmodels(counts: tuple[int, int]) -> None:
    assert wilson_interval(*counts) == pytest.approx(proportion_confint(*counts, method="wilson"), abs=1e-9)


def test_wilson_of_nothing_is_everything() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_mcnemar_matches_the_published_example() -> None:
    # Airway hyper-responsiveness before and after transplantation, Bentur 2009, in Fagerland, Lydersen, Laake 2013.
    assert mcnemar_exact(1, 7) == pytest.approx(0.0703, abs=5e-5)


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_binomial_tail_doubled(gained: int, lost: int) -> None:
    n = gained + lost
    tail = sum(math.comb(n, k) for k in range(min(gained, lost) + 1)) / 2**n
    assert mcnemar_exact(gained, lost) == pytest.approx(min(1.0, 2 * tail))


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_matches_statsmodels(gained: int, lost: int) -> None:
    expected = mcnemar([[7, lost], [gained, 5]], exact=True).pvalue
    assert mcnemar_exact(gained, lost) == pytest.approx(min(1.0, expected))


def test_holm_matches_a_hand_calculation() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_lies_between_raw_and_bonferroni_and_keeps_the_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for raw, value in zip(p_values, adjusted, strict=True):
        assert raw <= value <= min(1.0, len(p_values) * raw)
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    assert all(adjusted[first] <= adjusted[second] for first, second in pairwise(order))


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_matches_statsmodels(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1].tolist())


def test_paired_interval_matches_the_published_example() -> None:
    # The same data as for McNemar; Newcombe's square-and-add interval in Fagerland, Lydersen, Laake 2014.
    before, after = paired(both=1, lost=1, gained=7, neither=12)
    assert paired_difference_interval(before, after) == pytest.approx((0.026, 0.507), abs=5e-4)


def test_paired_interval_is_narrower_when_the_outcomes_agree() -> None:
    agreeing = paired(both=45, lost=0, gained=10, neither=45)
    unrelated = paired(both=25, lost=20, gained=30, neither=25)
    widths = [high - low for low, high in (paired_difference_interval(*rows) for rows in (agreeing, unrelated))]
    assert widths[0] < 0.7 * widths[1]


@settings(deadline=None)
@given(*[st.integers(0, 30)] * 4)
def test_paired_interval_holds_the_difference_and_mirrors(both: int, lost: int, gained: int, neither: int) -> None:
    before, after = paired(both, lost, gained, neither)
    low, high = paired_difference_interval(before, after)
    assert -1 <= low <= high <= 1
    if before:
        assert low <= (gained - lost) / len(before) <= high
    assert paired_difference_interval(after, before) == pytest.approx((-high, -low))


def test_paired_interval_wants_pairs() -> None:
    with pytest.raises(ValueError, match="argument"):
        paired_difference_interval([True], [True, False])


def test_bootstrap_covers_the_mean_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    covered = 0
    for repetition in range(100):
        seeds = generator.normal(0.3, 1.0, size=(40, 1))
        low, high = clustered_bootstrap(seeds + generator.normal(0, 0.3, size=(40, 4)), samples=400, seed=repetition)
        covered += low <= 0.3 <= high
    assert 86 <= covered <= 99


def test_bootstrap_has_the_width_of_students_interval() -> None:
    values = np.random.default_rng(5).normal(size=(12, 1))
    low, high = clustered_bootstrap(values, samples=200_000)
    expected = student.interval(0.95, 11, loc=values.mean(), scale=values.std(ddof=1) / math.sqrt(12))
    assert high - low == pytest.approx(expected[1] - expected[0], rel=0.05)


def test_bootstrap_of_one_seed_is_that_seed() -> None:
    assert clustered_bootstrap(np.array([[0.25, 0.75]])) == (0.5, 0.5)


def test_bootstrap_resamples_seeds_not_cells() -> None:
    # Ten languages that agree on every seed hold no more information than one.
    column = np.random.default_rng(2).normal(size=(30, 1))
    one, ten = clustered_bootstrap(column), clustered_bootstrap(np.repeat(column, 10, axis=1))
    assert ten == pytest.approx(one)


def test_bootstrap_weighs_languages_equally_where_values_are_missing() -> None:
    values = np.full((50, 2), np.nan)
    values[:, 0] = 1.0
    values[0, 1] = 0.0
    low, high = clustered_bootstrap(values)
    assert low == pytest.approx(0.5)
    # Samples without the only seed of the second language have the first language alone.
    assert high == pytest.approx(1.0)


@settings(deadline=None)
@given(st.integers(30, 2000), st.floats(0.1, 1.0), st.floats(0.5, 0.95))
def test_detectable_difference_inverts_the_sample_size_formula(n: int, discordant: float, power: float) -> None:
    difference = minimum_detectable_difference(n, discordant, power)
    if math.isinf(difference):
        return
    z_test, z_power = NormalDist().inv_cdf(0.975), NormalDist().inv_cdf(power)
    needed = (z_test * math.sqrt(discordant) + z_power * math.sqrt(discordant - difference**2)) ** 2 / difference**2
    assert needed == pytest.approx(n, rel=1e-3)


@pytest.mark.parametrize(("n", "discordant"), [(60, 0.5), (150, 0.3), (400, 0.2)])
def test_detectable_difference_is_found_about_as_often_as_it_says(n: int, discordant: float) -> None:
    difference = minimum_detectable_difference(n, discordant)
    gaining = (discordant + difference) / 2
    generator = np.random.default_rng(3)
    pairs = generator.multinomial(n, [gaining, discordant - gaining, 1 - discordant], size=4000)
    # The formula is that of McNemar's test without continuity correction; the exact test needs a little more.
    uncorrected, exact = (
        np.mean([test(gained, lost) < 0.05 for gained, lost, _ in pairs.tolist()])
        for test in (
            cache(lambda gained, lost: mcnemar([[0, lost], [gained, 0]], exact=False, correction=False).pvalue),
            cache(mcnemar_exact),
        )
    )
    assert uncorrected == pytest.approx(0.8, abs=0.03)
    assert 0.68 < exact < uncorrected


def test_too_few_pairs_detect_nothing() -> None:
    assert minimum_detectable_difference(8, 0.1) == math.inf
    assert minimum_detectable_difference(1) == math.inf
    assert minimum_detectable_difference(400) < minimum_detectable_difference(100) < 0.5
