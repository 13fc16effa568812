"""What the model can do beside refusing, and what an edit changes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lingualign.report.panels.panel import (
    NOT_MEASURED,
    Group,
    Panel,
    difference_cells,
    reference_first,
    side_groups,
)
from lingualign.report.wording import interval, label, p_value, rate


def perplexity_panel(figures: Mapping[str, Any]) -> Panel | None:
    """Perplexity of harmless prompts, and the edited model's drift from its base."""
    section = figures.get("utility")
    if not section or not section["perplexity"]:
        return None
    scores = {row["language"]: row for row in section["perplexity"]}
    comparison = section["comparison"]
    ratios = {row["language"]: row["ratio"] for row in comparison["perplexity"]} if comparison else {}
    drift = {row["language"]: row for row in comparison["divergence"]} if comparison else {}
    rows = []
    for tag in reference_first(scores, figures["reference"]):
        score = scores[tag]
        row = [label(tag), str(score["n"]), f"{score['per_token']:.1f}", rate(score["bits_per_byte"])]
        if comparison:
            row += _moved(ratios.get(tag), drift.get(tag))
        rows.append(tuple(row))
    totals: tuple[tuple[str, ...], ...] = ()
    if comparison and comparison["mean_perplexity_ratio"]:
        mean = _moved(comparison["mean_perplexity_ratio"], comparison["mean_divergence"])
        totals = (("Mean", "", "", "", *mean),)
    drifted = (
        Group("Perplexity, after / before", ("ratio", "95%")),
        Group("Drift from the base model", ("KL", "95%", "same token")),
    )
    return Panel(
        "utility",
        "utility",
        "Utility and damage" if comparison else "Perplexity",
        "How well the model predicts harmless prompts, and how far the edit moves it from its base over the first "
        "tokens of the base's own replies to them."
        if comparison
        else "How well the model predicts harmless prompts.",
        "Language",
        (Group("", ("n", "perplexity", "bits / byte")), *(drifted if comparison else ())),
        tuple(rows),
        totals,
        "Perplexity is per token and depends on the tokenizer; bits per byte compare languages."
        + (
            " KL: of the edited model from its base, nats a token. Same token: share of tokens for which both find the "
            "same one likeliest. Intervals: bootstrap over prompts."
            if comparison
            else ""
        ),
    )


def generation_panel(figures: Mapping[str, Any]) -> Panel | None:
    """What the replies to harmless prompts look like."""
    section = figures.get("utility")
    if not section or not section["generation"]:
        return None
    comparison = section["comparison"]
    replies = {"before": {row["language"]: row for row in section["generation"]}}
    if comparison:
        replies["after"] = {row["language"]: row["after"] for row in comparison["generation"]}
    return Panel(
        "harmless-replies",
        "utility",
        "Replies to harmless prompts",
        "Whether the model still writes: a damaged one repeats itself, does not come to an end, or uses few words.",
        "Language",
        (Group("", ("n",)), *side_groups(list(replies), "distinct-2", "repetitive", "finished", "tokens")),
        tuple(
            (
                label(tag),
                str(replies["before"][tag]["n"]),
                *(text for side in replies.values() for text in _look(side[tag])),
            )
            for tag in reference_first(replies["before"], figures["reference"])
        ),
        note="distinct-2: different pairs of neighbouring tokens over all pairs, in a language's replies together; it "
        "falls as replies get longer. Repetitive, finished: shares of replies. Tokens: mean length, cut at the limit.",
    )


def tasks_panel(figures: Mapping[str, Any]) -> Panel | None:
    """Accuracy on tasks of lm-evaluation-harness."""
    section = figures.get("utility")
    if not section or not section["tasks"]:
        return None
    comparison = section["comparison"]
    rows: tuple[tuple[str, ...], ...]
    if comparison:
        groups: tuple[Group, ...] = (
            Group("", ("metric", "n")),
            Group("Before", ("value", "± s.e.")),
            Group("After", ("value", "± s.e.")),
            Group("Difference, paired", ("change", "95%", "p (Holm)")),
        )
        rows = tuple(
            (
                task["name"],
                task["metric"],
                str(task["n"]),
                *_value(task["before"], task["before_stderr"]),
                *_value(task["after"], task["after_stderr"]),
                *difference_cells(task["difference"], task["interval"]),
                p_value(task["p_adjusted"]),
            )
            for task in comparison["tasks"]
        )
    else:
        groups = (Group("", ("metric", "n", "value", "± s.e.", "95%")),)
        rows = tuple(
            (
                task["name"],
                task["metric"],
                str(task["n"]),
                *_value(task["value"], task["stderr"]),
                interval(task["interval"]),
            )
            for task in section["tasks"]
        )
    return Panel(
        "benchmarks",
        "utility",
        "Benchmarks",
        "Tasks of lm-evaluation-harness on the model in memory"
        + (", paired by document before and after." if comparison else "."),
        "Task",
        groups,
        rows,
        note="± s.e.: standard error as the harness gives it. Versions, few-shot numbers and settings are in "
        "result.json; figures of other settings are not comparable.",
    )


def _moved(ratio: Mapping[str, Any] | None, drift: Mapping[str, Any] | None) -> list[str]:
    return [
        *_estimate(ratio),
        *_estimate(drift["kl"] if drift else None),
        rate(drift["agreement"]["value"]) if drift else NOT_MEASURED,
    ]


def _estimate(estimate: Mapping[str, Any] | None) -> Sequence[str]:
    if estimate is None:
        return (NOT_MEASURED,) * 2
    low, high = estimate["interval"]
    return (f"{estimate['value']:.3f}", f"{low:.3f}–{high:.3f}")


def _look(row: Mapping[str, Any]) -> Sequence[str]:
    return (
        rate(row["distinct_2"]),
        rate(row["repetitive"]),
        rate(row["finished"]),
        f"{row['mean_tokens']:.0f}",
    )


def _value(value: float, error: float | None) -> Sequence[str]:
    # A single document has no standard error.
    return (f"{value:.3f}", NOT_MEASURED if error is None else f"{error:.3f}")
