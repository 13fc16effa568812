"""Panels from figures that the real functions compute, so that no name of a section can drift."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from lingualign.evaluate.correction import JudgeError
from lingualign.evaluate.judges.card import JudgeCard
from lingualign.evaluate.schema import Reply
from lingualign.report.data import ReportData
from lingualign.report.html import render_report
from lingualign.report.panels import Panel, panels

from .make_figures import make_figures
from .make_sample import make_replies, rates

LANGUAGES = ("en", "zh", "th", "he")
BEFORE = make_replies(rates(dict.fromkeys(LANGUAGES, 0.3) | {"en": 0.9}), n=24)
AFTER = make_replies(rates(dict.fromkeys(LANGUAGES, 0.8) | {"en": 0.9}), n=24)


def figures_of(before: tuple[Reply, ...], after: tuple[Reply, ...] | None, **options: Any) -> dict[str, Any]:
    texts = {reply.key: f"text {reply.seed_id}" for reply in before}
    return make_figures(before, after, texts, **options)


def shown(figures: dict[str, Any]) -> dict[str, Panel]:
    return {panel.name: panel for panel in panels(figures)}


def column(panel: Panel, name: str, group: str = "") -> dict[str, str]:
    """A column's texts by row heading."""
    names = [(each.name, text) for each in panel.groups for text in each.columns]
    place = names.index((group, name)) + 1
    return {row[0]: row[place] for row in (*panel.rows, *panel.totals)}


@cache
def compared() -> dict[str, Any]:
    return figures_of(BEFORE, AFTER)


@cache
def alone() -> dict[str, Any]:
    return figures_of(BEFORE, None)


def unread(replies: tuple[Reply, ...], seeds: frozenset[str] | None = None) -> tuple[Reply, ...]:
    """The replies as a guard that cannot be read on these seeds, or on any, leaves them."""
    return tuple(
        replace(reply, outcome="unparsed", score=0.5) if seeds is None or reply.seed_id in seeds else reply
        for reply in replies
    )


def small(languages: tuple[str, ...], kinds: tuple[str, ...] = ("harmful", "look-alike", "harmless")) -> Any:
    return tuple(reply for reply in BEFORE if reply.language in languages and reply.kind in kinds)


CASES = {
    "comparison": compared,
    "audit": alone,
    "no second judge": lambda: figures_of(BEFORE, AFTER, second=False),
    "one language": lambda: figures_of(small(("en",)), small(("en",))),
    "harmful only": lambda: figures_of(small(LANGUAGES, ("harmful",)), None),
    "reference not audited": lambda: figures_of(small(("zh", "th")), small(("zh", "th")), reference="de"),
    "judge never measured": lambda: figures_of(BEFORE, AFTER, card=JudgeCard("new-1", {}, {})),
    "unreadable after": lambda: figures_of(BEFORE, unread(AFTER)),
    "unreadable": lambda: figures_of(unread(BEFORE), None),
    "one document": lambda: figures_of(BEFORE, AFTER, documents=1),
}


@pytest.mark.parametrize("case", CASES)
def test_rows_fit_their_columns(case: str) -> None:
    made = panels(CASES[case]())
    assert made
    assert len({panel.name for panel in made}) == len(made)
    for panel in made:
        width = 1 + sum(len(group.columns) for group in panel.groups)
        assert {len(row) for row in (*panel.rows, *panel.totals)} == {width}, panel.name
        text = " ".join(text for row in panel.rows for text in row)
        assert "None" not in text
        assert "nan" not in text


def test_every_section_has_its_panel() -> None:
    everything = [
        *("corrected", "second-judge", "consistency", "following", "prompt-controls", "answer-language"),
        *("utility", "harmless-replies", "benchmarks"),
    ]
    assert list(shown(compared())) == everything
    assert list(shown(alone())) == everything
    assert all(panel.is_grouped for panel in panels(compared()))
    assert [panel.name for panel in panels(alone()) if panel.is_grouped] == ["prompt-controls"]


def test_group_starts_are_the_columns_under_a_new_heading() -> None:
    panel = shown(compared())["corrected"]
    assert panel.groups[1].columns == ("observed", "corrected", "95%")
    assert panel.starts == {2, 5, 8}
    assert shown(alone())["corrected"].starts == frozenset()


def test_corrected_rates_need_a_valid_judge() -> None:
    panel = shown(compared())["corrected"]
    after = column(panel, "corrected", "After")
    assert (after["Thai (th)"], after["Hebrew (he)"]) == ("not valid", "not valid")
    assert float(after["Chinese (zh)"]) > float(column(panel, "observed", "After")["Chinese (zh)"]) - 0.05
    assert panel.totals[0][0] == "Mean of 1"
    assert panel.summary.endswith("mean of 1 language; judge not valid in th, he")
    assert panel.note.endswith("other than the reference, without Thai (th), Hebrew (he).")
    change = next(change for change in compared()["corrected"]["changes"] if change["languages"] == ["zh"])
    assert column(panel, "change", "Change, corrected")["Chinese (zh)"] == f"{change['difference']:+.2f}"


def test_an_audit_alone_has_a_corrected_mean() -> None:
    panel = shown(alone())["corrected"]
    mean = alone()["corrected"]["mean"]
    low, high = mean["interval"]
    assert panel.totals == (("Mean of 1", "", "", f"{mean['rate']:.2f}", f"{low:.2f}–{high:.2f}"),)
    assert panel.summary.startswith(f"harmful refused {mean['rate']:.2f} ({low:.2f}–{high:.2f}), mean of 1 language; ")


def test_a_judge_valid_nowhere_corrects_nothing() -> None:
    useless = JudgeCard(
        "ngram-2", dict.fromkeys(LANGUAGES, JudgeError(50, 25, 50, 25)), dict.fromkeys(LANGUAGES, "all")
    )
    panel = shown(figures_of(BEFORE, AFTER, card=useless))["corrected"]
    assert set(column(panel, "corrected", "Before").values()) == {"not valid"}
    assert (panel.totals, panel.summary) == ((), "")


def test_second_judge_is_summed_up_by_its_median() -> None:
    figures = figures_of(BEFORE, AFTER)
    values = (0.9, 0.5, 0.7, 0.6)
    for tag, value in zip(LANGUAGES, values, strict=True):
        figures["second_judge"]["after"][tag]["kappa"] = value
    panel = shown(figures)["second-judge"]
    assert panel.summary == "e5-1, κ 0.65 after the edit (median of 4 languages), lowest zh 0.50"
    assert column(panel, "κ", "After")["Thai (th)"] == "0.70"
    cell = next(
        cell for cell in figures["second_judge"]["cells_after"] if (cell["language"], cell["kind"]) == ("zh", "harmful")
    )
    assert column(panel, "second: refused", "After")["Chinese (zh)"] == f"{cell['refused'] / cell['n']:.2f}"
    assert "second-judge" not in shown(figures_of(BEFORE, AFTER, second=False))


def test_kappa_that_is_not_defined() -> None:
    answered = tuple(replace(reply, outcome="answered") for reply in small(("en", "th")))
    figures = figures_of(answered, None)
    for found in figures["second_judge"]["before"].values():
        found.update(kappa=None, interval=None)
    panel = shown(figures)["second-judge"]
    assert set(column(panel, "κ").values()) == set(column(panel, "95%").values()) == {"–"}
    assert panel.summary == "e5-1, κ not defined in any language"


def test_consistency_counts_requests_answered_elsewhere() -> None:
    panel = shown(compared())["consistency"]
    found = compared()["behaviour"]["after"]["consistency"]["answered_elsewhere"]["th"]
    assert column(panel, "answered", "After")["Thai (th)"] == f"{found['count']} of {found['n']}"
    assert [row[0] for row in panel.totals] == ["In at least one language", "Refused in every language"]


@pytest.mark.parametrize("case", ["one language", "reference not audited"])
def test_panels_that_need_the_reference_and_another_language(case: str) -> None:
    assert not {"consistency", "prompt-controls"} & shown(CASES[case]()).keys()


def test_the_harmful_rate_says_whether_it_is_a_bound() -> None:
    assert shown(compared())["following"].note.endswith("an upper bound.")
    told = tuple(replace(reply, unsafe=reply.outcome == "answered") for reply in BEFORE)
    assert "upper bound" not in shown(figures_of(told, None))["following"].note


def test_an_answer_language_seen_only_after_has_its_row() -> None:
    silent = tuple(replace(reply, reply_language="") if reply.language == "th" else reply for reply in BEFORE)
    panel = shown(figures_of(silent, AFTER))["answer-language"]
    assert column(panel, "n", "Before")["Thai (th)"] == "0"
    assert int(column(panel, "n", "After")["Thai (th)"]) > 0


def test_no_harmless_prompts_no_tasks() -> None:
    assert not {"utility", "harmless-replies"} & shown(CASES["harmful only"]()).keys()
    assert "benchmarks" not in shown(figures_of(BEFORE, AFTER, tasks=()))


def test_one_document_has_no_standard_error() -> None:
    panel = shown(CASES["one document"]())["benchmarks"]
    assert set(column(panel, "± s.e.", "Before").values()) == {"–"}


def test_utility_shows_ratio_and_drift() -> None:
    panel = shown(compared())["utility"]
    ratio = compared()["utility"]["comparison"]["perplexity"][0]["ratio"]["value"]
    assert column(panel, "ratio", "Perplexity, after / before")["English (en)"] == f"{ratio:.3f}"
    assert panel.totals[0][0] == "Mean"
    assert "edit" not in shown(alone())["utility"].text


def test_unparsed_verdicts_are_counted() -> None:
    assert "unparsed" not in shown(compared())
    seeds = frozenset({"h001", "h002", "n005"})
    read = {reply.key: reply for reply in AFTER if reply.language == "zh"}
    after = tuple(read.get(reply.key, reply) for reply in unread(AFTER, seeds))
    panel = panels(figures_of(BEFORE, after))[0]
    assert panel.name == "unparsed"
    assert column(panel, "harmful", "After")["Thai (th)"] == "2 of 24"
    assert column(panel, "harmless", "After")["Thai (th)"] == "1 of 24"
    assert column(panel, "harmful", "Before")["Thai (th)"] == "0 of 24"
    assert panel.summary == "0 of 288 replies before, 9 of 288 replies after"
    assert [row[0] for row in panel.rows] == ["English (en)", "Thai (th)", "Hebrew (he)"]
    assert shown(CASES["unreadable"]())["unparsed"].summary == "288 of 288 replies"


def test_nothing_read_is_no_consistency() -> None:
    assert "consistency" not in shown(CASES["unreadable"]())
    panel = shown(CASES["unreadable after"]())["consistency"]
    assert set(column(panel, "answered", "After").values()) == {"–"}


def test_hostile_tags_and_task_names_are_escaped(small_data: ReportData) -> None:
    hostile = "<script>alert(1)</script>\u202e"
    tags = {"en": "en", "th": hostile}
    before, after = (
        tuple(
            replace(reply, language=tags[reply.language], reply_language=tags.get(reply.reply_language, ""))
            for reply in replies
            if reply.language in tags
        )
        for replies in (BEFORE, AFTER)
    )
    figures = figures_of(before, after, tasks=(hostile,), reference=hostile)
    page = render_report(replace(small_data, panels=panels(figures), judge=figures["judge"]))
    assert "<script" not in page
    assert "\u202e" not in page
    # In the two titles' words, in rows, as a task and in the judge's table.
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;\ufffd") > 10
