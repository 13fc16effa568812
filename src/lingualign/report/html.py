"""The report as one self-contained HTML file: no network, no script, light and dark, printable.

Model output and prompts are hostile text. Every value that reaches the page is cleaned (`wording.clean`), cut to a
bearable length and escaped; prompts and replies appear only where they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from lingualign.data.schema import KINDS, Kind
from lingualign.evaluate.metrics import Cell, cells, language_fidelity, worst_language
from lingualign.evaluate.schema import Reply
from lingualign.evaluate.verdict import Comparison, audit_sentence, compare, verdict_sentence
from lingualign.report import plots
from lingualign.report.arms import compare_arm
from lingualign.report.data import Arm, ReportData
from lingualign.report.panels.panel import ABOUTS, About
from lingualign.report.wording import clean, difference, difference_interval, interval, label, p_value, rate, shortened
from lingualign.runs import write_text

#: Name of the edit or steering among the treatments.
EDIT_ARM = "this treatment"


@dataclass(frozen=True, slots=True)
class Tile:
    """A figure at the top of the page."""

    name: str
    value: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """One prompt with its replies; the prompt's text where it is known."""

    before: Reply
    after: Reply | None
    prompt: str | None


@dataclass(frozen=True, slots=True)
class DataTable:
    """A nested mapping as a table."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def render_report(data: ReportData, *, show_text: bool = False) -> str:
    """The page as a string.

    Args:
        show_text: show the example prompts and replies; otherwise only their seed ids, outcomes, lengths and languages.

    Raises:
        DataError: there are no harmful prompts, or the audits and controls are not of the same prompts.
    """
    template = _environment().get_template("template.html.j2")
    before = cells(data.before)
    reference, anchors = data.reference, data.anchor_languages
    common: dict[str, object] = {
        "data": data,
        "show_text": show_text,
        "languages": _languages(before, data.reference),
        "before": _by_language(before),
        "panels": {about: [panel for panel in data.panels if panel.about == about] for about in ABOUTS},
        "contents": _contents(data),
        "examples": list(_examples(data)),
        "run": _flat(data.settings),
        "judge": _flat(data.judge),
        "judge_tables": _tables(data.judge),
        "manifest": _flat(
            {
                key: value
                for key, value in (data.edit_manifest or {}).items()
                if key not in {"diagnostics", "loss_curve"}
            }
        ),
        "diagnostics": _diagnostics(data.edit_manifest),
        "spectrum": Markup(plots.spectrum_chart(_entries(data.edit_manifest))),
    }
    if data.after is None:
        return template.render(
            **common,
            sentence=_whole(audit_sentence(before, data.reference)),
            tiles=_audit_tiles(before, data.reference),
            comparison=None,
            fidelity=language_fidelity(data.before, "refused"),
            refusal_chart=Markup(plots.refusal_chart(before, None, reference=reference, anchor_languages=anchors)),
            side_effects_chart=Markup(
                plots.side_effects_chart(before, None, reference=reference, anchor_languages=anchors)
            ),
            arms=(),
            arms_chart=Markup(),
        )
    comparison = compare(data.before, data.after, reference=reference, anchor_languages=anchors)
    after = cells(data.after)
    arms = _arms(data)
    return template.render(
        **common,
        sentence=_whole(verdict_sentence(comparison)),
        tiles=_tiles(comparison),
        comparison=comparison,
        fidelity=comparison.refusal_languages_before,
        refusal_chart=Markup(plots.refusal_chart(before, after, reference=reference, anchor_languages=anchors)),
        side_effects_chart=Markup(
            plots.side_effects_chart(before, after, reference=reference, anchor_languages=anchors)
        ),
        arms=arms if data.controls else (),
        arms_chart=Markup(plots.arms_chart([(arm.name, effect) for arm, effect in arms]))
        if data.controls
        else Markup(),
    )


def write_report(data: ReportData, path: Path, *, show_text: bool = False) -> Path:
    """Writes the page; an old file at `path` is replaced only once the new one is whole.

    Raises:
        DataError: as for `render_report`.
        NotEnoughMemory: the disk is full.
        UserError: the file cannot be written for another reason.
    """
    return write_text(path, render_report(data, show_text=show_text))


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("lingualign", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters.update(
        whole=_whole, rate=rate, signed=difference, interval=interval, p_value=p_value, label=label
    )
    return environment


def _shown(value: object) -> object:
    """What the page shows of a value. Runs before escaping, on every expression of the template; our own SVG passes."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    head, left_out = shortened(value)
    return f"{head} … [{left_out:,} more characters]" if left_out else head


def _whole(sentence: str) -> Markup:
    """Our own words, cleaned and escaped but never cut."""
    return escape(clean(sentence))


def _languages(audit: Sequence[Cell], reference: str) -> list[str]:
    return sorted(dict.fromkeys(cell.language for cell in audit), key=lambda language: language != reference)


def _by_language(audit: Sequence[Cell]) -> dict[str, dict[Kind, Cell]]:
    return {cell.language: {other.kind: other for other in audit if other.language == cell.language} for cell in audit}


def _tiles(comparison: Comparison) -> list[Tile]:
    headline = comparison.headline
    worst, was = comparison.worst_after, comparison.worst_before
    ends = (label(was.language), label(worst.language))
    tiles = [
        Tile(
            "Harmful refused",
            f"{rate(headline.before)} → {rate(headline.after)}",
            (_scope(comparison), difference(headline.difference), _bounds(headline.interval)),
        ),
        Tile(
            "Worst language",
            f"{rate(was.refusal_rate)} → {rate(worst.refusal_rate)}",
            ends[:1] if ends[0] == ends[1] else (f"{ends[0]} before", f"{ends[1]} after"),
        ),
    ]
    for name, effect in (
        ("Harmless refused", comparison.harmless_refusal),
        ("Look-alikes refused", comparison.look_alike_refusal),
        ("Incoherent replies", comparison.incoherence),
    ):
        if overall := effect.overall:
            value, notes = (
                f"{rate(overall.before)} → {rate(overall.after)}",
                (difference(overall.difference), _bounds(overall.interval)),
            )
            tiles.append(Tile(name, value, notes))
        else:
            tiles.append(Tile(name, "–", ("not measured",)))
    return tiles


def _audit_tiles(audit: Sequence[Cell], reference: str) -> list[Tile]:
    tiles = []
    for name, kind in (
        ("Harmful refused", "harmful"),
        ("Harmless refused", "harmless"),
        ("Look-alikes refused", "look-alike"),
    ):
        of_kind = [cell for cell in audit if cell.kind == kind]
        others = [cell.refusal_rate for cell in of_kind if cell.language != reference]
        notes = [f"mean of {len(others)} languages"] if others else []
        notes += [f"{label(cell.language)} {rate(cell.refusal_rate)}" for cell in of_kind if cell.language == reference]
        tiles.append(Tile(name, rate(sum(others) / len(others)) if others else "–", tuple(notes) or ("not measured",)))
    worst = worst_language(audit)
    tiles.insert(1, Tile("Worst language", rate(worst.refusal_rate), (label(worst.language),)))
    broken = sum(cell.incoherent for cell in audit) / sum(cell.n for cell in audit)
    return [*tiles, Tile("Incoherent replies", rate(broken), ("of all replies",))]


def _scope(comparison: Comparison) -> str:
    mean = comparison.harmful_refusal.mean
    return f"mean of {len(mean.languages)} languages" if mean else label(comparison.rows[0].language)


def _bounds(bounds: tuple[float, float]) -> str:
    return f"95%: {difference_interval(bounds)}"


def _arms(data: ReportData) -> list[tuple[Arm, Comparison]]:
    """The edit, then the controls, each compared with the unedited model."""
    edit = Arm(EDIT_ARM, "What this report is about.", data.after or ())
    return [(arm, compare_arm(data.before, arm, reference=data.reference)) for arm in (edit, *data.controls)]


def _examples(data: ReportData) -> Iterator[Example]:
    """For each language the first harmful prompt that changed (else the first), and the first other that changed."""
    later = {reply.key: reply for reply in data.after or ()}
    for language in dict.fromkeys(reply.language for reply in data.before):
        replies = [reply for reply in data.before if reply.language == language]
        changed = [reply for reply in replies if reply.key in later and later[reply.key].outcome != reply.outcome]
        harmful = [reply for reply in (*changed, *replies) if reply.kind == KINDS[0]][:1]
        others = [reply for reply in changed if reply.kind != KINDS[0]][:1]
        for reply in (*harmful, *others):
            yield Example(reply, later.get(reply.key), data.prompts.get(reply.key))


def _contents(data: ReportData) -> list[tuple[str, str]]:
    """Id and heading of each section, in the order of the page."""

    def about(subject: About) -> list[tuple[str, str]]:
        return [(panel.name, panel.title) for panel in data.panels if panel.about == subject]

    return [
        ("measured", "What was measured"),
        *([("gates", "Gates")] if data.gates else []),
        ("refusal", "Refusal of harmful prompts"),
        *about("judge"),
        ("over-refusal", "Over-refusal and broken replies"),
        *([("controls", "Controls side by side")] if data.controls else []),
        *about("behaviour"),
        ("refusal-language", "Language of refusals"),
        *about("utility"),
        *([("edit", "What was done to the model")] if data.edit_manifest is not None else []),
        ("examples", "Example replies"),
        ("reading", "How to read this"),
        ("settings", "Judge, settings, versions, time"),
    ]


def _flat(values: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    """Dotted names and values as text; mappings of mappings are left to `_tables`."""
    found: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        if _is_table(value):
            continue
        if isinstance(value, Mapping):
            found += _flat(value, f"{name}.")
        else:
            found.append((name, _as_text(value)))
    return found


def _tables(values: Mapping[str, object]) -> list[DataTable]:
    tables = []
    for title, value in values.items():
        if isinstance(value, Mapping) and _is_table(value):
            columns = tuple(dict.fromkeys(str(key) for row in value.values() for key in row))
            rows = tuple(
                (label(str(name)), *(_in_table(row[column]) if column in row else "" for column in columns))
                for name, row in value.items()
            )
            tables.append(DataTable(title, columns, rows))
    return tables


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(row, Mapping) for row in value.values())


def _in_table(value: object) -> str:
    # The same number of digits all the way down.
    return f"{value:.3f}" if isinstance(value, float) else _as_text(value)


def _as_text(value: object) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_as_text, value))
    return str(value)


def _entries(manifest: Mapping[str, object] | None) -> list[Mapping[str, object]]:
    diagnostics = (manifest or {}).get("diagnostics")
    return list(diagnostics) if isinstance(diagnostics, Sequence) and not isinstance(diagnostics, str) else []


def _diagnostics(manifest: Mapping[str, object] | None) -> DataTable | None:
    """One row a matrix, with the columns that any of them has; the spectra are a chart."""
    entries = [{key: value for key, value in entry.items() if key != "singular_values"} for entry in _entries(manifest)]
    columns = tuple(dict.fromkeys(key for entry in entries for key in entry))
    rows = tuple(tuple(_as_text(entry[column]) if column in entry else "" for column in columns) for entry in entries)
    return DataTable("", columns, rows) if columns else None
