"""Pareto plots: what a method gains against what it costs, one panel for each cost."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import matplotlib
from matplotlib.figure import Figure

from lingualign.report.plots import AFTER, MUTED, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STYLE: dict[Any, object] = {**STYLE, "xtick.color": MUTED, "ytick.color": MUTED}
#: Where some costs are far above this, they are drawn by their logarithm: most methods cost little, a few very much.
_LINEAR_BELOW = 0.05
#: Where a label's middle may stand, in points from that of its marker, the best first.
_PLACES = tuple(
    (radius * math.cos(math.radians(angle)), radius * math.sin(math.radians(angle)))
    for radius in (11, 16, 22, 29, 37)
    for angle in (45, 0, -45, 90, -90, 135, 180, -135)
)
#: Width of a digit and height of a line in points, and half a marker's width.
_DIGIT, _LINE, _MARKER = 5.0, 8.0, 3.0
#: Left, bottom, right, top.
_Box: TypeAlias = tuple[float, float, float, float]


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


def _bent(axes: Axes, costs: Sequence[float]) -> None:
    """A scale that is linear around zero and logarithmic beyond, with ticks at 0 and at steps of about three."""
    axes.set_xscale("symlog", linthresh=_LINEAR_BELOW, linscale=0.8)
    steps = [sign * base * 10.0**power for sign in (-1, 1) for power in range(-3, 3) for base in (1, 3)]
    shown = [step for step in steps if abs(step) >= _LINEAR_BELOW / 2 and min(costs) <= step <= max(costs)]
    axes.set_xticks(sorted([0.0, *shown]))
    axes.minorticks_off()
    axes.xaxis.set_major_formatter("{x:g}")


def _write_labels(axes: Axes, points: Sequence[Point]) -> None:
    """Labels beside their markers, with a line to those that stand further off. The axes' place must be final."""
    if not points:
        return
    pixels = axes.transData.transform([(point.cost, point.gain) for point in points])
    middles = [(float(x), float(y)) for x, y in pixels * 72 / axes.figure.dpi]
    places = label_places(middles, [_DIGIT * len(point.label) for point in points])
    for point, place in zip(points, places, strict=True):
        axes.annotate(
            point.label,
            (point.cost, point.gain),
            xytext=place,
            textcoords="offset points",
            ha="center",
            va="center",
            size=8,
            arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.4, "shrinkA": 3, "shrinkB": 2}
            if math.hypot(*place) > 2 * _PLACES[0][0]
            else None,
        )


def label_places(middles: Sequence[tuple[float, float]], widths: Sequence[float]) -> list[tuple[float, float]]:
    """Where labels stand beside their markers, all in points: one after the other, on as little as may be of the
    markers and of the labels before it."""
    taken = [_box(x, y, 2 * _MARKER, 2 * _MARKER) for x, y in middles]
    places = []
    for (x, y), width in zip(middles, widths, strict=True):
        boxes = {place: _box(x + place[0], y + place[1], width, _LINE) for place in _PLACES}
        best = min(_PLACES, key=lambda place: sum(_shared(boxes[place], other) for other in taken))
        places.append(best)
        taken.append(boxes[best])
    return places


def _box(x: float, y: float, width: float, height: float) -> _Box:
    """The box around a middle."""
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _shared(one: _Box, other: _Box) -> float:
    """The area that two boxes share."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0.0) * max(height, 0.0)


def pareto_chart(panels: Sequence[Panel], name: str) -> str:
    """An SVG document; the same data gives the same bytes with one version of matplotlib."""
    rows = (len(panels) + 1) // 2
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(10.0, 3.8 * rows))
        grid = figure.subplots(rows, 2, squeeze=False)
        for axes in list(grid.flat)[len(panels) :]:
            axes.set_visible(False)
        for axes, panel in zip(grid.flat, panels, strict=False):
            costs = [point.cost for point in panel.points]
            if panel.logarithmic:
                _whole_decades(axes, costs)
            elif max(map(abs, costs), default=0.0) > 4 * _LINEAR_BELOW:
                _bent(axes, costs)
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
            if not panel.logarithmic:
                axes.margins(x=0.1)
            axes.margins(y=0.1)
            axes.grid(visible=True)
            axes.set_xlabel(panel.name)
            axes.set_ylabel("gain")
        figure.tight_layout()
        for axes, panel in zip(grid.flat, panels, strict=False):
            _write_labels(axes, panel.points)
        buffer = io.StringIO()
        metadata = {"Date": None, "Creator": None, "Description": described(panels)}
        figure.savefig(buffer, format="svg", metadata=metadata)
    # Lines that end in blanks are a diff's noise.
    return re.sub(r"[ \t]+\n", "\n", buffer.getvalue())
