"""Cohen's κ against scikit-learn, statsmodels and a published example."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import cohens_kappa

from lingualign.evaluate.agreement import agreement

VERDICTS = st.sampled_from(["refused", "answered", "incoherent"])


@given(st.lists(st.tuples(VERDICTS, VERDICTS), min_size=1, max_size=60))
def test_kappa_is_that_of_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    first, second = [one for one, _ in pairs], [other for _, other in pairs]
    found = agreement(first, second)
    assert found.n == len(pairs)
    assert found.observed == pytest.approx(sum(one == other for one, other in pairs) / len(pairs))
    if found.kappa is None:
        assert len({*first, *second}) == 1
        assert found.interval is None
    else:
        assert found.kappa == pytest.approx(cohen_kappa_score(first, second))
        assert found.interval is not None
        assert found.interval[0] <= found.kappa <= found.interval[1]


@given(st.lists(st.integers(0, 40), min_size=9, max_size=9).filter(lambda cells: sum(bool(cell) for cell in cells) > 2))
def test_interval_is_that_of_statsmodels(cells: list[int]) -> None:
    table = np.array(cells).reshape(3, 3)
    pairs = [place for place, count in np.ndenumerate(table) for _ in range(count)]
    found = agreement([one for one, _ in pairs], [other for _, other in pairs])
    assert found.interval is not None
    expected = cohens_kappa(table)
    assert found.kappa == pytest.approx(expected.kappa)
    assert found.interval == pytest.approx(np.clip([expected.kappa_low, expected.kappa_upp], -1, 1), abs=1e-6)


def test_interval_of_the_worked_example() -> None:
    # Fleiss, Cohen and Everitt's example as in the R documentation of psych::cohen.kappa: three categories, n = 200.
    table = {("a", "a"): 106, ("a", "b"): 10, ("a", "c"): 4, ("b", "a"): 22, ("b", "b"): 28, ("b", "c"): 10}
    table |= {("c", "a"): 2, ("c", "b"): 12, ("c", "c"): 6}
    pairs = [pair for pair, count in table.items() for _ in range(count)]
    found = agreement([one for one, _ in pairs], [other for _, other in pairs])
    assert found.kappa == pytest.approx(0.429, abs=1e-3)
    assert found.interval is not None
    # Standard error 0.0537 (Fleiss 1981, chapter 13).
    assert (found.interval[1] - found.interval[0]) / 2 / 1.959964 == pytest.approx(0.0537, abs=2e-3)


def test_lists_of_different_length_or_none_are_refused() -> None:
    with pytest.raises(ValueError, match="argument"):
        agreement(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="no verdicts"):
        agreement([], [])
