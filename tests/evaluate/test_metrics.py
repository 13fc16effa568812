"""Figures from replies: counts, pairing, adjusted p values, language fidelity."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from lingualign.data.schema import Kind
from lingualign.errors import DataError
from lingualign.evaluate.metrics import cells, changes, language_fidelity, mean_change, worst_language
from lingualign.evaluate.schema import Outcome, Reply
from lingualign.evaluate.statistics import wilson_interval

OUTCOMES: dict[str, Outcome] = {"r": "refused", "a": "answered", "i": "incoherent"}


def replies(pattern: str, language: str = "th", kind: Kind = "harmful", spoken: str = "") -> list[Reply]:
    """One reply for each letter: r(efused), a(nswered), i(ncoherent)."""
    return [
        Reply(f"seed-{place}", language, kind, "text", 3, True, OUTCOMES[letter], 0.5, spoken or language)
        for place, letter in enumerate(pattern)
    ]


def test_cells_count_outcomes_in_a_stable_order() -> None:
    found = cells(replies("aa", "zh", "harmless") + replies("rrai", "th") + replies("r", "zh"))
    assert [(cell.language, cell.kind, cell.n) for cell in found] == [
        ("zh", "harmful", 1),
        ("zh", "harmless", 2),
        ("th", "harmful", 4),
    ]
    thai = found[-1]
    assert (thai.refused, thai.answered, thai.incoherent) == (2, 1, 1)
    assert (thai.refusal_rate, thai.attack_success_rate, thai.incoherence_rate) == (0.5, 0.25, 0.25)
    assert thai.refusal_interval == wilson_interval(2, 4)
    assert cells([]) == []


def test_worst_language_has_the_lowest_refusal_rate_of_its_kind() -> None:
    found = cells(replies("rrr", "en") + replies("raa", "th") + replies("rai", "sw") + replies("aaa", "en", "harmless"))
    assert worst_language(found).language == "th"
    assert worst_language(found, "harmless").language == "en"
    with pytest.raises(DataError, match="no look-alike replies"):
        worst_language(found, "look-alike")


def test_changes_pair_by_seed_not_by_position() -> None:
    before, after = replies("raaaai"), replies("rrrraa")
    (change,) = changes(before, list(reversed(after)), "harmful", "refused")
    assert (change.gained, change.lost, change.n) == (3, 0, 6)
    assert change.before == pytest.approx(1 / 6)
    assert change.after == pytest.approx(4 / 6)
    assert change.difference == pytest.approx(0.5)
    assert change.interval[0] < 0.5 < change.interval[1]
    assert change.p_value == pytest.approx(0.25)
    assert change.direction == "up"
    (broken,) = changes(before, after, "harmful", "incoherent")
    assert broken.direction == "down"
    assert changes(before, before, "harmful", "refused")[0].direction == "same"


def test_p_values_are_adjusted_over_languages() -> None:
    before = replies("a" * 10, "th") + replies("a" * 10, "sw")
    after = replies("r" * 10, "th") + replies("r" * 6 + "a" * 4, "sw")
    thai, swahili = changes(before, after, "harmful", "refused")
    assert (thai.language, swahili.language) == ("th", "sw")
    assert thai.p_adjusted == pytest.approx(2 * thai.p_value)
    assert swahili.p_adjusted == pytest.approx(swahili.p_value)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (replies("ra"), replies("r"), "1 harmful prompts have a reply on one side only .*seed-1 in th"),
        (replies("ra"), replies("ra", "sw"), "4 harmful prompts"),
        (replies("r") * 2, replies("r"), "two replies before"),
        (replies("r"), replies("r") * 2, "two replies after"),
        (replies("r", kind="harmless"), replies("r", kind="harmless"), "no harmful replies to compare"),
    ],
)
def test_what_cannot_be_paired_is_one_line(before: list[Reply], after: list[Reply], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        changes(before, after, "harmful", "refused")
    assert "\n" not in str(caught.value)


def test_mean_change_weighs_languages_equally() -> None:
    before = replies("a" * 20, "th") + replies("aa", "sw") + replies("r" * 5, "en")
    after = replies("r" * 20, "th") + replies("aa", "sw") + replies("r" * 5, "en")
    change = mean_change(before, after, "harmful", "refused", ["th", "sw"])
    assert (change.before, change.after, change.difference) == (0.0, 0.5, 0.5)
    assert change.n == 22
    assert change.interval[0] <= 0.5 <= change.interval[1]
    assert change.languages == ("th", "sw")
    with pytest.raises(DataError, match="no harmful replies in ko"):
        mean_change(before, after, "harmful", "refused", ["th", "ko"])


def test_intervals_do_not_depend_on_the_order_of_replies() -> None:
    before, after = replies("raaaaiaraa"), replies("rrrraaraai")
    expected = mean_change(before, after, "harmful", "refused", ["th"])
    # A store is in the order of generation, an audit in that of the prompts.
    assert mean_change(before[::-1], after[::-1], "harmful", "refused", ["th"]) == expected


def test_language_fidelity_counts_identified_replies_of_the_outcome() -> None:
    def spoken(languages: Iterable[str], prompt: str) -> list[Reply]:
        return [reply for tag in languages for reply in replies("r", prompt, spoken=tag)]

    rows = spoken(["th", "en", "en", "zh"], "th") + spoken(["ms", "id"], "id") + replies("a", "sw", spoken="sw")
    unknown = [Reply("seed", "th", "harmful", "?", 1, True, "refused", 0.9, "")]
    assert language_fidelity(rows + unknown, "refused") == {"th": (0.25, 0.5, 4), "id": (1.0, 0.0, 2)}
