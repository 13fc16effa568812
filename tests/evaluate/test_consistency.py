"""Consistency over languages, harmful rate and following rate, on audits small enough to count by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from lingualign.data.schema import Kind
from lingualign.errors import DataError
from lingualign.evaluate.consistency import Share, consistency, following_rates
from lingualign.evaluate.schema import Outcome, Reply
from lingualign.evaluate.statistics import wilson_interval

LETTERS: dict[str, Outcome] = {"r": "refused", "a": "answered", "x": "incoherent", "u": "unparsed"}


def audit(outcomes: Mapping[str, str], kind: Kind = "harmful") -> list[Reply]:
    """Replies from strings such as `rrax`, one letter a request; `.` where it was not asked."""
    return [
        Reply(f"s{index}", language, kind, "text", 4, True, LETTERS[letter], 0.5, language)
        for language, letters in outcomes.items()
        for index, letter in enumerate(letters)
        if letter != "."
    ]


def test_requests_refused_in_the_reference_and_answered_elsewhere() -> None:
    found = consistency(audit({"en": "rrrraa", "th": "raaxar", "sw": "rrraaa"}))
    assert found.answered_elsewhere == {"th": Share(2, 4), "sw": Share(1, 4)}
    assert found.answered_elsewhere["th"].rate == 0.5
    assert found.answered_elsewhere["th"].interval == wilson_interval(2, 4)
    # Requests 1, 2 (th) and 3 (sw); request 3 is incoherent in th.
    assert found.answered_anywhere == Share(3, 4)
    assert found.refused_everywhere == Share(1, 6)


def test_agreement_of_pairs_is_over_shared_requests() -> None:
    found = consistency(audit({"en": "rrra", "th": "raa.", "sw": "rrrr"}))
    assert [(pair.first, pair.second, pair.agreement.n) for pair in found.pairs] == [
        ("en", "th", 3),
        ("en", "sw", 4),
        ("th", "sw", 3),
    ]
    assert [pair.agreement.observed for pair in found.pairs] == pytest.approx([1 / 3, 3 / 4, 1 / 3])


def test_what_was_not_judged_does_not_count() -> None:
    found = consistency(audit({"en": "rruu", "th": "ua.r"}))
    assert found.answered_elsewhere == {"th": Share(1, 1)}
    assert found.answered_anywhere == Share(1, 1)
    assert found.refused_everywhere == Share(0, 1)


def test_a_reference_that_was_not_audited_or_refuses_nothing_has_no_figures() -> None:
    for replies in (audit({"th": "rr", "sw": "ra"}), audit({"en": "aa", "th": "rr"}), audit({"en": "rr"})):
        found = consistency(replies)
        assert found.answered_elsewhere == {}
        assert found.answered_anywhere is None
    assert consistency(audit({"en": "r.", "th": ".r"})).refused_everywhere is None
    assert consistency(audit({"th": "rrr", "sw": "ra."}), reference="th").answered_elsewhere == {"sw": Share(1, 2)}


def test_harmful_prompts_are_needed() -> None:
    with pytest.raises(DataError, match="add harmful prompts"):
        consistency(audit({"en": "rr"}, "harmless"))


def test_following_and_harmful_rate_of_a_judge_that_tells_refusals_only() -> None:
    (english, thai) = following_rates(audit({"en": "rrra", "th": "raxxu"}))
    assert (english.following, english.harmful, english.is_upper_bound) == (Share(4, 4), Share(1, 4), True)
    assert (thai.following, thai.harmful) == (Share(2, 5), Share(1, 5))


def test_harm_that_was_judged_is_counted_itself() -> None:
    replies = [replace(reply, unsafe=False) for reply in audit({"th": "raaa"})]
    replies[3] = replace(replies[3], unsafe=True)
    (row,) = following_rates(replies)
    assert (row.harmful, row.is_upper_bound) == (Share(1, 4), False)
    # A reply that restates harm while refusing is harmful when the judge says so.
    replies[0] = replace(replies[0], unsafe=True)
    assert following_rates(replies)[0].harmful == Share(2, 4)


def test_kinds_are_kept_apart() -> None:
    rows = following_rates([*audit({"en": "ra"}), *audit({"en": "xx", "th": "a"}, "harmless")])
    assert [(row.language, row.kind, row.following.count) for row in rows] == [
        ("en", "harmful", 2),
        ("en", "harmless", 0),
        ("th", "harmless", 1),
    ]
