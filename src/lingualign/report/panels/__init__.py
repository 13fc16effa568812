"""Tables of a report that are made from sections of `result.json` (see `lingualign.measures`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lingualign.report.panels.behaviour import (
    consistency_panel,
    fidelity_panel,
    following_panel,
    prompt_controls_panel,
)
from lingualign.report.panels.judges import corrected_panel, second_judge_panel, unparsed_panel
from lingualign.report.panels.panel import Group, Panel
from lingualign.report.panels.utility import generation_panel, perplexity_panel, tasks_panel

__all__ = ["Group", "Panel", "panels"]

_PANELS: tuple[Callable[[Mapping[str, Any]], Panel | None], ...] = (
    unparsed_panel,
    corrected_panel,
    second_judge_panel,
    consistency_panel,
    following_panel,
    prompt_controls_panel,
    fidelity_panel,
    perplexity_panel,
    generation_panel,
    tasks_panel,
)


def panels(figures: Mapping[str, Any]) -> tuple[Panel, ...]:
    """The panels of the sections that a result has.

    Args:
        figures: the content of `result.json`.
    """
    made = (make(figures) for make in _PANELS)
    return tuple(panel for panel in made if panel is not None)
