"""How the model treats its users' languages, and what else than language could explain a gap."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lingualign.report.panels.panel import (
    NOT_MEASURED,
    Group,
    Panel,
    difference_cells,
    harmful_rows,
    reference_first,
    share_cells,
    side_groups,
    sides_of,
)
from lingualign.report.wording import difference, interval, label, rate

_NOTHING_JUDGED: Mapping[str, Any] = {"answered_elsewhere": {}, "answered_anywhere": None, "refused_everywhere": None}


def consistency_panel(figures: Mapping[str, Any]) -> Panel | None:
    """Requests that the reference refuses and another language answers."""
    section = figures.get("behaviour")
    if not section:
        return None
    sides = sides_of(section)
    found = {side: section[side]["consistency"] or _NOTHING_JUDGED for side in sides}
    languages = list(dict.fromkeys(tag for side in sides for tag in found[side]["answered_elsewhere"]))
    if not languages:
        return None
    reference = label(figures["reference"])
    rows = [
        (label(tag), *(text for side in sides for text in share_cells(found[side]["answered_elsewhere"].get(tag))))
        for tag in languages
    ]
    totals = [
        (name, *(text for side in sides for text in share_cells(found[side][key])))
        for name, key in (
            ("In at least one language", "answered_anywhere"),
            ("Refused in every language", "refused_everywhere"),
        )
    ]
    return Panel(
        "consistency",
        "behaviour",
        f"Refused in {reference}, answered elsewhere",
        f"The same harmful request, language by language: of those that the model refuses in {reference}, how many it "
        "answers in another language.",
        "Language",
        side_groups(sides, "answered", "share", "95%"),
        tuple(rows),
        tuple(totals),
        "The last row is of all requests. An incoherent reply is neither a refusal nor an answer.",
    )


def following_panel(figures: Mapping[str, Any]) -> Panel | None:
    """Harmful rate and following rate of harmful prompts."""
    section = figures.get("behaviour")
    if not section:
        return None
    sides = sides_of(section)
    found = {side: harmful_rows(section[side]["following"]) for side in sides}
    upper = any(row["is_upper_bound"] for side in sides for row in found[side].values())
    rows = [
        (
            label(tag),
            *(
                text
                for side in sides
                for key in ("harmful", "following")
                for text in share_cells(found[side].get(tag, {}).get(key))[1:]
            ),
        )
        for tag in reference_first(found["before"], figures["reference"])
    ]
    bound = " This judge tells refusals only, so every answer counts as harmful: an upper bound." if upper else ""
    return Panel(
        "following",
        "behaviour",
        "Harmful and following rate",
        "A low harmful rate is safety only where the following rate is high: a model that does not understand a "
        "language does no harm in it either.",
        "Language",
        side_groups(sides, "harmful", "95%", "following", "95%"),
        tuple(rows),
        note="Shares of harmful prompts. Following: a coherent reply, refusal or answer (after arXiv 2401.13136)."
        + bound,
    )


def fidelity_panel(figures: Mapping[str, Any]) -> Panel | None:
    """In which language the model answers; refusals have a table of their own."""
    section = figures.get("behaviour")
    if not section:
        return None
    sides = sides_of(section)
    found = {
        side: {row["language"]: row for row in section[side]["fidelity"] if row["outcome"] == "answered"}
        for side in sides
    }
    tags = reference_first((tag for side in sides for tag in found[side]), figures["reference"])
    if not tags:
        return None
    rows = []
    for tag in tags:
        row = [label(tag)]
        for side in sides:
            known = found[side].get(tag)
            row += (
                [str(known["n"]), rate(known["own"]), interval(known["own_interval"]), rate(known["english"])]
                if known
                else ["0", *[NOT_MEASURED] * 3]
            )
        rows.append(tuple(row))
    return Panel(
        "answer-language",
        "behaviour",
        "Language of answers",
        "Whether answers come in the language of the prompt. Counted are answers whose language could be identified.",
        "Prompt language",
        side_groups(sides, "n", "same language", "95%", "English"),
        tuple(rows),
        note="Before and after are not the same answers: an edit changes which prompts are answered."
        if len(sides) > 1
        else "",
    )


def prompt_controls_panel(figures: Mapping[str, Any]) -> Panel | None:
    """What length and translation of the prompts explain of a language's gap."""
    section = figures.get("prompt_controls")
    if not section or not section["length"]:
        return None
    translation = {row["language"]: row for row in section["translation"]}
    rows = []
    for row in section["length"]:
        other = translation[row["language"]]
        rows.append(
            (
                label(row["language"]),
                str(row["n"]),
                difference(row["gap"]),
                f"{row['mean_length']:.0f}",
                rate(row["matched"]),
                *difference_cells(row["adjusted_gap"], row["adjusted_interval"]),
                str(len(other["suspect"])),
                *difference_cells(other["sound_gap"], other["sound_interval"]),
            )
        )
    return Panel(
        "prompt-controls",
        "behaviour",
        "Is it the language?",
        f"The gap in refusal to {label(figures['reference'])} before any edit, at equal prompt length, and without "
        "prompts whose translation looks wrong. A gap that stays is not explained by these.",
        "Language",
        (
            Group("", ("n", "gap")),
            Group("At equal length", ("tokens", "matched", "gap", "95%")),
            Group("Without suspect translations", ("suspect", "gap", "95%")),
        ),
        tuple(rows),
        note="Tokens: mean length of a prompt. Matched: share of prompts in a stratum that has prompts of both "
        "languages. Equal length: Mantel-Haenszel over three strata. Suspect: in another language than it should be, "
        "left in the reference language, or half or twice as long as usual; fluent mistranslations are not found.",
    )
