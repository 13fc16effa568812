"""Pareto plots: what a method gains against what it costs, one panel for each cost."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.figure import Figure

from lingualign.report.plots import AFTER, MUTED, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STYLE: dict[Any, object] = {**STYLE, "xtick.color": MUTED, "ytick.color": MUTED}


@dataclass(frozen=True, slots=True)
class Point:
    """One method in one panel.

    Attributes:
        label: its number in the tables.
        cost, gain: where it is; a lower cost and a higher gain are better.
        control: whether it is one.
    """

    label: str
    cost: float
    gain: float
    control: bool


@dataclass(frozen=True, slots=True)
class Panel:
    """One cost: its name on the axis, and the methods for which it is known; on a log scale positive ones alone."""

    name: str
    points: tuple[Point, ...]
    logarithmic: bool = False


def front(points: Sequence[Point]) -> list[Point]:
    """Those that no other beats in one respect without being worse in the other, by rising cost."""

    def beats(one: Point, other: Point) -> bool:
        better = (one.cost <= other.cost, one.gain >= other.gain)
        return all(better) and (one.cost, one.gain) != (other.cost, other.gain)

    return sorted(
        (point for point in points if not any(beats(other, point) for other in points)),
        key=lambda point: (point.cost, point.gain),
    )


def described(panels: Sequence[Panel]) -> str:
    """The plot in words."""
    parts = []
    for panel in panels:
        on_front = front(panel.points)
        places = (
            f"{point.label} at {point.cost:.3g}, {point.gain:+.3f}{' (front)' if point in on_front else ''}"
            for point in panel.points
        )
        parts.append(f"gain against {panel.name}: {'; '.join(places) or 'nothing'}")
    return ". ".join(parts) + "."


def _whole_decades(axes: Axes, costs: Sequence[float]) -> None:
    """A log scale that begins and ends at a power of ten, so that there are always two to read it by."""
    axes.set_xscale("log")
    if costs:
        axes.set_xlim(10 ** math.floor(math.log10(min(costs)) - 0.1), 10 ** math.ceil(math.log10(max(costs)) + 0.1))
    axes.minorticks_off()
    axes.xaxis.set_major_formatter("{x:g}")


def pareto_chart(panels: Sequence[Panel], name: str) -> str:
    """An SVG document; the same data gives the same bytes with one version of matplotlib."""
    rows = (len(panels) + 1) // 2
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(7.4, 2.7 * rows))
        grid = figure.subplots(rows, 2, squeeze=False)
        for axes in list(grid.flat)[len(panels) :]:
            axes.set_visible(False)
        for axes, panel in zip(grid.flat, panels, strict=False):
            if panel.logarithmic:
                _whole_decades(axes, [point.cost for point in panel.points])
            on_front = front(panel.points)
            axes.plot(
                [point.cost for point in on_front],
                [point.gain for point in on_front],
                color=AFTER,
                linewidth=1.0,
                drawstyle="steps-post",
                zorder=1,
            )
            for point in panel.points:
                axes.plot(
                    point.cost,
                    point.gain,
                    marker="s" if point.control else "o",
                    color=AFTER if point in on_front else MUTED,
                    markerfacecolor=AFTER if point in on_front else "white",
                    markersize=5.2,
                    zorder=2,
                )
                axes.annotate(point.label, (point.cost, point.gain), xytext=(4, 4), textcoords="offset points")
            if not panel.logarithmic:
                axes.margins(x=0.1)
            axes.margins(y=0.1)
            axes.grid(visible=True)
            axes.set_xlabel(panel.name)
            axes.set_ylabel("gain")
        figure.tight_layout()
        buffer = io.StringIO()
        metadata = {"Date": None, "Creator": None, "Description": described(panels)}
        figure.savefig(buffer, format="svg", metadata=metadata)
    # Lines that end in blanks are a diff's noise.
    return re.sub(r"[ \t]+\n", "\n", buffer.getvalue())
