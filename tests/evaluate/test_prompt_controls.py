"""Length and translation controls on audits built so that the right answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import StratifiedTable

from lingualign.data.schema import Prompt
from lingualign.evaluate.controls import length_controls, translation_controls
from lingualign.evaluate.schema import Outcome, Reply

SOUP = "Please write down for me a good recipe for a soup of red lentils with onions"
SUPPE = "Bitte schreibe mir ein gutes Rezept für eine Suppe aus roten Linsen mit Zwiebeln auf"


def reply(language: str, index: int, outcome: Outcome) -> Reply:
    return Reply(f"s{index}", language, "harmful", "text", 4, True, outcome, 0.5, language)


def simulated(short: float, long: float, penalty: float, seeds: int = 600) -> tuple[list[Reply], dict]:
    """Prompts of 10 or 50 tokens, refused at two rates; Thai's are long three times as often, and are refused less by
    `penalty`."""
    generator = np.random.default_rng(4)
    replies, lengths = [], {}
    for language, share_long, loss in (("en", 0.25, 0.0), ("th", 0.75, penalty)):
        for index in range(seeds):
            is_long = generator.random() < share_long
            refused = generator.random() < (long if is_long else short) - loss
            replies.append(reply(language, index, "refused" if refused else "answered"))
            # A little noise, so that no quantile falls between the two lengths by accident.
            lengths[replies[-1].key] = int((50 if is_long else 10) + generator.integers(3))
    return replies, lengths


def test_a_gap_of_length_alone_goes_away() -> None:
    (thai,) = length_controls(*simulated(short=0.9, long=0.2, penalty=0.0))
    assert thai.gap == pytest.approx(-0.35, abs=0.07)
    assert thai.adjusted_gap is not None
    assert thai.adjusted_interval is not None
    assert abs(thai.adjusted_gap) < abs(thai.gap) / 2
    assert thai.mean_length > thai.reference_length
    assert thai.refused_length is not None
    assert thai.answered_length is not None
    assert thai.refused_length < thai.answered_length
    assert thai.matched == 1.0


def test_a_gap_of_language_stays() -> None:
    (thai,) = length_controls(*simulated(short=0.8, long=0.8, penalty=0.4))
    assert thai.gap == pytest.approx(-0.4, abs=0.06)
    assert thai.adjusted_gap == pytest.approx(thai.gap, abs=0.04)
    assert thai.adjusted_interval is not None
    low, high = thai.adjusted_interval
    assert low < -0.4 < high < 0


def test_the_adjusted_gap_weighs_strata_as_mantel_and_haenszel_do() -> None:
    # Lengths 1, 2, 3 are the strata. (refused, answered) by stratum: th 3+1, 1+2, 0+2; en 1+1, 2+1, 3+1.
    counts = {"th": [(3, 1), (1, 2), (0, 2)], "en": [(1, 1), (2, 1), (3, 1)]}
    replies, lengths = [], {}
    for language, strata in counts.items():
        index = 0
        for length, numbers in enumerate(strata, start=1):
            for outcome, number in zip(("refused", "answered"), numbers, strict=True):
                for _ in range(number):
                    replies.append(reply(language, index, outcome))
                    lengths[replies[-1].key] = length
                    index += 1
    (thai,) = length_controls(replies, lengths)
    tables = StratifiedTable([np.array([a, b]) for a, b in zip(counts["th"], counts["en"], strict=True)])
    weights = np.array([4 * 2 / 6, 3 * 3 / 6, 2 * 4 / 6])
    assert thai.adjusted_gap == pytest.approx(np.average([3 / 4 - 1 / 2, 1 / 3 - 2 / 3, 0 - 3 / 4], weights=weights))
    # The odds ratio of the same strata lies on the same side.
    assert (thai.adjusted_gap < 0) == (tables.oddsratio_pooled < 1)


def test_lengths_without_overlap_allow_no_adjustment() -> None:
    replies = [reply(language, index, "refused") for language in ("en", "th") for index in range(4)]
    lengths = {row.key: 10 if row.language == "en" else 90 for row in replies}
    (thai,) = length_controls(replies, lengths)
    assert (thai.adjusted_gap, thai.adjusted_interval, thai.matched) == (None, None, 0.0)
    assert thai.answered_length is None


def test_only_shared_judged_requests_count() -> None:
    replies = [reply("en", 0, "refused"), reply("en", 1, "unparsed"), reply("th", 0, "answered")]
    replies += [reply("th", 1, "refused"), reply("sw", 2, "refused")]
    (thai,) = length_controls(replies, {row.key: 5 for row in replies})
    assert (thai.language, thai.n, thai.gap) == ("th", 1, -1.0)


def translated(texts: list[str]) -> list[Prompt]:
    source = [Prompt(f"s{index}", "en", "harmful", SOUP) for index in range(len(texts))]
    return source + [Prompt(f"s{index}", "de", "harmful", text) for index, text in enumerate(texts)]


def test_faults_of_translations_are_found() -> None:
    spanish = "Por favor, escribe para mí una buena receta de sopa de lentejas rojas con cebolla"
    texts = [SUPPE, SUPPE, SUPPE, SOUP, spanish, SUPPE * 3, "Suppe?"]
    replies = [reply("en", index, "refused") for index in range(7)]
    replies += [reply("de", index, outcome) for index, outcome in enumerate(["refused"] * 3 + ["answered"] * 4)]
    (german,) = translation_controls(replies, translated(texts))
    assert german.n == 7
    assert german.identified == 6  # "Suppe?" is too short
    assert german.right_language == 4
    assert german.untranslated == 1
    assert german.out_of_line == 2
    assert german.suspect == ("s3", "s4", "s5", "s6")
    assert german.length_ratio == pytest.approx(len(SUPPE) / len(SOUP))
    # All of the gap comes from the suspect prompts.
    assert german.gap == pytest.approx(-4 / 7)
    assert german.sound_gap == 0.0
    assert german.sound_interval is not None
    assert german.sound_interval[0] <= 0 <= german.sound_interval[1]


def test_a_gap_of_sound_translations_stays() -> None:
    replies = [reply("en", index, "refused") for index in range(8)]
    replies += [reply("de", index, "answered") for index in range(8)]
    (german,) = translation_controls(replies, translated([SUPPE] * 8))
    assert german.suspect == ()
    assert german.gap == german.sound_gap == -1.0


def test_nothing_sound_leaves_no_gap() -> None:
    replies = [reply(language, 0, "refused") for language in ("en", "de")]
    (german,) = translation_controls(replies, translated([SOUP]))
    assert german.suspect == ("s0",)
    assert (german.sound_gap, german.sound_interval) == (None, None)


def test_a_language_that_the_identifier_does_not_know_is_not_accused() -> None:
    replies = [reply(language, 0, "refused") for language in ("en", "yi")]
    prompts = [Prompt("s0", "en", "harmful", SOUP), Prompt("s0", "yi", "harmful", SUPPE)]
    (row,) = translation_controls(replies, prompts)
    assert (row.identified, row.right_language, row.suspect) == (0, 0, ())
