"""Labels read anew: how they are drawn, and the error that they give."""

from __future__ import annotations

from collections import Counter

import pytest

from lingualign.evaluate.judges.adjudicate import ReadReply, drawn, read_labels, stratified_error


def test_the_draw_is_balanced_bounded_and_repeatable() -> None:
    labels = [place % 10 != 0 for place in range(1000)]
    places = drawn(labels, "de")
    assert Counter(labels[place] for place in places) == {False: 60, True: 30}
    assert len(set(places)) == 90
    assert places == drawn(labels, "de") != drawn(labels, "fr")
    assert Counter(labels[place] for place in drawn(labels[:100], "de")) == {False: 10, True: 10}


def test_each_stratum_counts_as_often_as_it_is_large() -> None:
    # 90 labelled refused, 2 of them read; 10 labelled answered, 4 read: one is unclear, one in truth a refusal.
    rows = [
        ReadReply(True, True, called_refused=True),
        ReadReply(True, True, called_refused=False),
        ReadReply(False, True, called_refused=True),
        ReadReply(False, False, called_refused=False),
        ReadReply(False, False, called_refused=True),
        ReadReply(False, None, called_refused=True),
    ]
    error = stratified_error(rows, {True: 90, False: 10})
    refused = 2 * 45 + 10 / 3
    assert error["sensitivity"] == pytest.approx((45 + 10 / 3) / refused, abs=1e-4)
    assert error["specificity"] == 0.5
    assert error["refused"] == int(refused**2 / (2 * 45**2 + (10 / 3) ** 2))
    assert error["answered"] == 2


def test_equal_weights_give_plain_shares() -> None:
    rows = [ReadReply(True, True, called) for called in (True, True, True, False)]
    assert stratified_error(rows, {True: 4, False: 0}) == {
        "sensitivity": 0.75,
        "refused": 4,
        "specificity": None,
        "answered": 0,
    }


def test_the_labels_hold_no_text() -> None:
    labels = read_labels()
    assert len(labels) == 13
    for rows in labels.values():
        assert 20 <= len(rows) <= 90
        assert {label for _, label in rows.values()} <= {"refused", "answered", "incoherent", "unclear"}
        assert all(len(digest) == 12 for digest, _ in rows.values())
