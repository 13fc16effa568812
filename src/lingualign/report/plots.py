"""Charts as inline SVG strings: text stays text, colours follow the page, the same data gives the same bytes."""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lingualign.evaluate.metrics import Cell
from lingualign.evaluate.statistics import Interval, wilson_interval
from lingualign.evaluate.verdict import Comparison, Effect
from lingualign.report.wording import label, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's blue and vermillion stay apart under every common colour blindness. The page may redefine each colour
# by the CSS variable of its name; a chart taken out of the page falls back on these.
INK, MUTED, GRID, BEFORE, AFTER = "#1b1f24", "#57606a", "#d0d7de", "#b34a00", "#0067a8"
_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid", BEFORE: "--before", AFTER: "--after"}
#: Width of every chart in inches; the page scales it.
_WIDTH = 7.4
_ROW = 0.29
#: Charts show at most this many spectra; a model of many layers would fill pages.
MOST_SPECTRA = 24
#: What all our charts share. Keys are typed Any because matplotlib types them as one of its hundreds of literals.
STYLE: dict[Any, object] = {
    # Real text: it can be searched, read aloud and weighs little. Labels are Latin, so any sans-serif font will do.
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
}
_STYLE: dict[Any, object] = {
    **STYLE,
    "axes.labelsize": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.spines.left": False,
    "xtick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.color": GRID,
    "ytick.labelcolor": INK,
}


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of a chart: a language, or the heading of a group."""

    text: str
    language: str | None
    marker: str


def refusal_chart(
    before: Sequence[Cell], after: Sequence[Cell] | None, *, reference: str, anchor_languages: Sequence[str] = ()
) -> str:
    """Refusal of harmful prompts by language with 95% Wilson intervals; a dumbbell each where there are two audits.

    The reference language is on top, then the anchors, then the others: groups differ in heading and marker.
    """
    chosen = {cell.language: cell for cell in before if cell.kind == "harmful"}
    changed = {cell.language: cell for cell in after or () if cell.kind == "harmful"}
    rows = _rows(list(chosen), reference, anchor_languages)
    with matplotlib.rc_context(_STYLE):
        figure, (axes,) = _panels(1, len(rows), left=1.55, top=0.3 if after is not None else 0.08)
        _set_rows(axes, rows)
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel("share of harmful prompts refused")
        for position, row in enumerate(rows):
            if row.language is None:
                continue
            cell = chosen[row.language]
            _point(
                axes, position, cell.refusal_rate, cell.refusal_interval, row.marker, BEFORE, shift=_shift(changed, -1)
            )
            if now := changed.get(row.language):
                ends = (cell.refusal_rate, now.refusal_rate)
                axes.plot(ends, (position, position), color=GRID, linewidth=3.0, solid_capstyle="butt", zorder=1)
                _point(
                    axes, position, now.refusal_rate, now.refusal_interval, row.marker, AFTER, filled=True, shift=0.17
                )
        _legend(figure, compared=after is not None)
    described = [_described(row, chosen, changed) for row in rows if row.language]
    return _svg(figure, "refusal", "Refusal rate of harmful prompts by language. " + "; ".join(described) + ".")


def side_effects_chart(
    before: Sequence[Cell], after: Sequence[Cell] | None, *, reference: str, anchor_languages: Sequence[str] = ()
) -> str:
    """Refusals of harmless and of look-alike prompts, and incoherent replies to all prompts, by language."""
    counts: dict[str, Callable[[Cell], int]] = {
        "harmless refused": lambda cell: cell.refused if cell.kind == "harmless" else 0,
        "look-alike refused": lambda cell: cell.refused if cell.kind == "look-alike" else 0,
        "incoherent, all prompts": lambda cell: cell.incoherent,
    }
    kinds = {"harmless refused": "harmless", "look-alike refused": "look-alike"}
    rows = _rows(list(dict.fromkeys(cell.language for cell in before)), reference, anchor_languages)
    audits = [(BEFORE, before, -1), *([(AFTER, after, 1)] if after is not None else [])]
    largest = 0.1
    described = []
    with matplotlib.rc_context(_STYLE):
        figure, panels = _panels(len(counts), len(rows), left=1.55, top=0.56 if after is not None else 0.3)
        for axes, (title, count) in zip(panels, counts.items(), strict=True):
            _set_rows(axes, rows, labelled=axes is panels[0])
            axes.set_title(title, loc="left", fontsize=8.5)
            for position, row in enumerate(rows):
                for colour, cells, side in audits:
                    used = [
                        cell
                        for cell in cells
                        if cell.language == row.language and cell.kind in {kinds.get(title, cell.kind)}
                    ]
                    if not used:
                        continue
                    hits, n = sum(map(count, used)), sum(cell.n for cell in used)
                    bounds = wilson_interval(hits, n)
                    largest = max(largest, bounds[1])
                    shift = 0.17 * side if after is not None else 0.0
                    _point(axes, position, hits / n, bounds, row.marker, colour, filled=side > 0, shift=shift)
                    described.append(f"{row.text} {title} {'after' if side > 0 else 'before'} {hits / n:.2f}")
        for axes in panels:
            axes.set_xlim(-0.02 * largest, 1.02 * largest)
            axes.set_xlabel("share")
        _legend(figure, compared=after is not None)
    return _svg(
        figure, "side-effects", "Over-refusal and incoherent replies by language: " + "; ".join(described) + "."
    )


def arms_chart(comparisons: Sequence[tuple[str, Comparison]]) -> str:
    """What each treatment changed against the unedited model, paired, with 95% bootstrap intervals.

    Args:
        comparisons: treatment and its comparison with the unedited model; the first is the edit itself.
    """
    effects: dict[str, Callable[[Comparison], Effect]] = {
        "harmful refused": lambda comparison: comparison.harmful_refusal,
        "harmless refused": lambda comparison: comparison.harmless_refusal,
        "look-alike refused": lambda comparison: comparison.look_alike_refusal,
        "incoherent": lambda comparison: comparison.incoherence,
    }
    rows = [_Row(_headed(name), name, "s" if index == 0 else "o") for index, (name, _) in enumerate(comparisons)]
    described = []
    with matplotlib.rc_context(_STYLE):
        figure, panels = _panels(len(effects), len(rows), left=1.55, top=0.36)
        for axes, (title, effect) in zip(panels, effects.items(), strict=True):
            _set_rows(axes, rows, labelled=axes is panels[0])
            axes.set_title(title, loc="left", fontsize=8.5)
            axes.axvline(0, color=MUTED, linewidth=0.8, zorder=0)
            for position, (_, comparison) in enumerate(comparisons):
                if overall := effect(comparison).overall:
                    colour = AFTER if position == 0 else INK
                    marker = rows[position].marker
                    _point(axes, position, overall.difference, overall.interval, marker, colour, filled=position == 0)
                    described.append(f"{rows[position].text}, {title} {overall.difference:+.2f}")
        _share_limits(panels)
        for axes in panels:
            axes.set_xlabel("change in share")
    return _svg(figure, "arms", "Change against the unedited model by treatment: " + "; ".join(described) + ".")


def spectrum_chart(diagnostics: Sequence[Mapping[str, object]]) -> str:
    """Singular values of the solve, one panel a matrix; those right of the line at the edit's rank were left out.

    Args:
        diagnostics: entries of the edit's manifest with `singular_values`, and `rank`, `layer`, `tensor` where known.
            The first MOST_SPECTRA are drawn.

    Returns:
        The chart, or an empty string where no entry has singular values.
    """
    spectra = [(entry, values) for entry in diagnostics if (values := _numbers(entry.get("singular_values")))]
    spectra = spectra[:MOST_SPECTRA]
    if not spectra:
        return ""
    columns = min(4, len(spectra))
    lines = math.ceil(len(spectra) / columns)
    smallest = min(value for _, values in spectra for value in values)
    largest = max(value for _, values in spectra for value in values)
    longest = max(len(values) for _, values in spectra)
    described = []
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, 1.55 * lines + 0.35))
        grid = figure.subplots(lines, columns, squeeze=False)
        for index, axes in enumerate(grid.flat):
            if index >= len(spectra):
                axes.set_visible(False)
                continue
            entry, values = spectra[index]
            ranks = range(1, len(values) + 1)
            axes.plot(ranks, values, color=AFTER, linewidth=1.4)
            axes.fill_between(ranks, values, smallest / 1.5, color=AFTER, alpha=0.15, linewidth=0)
            rank = entry.get("rank")
            if isinstance(rank, int):
                axes.axvline(rank + 0.5, color=BEFORE, linewidth=1.0, linestyle=(0, (4, 2)))
            axes.set_yscale("log")
            axes.set_ylim(smallest / 1.5, largest * 1.5)
            axes.set_xlim(0, longest + 1)
            axes.minorticks_off()
            axes.yaxis.set_major_formatter("{x:g}")
            axes.tick_params(labelsize=7.5, labelleft=index % columns == 0, labelbottom=index + columns >= len(spectra))
            axes.grid(axis="y")
            axes.set_title(_spectrum_title(entry), loc="left", fontsize=8)
            described.append(f"{_spectrum_title(entry)}: {values[0]:.3g} to {values[-1]:.3g}")
        figure.supxlabel("index of the singular value", fontsize=9)
        bottom = 0.46 / figure.get_figheight()
        figure.subplots_adjust(
            left=0.075, right=0.995, bottom=bottom, top=1 - 0.26 / figure.get_figheight(), hspace=0.42, wspace=0.1
        )
    return _svg(figure, "spectrum", "Singular values of each edited matrix. " + "; ".join(described) + ".")


def _rows(languages: Sequence[str], reference: str, anchor_languages: Sequence[str]) -> list[_Row]:
    """Reference, anchors, others, each group under a heading; no headings where there are no anchors."""
    anchors = [language for language in languages if language in anchor_languages and language != reference]
    others = [language for language in languages if language not in anchors and language != reference]
    rows: list[_Row] = []
    for heading, group, marker in (
        ("Reference", [language for language in languages if language == reference], "D"),
        ("Anchors (in the edit)", anchors, "s"),
        ("Unseen by the edit", others, "o"),
    ):
        if group and anchors:
            rows.append(_Row(heading, None, marker))
        rows.extend(_Row(label(language), language, marker) for language in group)
    return rows


def _panels(count: int, rows: int, *, left: float, top: float) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels side by side and room for row labels; lengths in inches."""
    height = rows * _ROW + top + 0.5
    figure = Figure(figsize=(_WIDTH, height))
    panels = figure.subplots(1, count, squeeze=False)[0]
    figure.subplots_adjust(left=left / _WIDTH, right=0.985, bottom=0.47 / height, top=1 - top / height, wspace=0.09)
    return figure, list(panels)


def _set_rows(axes: Axes, rows: Sequence[_Row], *, labelled: bool = True) -> None:
    axes.set_ylim(len(rows) - 0.4, -0.6)
    positions = [position for position, row in enumerate(rows) if row.language]
    axes.set_yticks(positions, [rows[position].text for position in positions] if labelled else [])
    axes.tick_params(axis="y", length=0, pad=7)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    for position, row in enumerate(rows):
        if row.language is None and labelled:
            axes.annotate(
                row.text,
                (0, position),
                xycoords=axes.get_yaxis_transform(),
                xytext=(-7, 0),
                textcoords="offset points",
                ha="right",
                va="center",
                fontsize=8,
                fontweight="bold",
                color=MUTED,
                annotation_clip=False,
            )


def _point(
    axes: Axes,
    position: float,
    value: float,
    bounds: Interval,
    marker: str,
    colour: str,
    *,
    filled: bool = False,
    shift: float = 0.0,
) -> None:
    height = position + shift
    axes.plot(bounds, (height, height), color=colour, linewidth=1.3, solid_capstyle="butt")
    axes.plot(
        value,
        height,
        marker=marker,
        markersize=5.2,
        markeredgewidth=1.3,
        markeredgecolor=colour,
        markerfacecolor=colour if filled else "white",
        linestyle="none",
        clip_on=False,
        zorder=3,
    )


def _shift(changed: Mapping[str, Cell], side: int) -> float:
    return 0.17 * side if changed else 0.0


def _legend(figure: Figure, *, compared: bool) -> None:
    def handle(text: str, marker: str, colour: str, face: str) -> Line2D:
        return Line2D(
            [],
            [],
            marker=marker,
            color=colour,
            markerfacecolor=face,
            markersize=5.2,
            markeredgewidth=1.3,
            linewidth=1.3,
            label=text,
        )

    if not compared:
        return
    handles = [handle("before", "o", BEFORE, "white"), handle("after", "o", AFTER, AFTER)]
    left = figure.subplotpars.left - 0.01
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(left, 1.0),
        ncols=2,
        frameon=False,
        borderaxespad=0.1,
        borderpad=0.0,
        handlelength=2.2,
    )


def _headed(name: str) -> str:
    """A name short enough for its room beside or above a chart."""
    head, left_out = shortened(name, 24)
    return head + ("…" if left_out else "")


def _share_limits(panels: Sequence[Axes]) -> None:
    """The side effects share one scale, the first panel has its own: gains dwarf side effects."""
    lows, highs = zip(*(axes.get_xlim() for axes in panels[1:]), strict=True)
    for axes in panels[1:]:
        axes.set_xlim(min(lows), max(highs))


def _described(row: _Row, before: Mapping[str, Cell], after: Mapping[str, Cell]) -> str:
    language = row.language or ""
    now = f" before, {after[language].refusal_rate:.2f} after" if language in after else ""
    return f"{row.text} {before[language].refusal_rate:.2f}{now}"


def _spectrum_title(entry: Mapping[str, object]) -> str:
    """`layer 8 · down_proj`, as far as known."""
    parts = [f"layer {entry['layer']}"] if "layer" in entry else []
    names = str(entry.get("tensor", "")).removesuffix(".weight").split(".")
    return _headed(" · ".join([*parts, names[-1]] if names[-1] else parts))


def _numbers(values: object) -> list[float]:
    """The positive numbers of a JSON list: a log scale shows no others."""
    if not isinstance(values, Sequence) or isinstance(values, str):
        return []
    return [float(value) for value in values if isinstance(value, int | float) and value > 0]


def _svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an <svg> element for an HTML page, with ids that no other chart has."""
    buffer = io.StringIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawn = buffer.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>\s*", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r"<style[^>]*>.*?</style>", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r' id="', f' id="{name}-', drawn)
    drawn = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", drawn)
    drawn = re.sub(r"font-family: [^;\"]*", "font-family: inherit", drawn)
    for colour, variable in _VARIABLES.items():
        drawn = drawn.replace(colour, f"var({variable}, {colour})")
    drawn = drawn.replace("#ffffff", "var(--paper, #ffffff)")
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawn)
    assert size is not None  # matplotlib always writes one
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{size[0][9:-1]}" '
        f'role="img" aria-label="{html.escape(description)}" stroke-linejoin="round">'
    )
    return opening + drawn[drawn.index(">") + 1 :].rstrip()
