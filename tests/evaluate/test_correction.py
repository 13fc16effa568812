"""Rates corrected for the judge's error: published examples, the paper's equations, limits, and properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from lingualign.evaluate.correction import (
    JudgeError,
    corrected_interval,
    corrected_mean_interval,
    corrected_rate,
    judge_errors,
)
from lingualign.evaluate.statistics import clustered_bootstrap, wilson_interval

#: Right on ten million labelled replies of either class.
PERFECT = JudgeError(10**7, 10**7, 10**7, 10**7)
COUNTS = st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
ERRORS = st.builds(
    lambda sensitivity, specificity, refused, others: JudgeError(
        refused, round(sensitivity * refused), others, round(specificity * others)
    ),
    st.floats(0.7, 1.0),
    st.floats(0.7, 1.0),
    st.integers(20, 500),
    st.integers(20, 500),
)


def judge_like(sensitivity: float, specificity: float, labels: int = 1000) -> JudgeError:
    return JudgeError(labels, round(sensitivity * labels), labels, round(specificity * labels))


@pytest.mark.parametrize(
    ("positive", "n", "sensitivity", "specificity", "expected"),
    [
        # Brucellosis, R package epiR, epi.prev: 5.1 in 100.
        (23, 150, 0.96, 0.89, 0.051),
        # Helicobacter pylori in 1 to 4 year olds, ibid.: the estimate is below 0 and is cut.
        (6, 151, 0.964, 0.927, 0.0),
        # R package RSurveillance, tp.
        (20, 120, 0.9, 0.99, 0.17603),
    ],
)
def test_rogan_gladen_matches_published_examples(
    positive: int, n: int, sensitivity: float, specificity: float, expected: float
) -> None:
    error = judge_like(sensitivity, specificity)
    assert corrected_rate(positive / n, error) == pytest.approx(expected, abs=5e-4)


def test_correction_undoes_the_error() -> None:
    error = judge_like(0.8, 0.95)
    for true in (0.0, 0.25, 0.7, 1.0):
        seen = true * 0.8 + (1 - true) * 0.05
        assert corrected_rate(seen, error) == pytest.approx(true)


def test_interval_matches_a_calculation_by_hand() -> None:
    # 30 of 100 positive, Se 45/50, Sp 76/80. Lang and Reiczigel's primed values: n' = 103.84146, p' = 0.30740,
    # Se' = 46/52, Sp' = 77/82, so that the prevalence' is 0.24642 / 0.82364 = 0.29919; shift 2 z² (0.29919 · 0.10207/52
    # - 0.70081 · 0.05726/82) = 0.00075; half-width z sqrt(0.002050 + 0.000176 + 0.000343) / 0.82364 = 0.12061.
    assert corrected_interval(30, 100, JudgeError(50, 45, 80, 76)) == pytest.approx((0.17933, 0.42055), abs=1e-5)


@given(COUNTS)
def test_a_perfect_judge_leaves_agresti_and_coulls_interval(counts: tuple[int, int]) -> None:
    expected = proportion_confint(*counts, method="agresti_coull")
    found = corrected_interval(*counts, PERFECT)
    assert found == pytest.approx(np.clip(expected, 0, 1), abs=1e-4)
    low, high = wilson_interval(*counts)
    assert found[0] <= low + 1e-4
    assert found[1] >= high - 1e-4


@given(COUNTS, ERRORS)
def test_interval_lies_in_range(counts: tuple[int, int], error: JudgeError) -> None:
    low, high = corrected_interval(*counts, error)
    assert 0 <= low <= high <= 1
    # From 20 labels of either class the shift for skewness may pass the estimate by a little, never by much.
    assert low - 0.05 <= corrected_rate(counts[0] / counts[1], error) <= high + 0.05


@given(st.integers(0, 100), st.sampled_from([(0.9, 0.9), (0.8, 0.95), (1.0, 0.8)]))
def test_fewer_labels_make_it_wider(successes: int, rates: tuple[float, float]) -> None:
    few, many = (corrected_interval(successes, 100, judge_like(*rates, labels)) for labels in (40, 4000))
    if few[0] > 0 and few[1] < 1:
        assert few[1] - few[0] > many[1] - many[0]


@given(ERRORS)
def test_more_positives_mean_a_higher_rate(error: JudgeError) -> None:
    found = [corrected_interval(successes, 60, error) for successes in range(61)]
    lows, highs = zip(*found, strict=True)
    assert list(lows) == sorted(lows)
    assert list(highs) == sorted(highs)


def test_a_judge_that_guesses_says_nothing() -> None:
    assert corrected_interval(30, 100, judge_like(0.5, 0.5)) == (0.0, 1.0)
    assert corrected_interval(30, 100, judge_like(0.3, 0.4)) == (0.0, 1.0)
    assert corrected_interval(0, 0, PERFECT) == (0.0, 1.0)


def test_validity_wants_labels_of_both_classes_and_a_judge_that_knows() -> None:
    assert JudgeError(20, 18, 20, 18).is_valid
    assert not JudgeError(19, 19, 500, 500).is_valid
    assert not JudgeError(500, 500, 19, 19).is_valid
    # Yoruba in our table: 0.35 and 0.95.
    assert not JudgeError(98, 34, 474, 448).is_valid


def audited(seeds: int, languages: int, rate: float = 0.4) -> np.ndarray:
    generator = np.random.default_rng(7)
    tendency = generator.normal(size=(seeds, 1)) + generator.normal(size=(seeds, languages))
    return (tendency > np.quantile(tendency, 1 - rate)).astype(float)


@pytest.mark.parametrize("is_difference", [True, False])
def test_mean_by_a_perfect_judge_is_the_plain_bootstrap(is_difference: bool) -> None:
    values = audited(50, 4)
    if is_difference:
        values = values - audited(50, 4)[::-1]
    found = corrected_mean_interval(values, [PERFECT] * 4, is_difference=is_difference)
    assert found == pytest.approx(clustered_bootstrap(values, samples=4000), abs=1e-5)


def test_mean_is_corrected_for_the_error() -> None:
    error = judge_like(0.8, 0.9, labels=10**6)
    values = audited(400, 3)
    rates = values.mean(axis=0)
    low, high = corrected_mean_interval(values, [error] * 3, is_difference=False)
    assert (low + high) / 2 == pytest.approx(np.mean([corrected_rate(rate, error) for rate in rates]), abs=0.01)
    low, high = corrected_mean_interval(values, [error] * 3, is_difference=True)
    assert (low + high) / 2 == pytest.approx(rates.mean() / 0.7, abs=0.01)


def test_mean_is_wider_with_fewer_labels() -> None:
    values = audited(60, 5)
    widths = [
        high - low
        for labels in (20, 200, 20_000)
        for low, high in [corrected_mean_interval(values, [judge_like(0.9, 0.9, labels)] * 5, is_difference=False)]
    ]
    assert widths[0] > 1.1 * widths[1] > 1.1 * widths[2]


def test_mean_stays_in_range() -> None:
    poor = judge_like(0.7, 0.65, labels=20)
    assert corrected_mean_interval(np.zeros((30, 2)), [poor] * 2, is_difference=False) == (0.0, 0.0)
    assert corrected_mean_interval(np.ones((30, 2)), [poor] * 2, is_difference=False)[1] == 1.0
    assert corrected_mean_interval(np.ones((30, 2)), [poor] * 2, is_difference=True)[1] == 1.0
    assert corrected_mean_interval(-np.ones((30, 2)), [poor] * 2, is_difference=True)[0] == -1.0


def test_mean_bears_missing_values() -> None:
    values = audited(40, 2)
    values[::2, 1] = np.nan
    assert corrected_mean_interval(values, [PERFECT] * 2, is_difference=False) == pytest.approx(
        clustered_bootstrap(values, samples=4000), abs=1e-5
    )


def test_published_table_becomes_counts() -> None:
    table = {
        "th": {"sensitivity": 0.9, "specificity": 0.98, "refused": 50, "answered": 100},
        "yo": {"sensitivity": None, "specificity": 0.9, "refused": None, "answered": 10},
    }
    assert judge_errors(table) == {"th": JudgeError(50, 45, 100, 98)}
