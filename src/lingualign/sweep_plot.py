"""The chart of a sweep: every setting by leakage and explained gap, the Pareto front, and the audited settings."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.figure import Figure

from lingualign.methods.sweep import Score
from lingualign.report.plots import AFTER, BEFORE, MUTED, STYLE


def front_chart(scores: Sequence[Score], front: Sequence[Score], named: Mapping[str, Score]) -> str:
    """An SVG document; the same data gives the same bytes with one version of matplotlib.

    Args:
        scores: of all settings.
        front: those on the Pareto front, by rising leakage.
        named: those to be marked, by name.
    """
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": "sweep"}):
        figure = Figure(figsize=(7.4, 4.2))
        axes = figure.subplots()
        axes.plot(*_coordinates(scores), linestyle="none", marker=".", markersize=3, color=MUTED, alpha=0.5)
        axes.plot(*_coordinates(front), color=AFTER, linewidth=1.2, marker="o", markersize=3)
        for name, score in named.items():
            place = (score.leakage, score.explained)
            axes.plot(*place, linestyle="none", marker="s", markersize=6, color=BEFORE)
            axes.annotate(name, place, xytext=(6, -9), textcoords="offset points", color=BEFORE)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.grid(visible=True)
        axes.set_xlabel("leakage: change of the keep set's outputs, share of their second moment")
        axes.set_ylabel("explained: share of the gap that is closed")
        figure.tight_layout()
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    # Lines that end in blanks are a diff's noise.
    return re.sub(r"[ \t]+\n", "\n", buffer.getvalue())


def _coordinates(scores: Sequence[Score]) -> tuple[list[float], list[float]]:
    return [score.leakage for score in scores], [score.explained for score in scores]
