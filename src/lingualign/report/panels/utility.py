"""What the model can do beside refusing, and what an edit changes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lingualign.report.panels.panel import (
    NOT_MEASURED,
    Panel,
    difference_cell,
    reference_first,
)
from lingualign.report.wording import interval, label, p_value, rate


def perplexity_panel(figures: Mapping[str, Any]) -> Panel | None:
    """Perplexity of harmless prompts, drift from the base model, and what the replies look like."""
    section = figures.get("utility")
    if not section or not (section["perplexity"] or section["generation"]):
        return None
    scores = {row["language"]: row for row in section["perplexity"]}
    replies = {row["language"]: row for row in section["generation"]}
    comparison = section["comparison"]
    ratios = {row["language"]: row["ratio"] for row in comparison["perplexity"]} if comparison else {}
    drift = {row["language"]: row for row in comparison["divergence"]} if comparison else {}
    later = {row["language"]: row["after"] for row in comparison["generation"]} if comparison else {}
    columns = ["Language", "n", "perplexity", "bits / byte"]
    if comparison:
        columns += ["perplexity, after / before (95%)", "KL, nats a token (95%)", "same top token"]
    columns += ["distinct-2", "repetitive", "finished", "tokens"]
    rows = []
    for tag in reference_first({**scores, **replies}, figures["reference"]):
        score = scores.get(tag)
        row = [label(tag), str((score or replies[tag])["n"])]
        row += [f"{score['per_token']:.1f}", rate(score["bits_per_byte"])] if score else [NOT_MEASURED] * 2
        if comparison:
            moved = drift.get(tag)
            row += [
                _estimate(ratios.get(tag)),
                _estimate(moved["kl"] if moved else None),
                rate(moved["agreement"]["value"]) if moved else NOT_MEASURED,
            ]
        row += _reply_figures(replies.get(tag), later.get(tag))
        rows.append(tuple(row))
    if comparison and comparison["mean_perplexity_ratio"]:
        mean = comparison["mean_divergence"]
        rows.append(
            (
                "Mean",
                "",
                "",
                "",
                _estimate(comparison["mean_perplexity_ratio"]),
                _estimate(mean["kl"] if mean else None),
                rate(mean["agreement"]["value"]) if mean else NOT_MEASURED,
                *[""] * 4,
            )
        )
    return Panel(
        "Utility and damage",
        "Harmless prompts: how well the model predicts them, how far an edit moves it from its base over its own first "
        "reply tokens, and what its replies look like.",
        tuple(columns),
        tuple(rows),
        "Perplexity is per token and compares before and after, bits per byte compare languages. distinct-2: different "
        "token pairs over all, in the replies of a language. Two figures: before → after.",
    )


def tasks_panel(figures: Mapping[str, Any]) -> Panel | None:
    """Accuracy on tasks of lm-evaluation-harness."""
    section = figures.get("utility")
    if not section or not section["tasks"]:
        return None
    comparison = section["comparison"]
    rows: tuple[tuple[str, ...], ...]
    if comparison:
        columns: tuple[str, ...] = ("Task", "n", "before", "after", "difference (95%)", "p (Holm)")
        rows = tuple(
            (
                task["name"],
                str(task["n"]),
                f"{task['before']:.3f} ± {task['before_stderr']:.3f}",
                f"{task['after']:.3f} ± {task['after_stderr']:.3f}",
                difference_cell(task["difference"], task["interval"]),
                p_value(task["p_adjusted"]),
            )
            for task in comparison["tasks"]
        )
    else:
        columns = ("Task", "metric", "n", "value ± standard error", "95%")
        rows = tuple(
            (
                task["name"],
                task["metric"],
                str(task["n"]),
                f"{task['value']:.3f} ± {task['stderr']:.3f}",
                interval(task["interval"]),
            )
            for task in section["tasks"]
        )
    return Panel(
        "Benchmarks",
        "Tasks of lm-evaluation-harness on the model in memory, documents paired before and after.",
        columns,
        rows,
        "Versions, few-shot numbers and settings are in result.json; figures of other settings are not comparable.",
    )


def _estimate(estimate: Mapping[str, Any] | None) -> str:
    if estimate is None:
        return NOT_MEASURED
    low, high = estimate["interval"]
    return f"{estimate['value']:.3f} ({low:.3f} to {high:.3f})"


def _reply_figures(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> list[str]:
    if before is None:
        return [NOT_MEASURED] * 4
    found = []
    for key, digits in (("distinct_2", 2), ("repetitive", 2), ("finished", 2), ("mean_tokens", 0)):
        ends = [f"{side[key]:.{digits}f}" for side in (before, after) if side is not None]
        found.append(" → ".join(ends))
    return found
