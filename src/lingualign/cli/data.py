"""`lingualign data list|show|check`: the public benchmarks, and what is wrong with a source of prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lingualign.cli import options as o

if TYPE_CHECKING:
    from rich.table import Table

    from lingualign.data.benchmarks import Benchmark
    from lingualign.prompt_check import Finding, SourceCheck

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.command("list")
def list_benchmarks(json: o.Json = False) -> None:
    """Show the public benchmarks with kinds, size, languages and licence."""
    from rich.text import Text

    from lingualign.cli.screen import Screen
    from lingualign.data.benchmarks import BENCHMARKS

    screen = Screen(as_json=json, quiet=False)
    table = _table("name", "kinds", "rows", "languages", "licence", "terms")
    for benchmark in BENCHMARKS.values():
        name = benchmark.name + ("*" if benchmark.unverified else "")
        licence = benchmark.licence.partition(";")[0].partition(" (")[0]
        terms = "NC" if benchmark.non_commercial else ""
        languages = _few(benchmark.languages)
        table.add_row(*map(Text, (name, ", ".join(benchmark.kinds), benchmark.rows, languages, licence, terms)))
    screen.result(
        table,
        "Rows are requests of all parts, in each language; + means that some parts' are not verified.",
        "* something of the entry is not verified. NC: not for commercial use. More: lingualign data show NAME",
    )
    screen.document({name: _document(benchmark) for name, benchmark in BENCHMARKS.items()})


@app.command("show", short_help="Show all there is about one of them.")
def show(
    name: Annotated[str, typer.Argument(help="A benchmark, as `data list` names it.", show_default=False)],
    json: o.Json = False,
) -> None:
    """Show all there is about a benchmark: parts, terms, how to load it, overlaps, pitfalls."""
    from lingualign.cli.screen import Screen
    from lingualign.data.benchmarks.registry import benchmark_named

    benchmark = benchmark_named(name)
    document = _document(benchmark)
    screen = Screen(as_json=json, quiet=False)
    screen.result(f"{benchmark.name}: {benchmark.title}", "")
    for part in document["parts"]:
        rows = "rows not verified" if part["rows"] is None else f"{part['rows']:,} rows"
        split = f", {part['split']} split" if part["split"] else ""
        parallel = "" if part["parallel"] else ", not parallel"
        screen.result(f"  {part['name']:<20}{part['kind']}, {rows}{split}{parallel}, {' '.join(part['languages'])}")
        if part["rows_by_language"]:
            counts = ", ".join(f"{tag} {count:,}" for tag, count in part["rows_by_language"].items())
            screen.result(f"  {'':<20}rows: {counts}")
    screen.result(
        "",
        f"Licence    {benchmark.licence}{' (not for commercial use)' if benchmark.non_commercial else ''}",
        f"Citation   {benchmark.citation}",
        f"Home       {benchmark.homepage}",
        f"Hub        {_hub_line(benchmark)}",
        f"Layout     {benchmark.layout}",
        f"Load       {' or '.join(document['load'])}",
        f"Verified   {'not: ' + benchmark.unverified if benchmark.unverified else 'yes'}",
        *(f"Pitfall    {pitfall}" for pitfall in benchmark.pitfalls),
        *(f"Overlap    {line}" for line in document["overlaps"]),
    )
    screen.document(document)


@app.command("check", short_help="Count and compare prompts; exit code 2 on a fault.")
def check(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="NAME:FOLDER, NAME/PART:FOLDER, NAME@hub, builtin or a prompt file; several are compared.",
            show_default=False,
        ),
    ],
    languages: Annotated[
        str | None, typer.Option(help="Languages to check by tag, such as en,zh; by default all of the source's.")
    ] = None,
    json: o.Json = False,
) -> None:
    """Count rows, gaps, repetitions and texts in a wrong language, and find overlaps. Exit code 2 where one fails."""
    from lingualign.cli.screen import Screen
    from lingualign.errors import DataError
    from lingualign.languages import check_languages
    from lingualign.prompt_check import check_overlaps, check_source

    tags = None if languages is None else check_languages([tag.strip() for tag in languages.split(",") if tag.strip()])
    checks = [check_source(source, tags) for source in sources]
    overlaps = check_overlaps(checks)
    screen = Screen(as_json=json, quiet=False)
    for found in checks:
        screen.result(*_check_parts(found))
    if overlaps:
        screen.result("Overlaps", *_lines(overlaps))
    screen.document(
        {
            "sources": [
                {
                    "source": found.spec,
                    "cells": [_fields(cell) for cell in found.cells],
                    "findings": [_fields(finding) for finding in found.findings],
                }
                for found in checks
            ],
            "overlaps": [finding.text for finding in overlaps],
        }
    )
    if failed := [found.spec for found in checks if found.failed]:
        raise DataError(f"{len(failed)} of {len(checks)} sources cannot be used as they are: {', '.join(failed)}")


def _check_parts(found: SourceCheck) -> list[str | Table]:
    """The table of one source and what was found in it."""
    from rich.text import Text

    table = _table("part", "language", "prompts", "missing", "repeated", "wrong language")
    for cell in found.cells:
        wrong = "-" if cell.wrong_language is None else str(cell.wrong_language)
        table.add_row(Text(cell.part), cell.language, f"{cell.prompts:,}", str(cell.missing), str(cell.repeated), wrong)
    return [found.spec, *([table] if found.cells else []), *_lines(found.findings), ""]


def _lines(findings: list[Finding] | tuple[Finding, ...]) -> list[str]:
    return [f"  {finding.level:<9}{finding.text}" for finding in findings]


def _table(*columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        numeric = name in {"rows", "prompts", "missing", "repeated", "wrong language"}
        table.add_column(name, justify="right" if numeric else "left", no_wrap=name in {"name", "rows"})
    return table


def _few(languages: tuple[str, ...]) -> str:
    """The first languages and the number of the others."""
    return " ".join(languages[:4]) + (f" +{len(languages) - 4}" if len(languages) > 4 else "")


def _hub_line(benchmark: Benchmark) -> str:
    if benchmark.hub is None:
        return "not there in a format that we read"
    some = f", only {' '.join(benchmark.hub.languages)}" if benchmark.hub.languages else ""
    return f"{benchmark.hub.repository}{', gated: accept its terms first' if benchmark.hub.gated else ''}{some}"


def _document(benchmark: Benchmark) -> dict[str, Any]:
    """Everything about a benchmark, for machines."""
    from lingualign.data.benchmarks.overlaps import overlaps_of

    name, hub = benchmark.name, benchmark.hub
    return {
        "name": name,
        "title": benchmark.title,
        "parts": [
            {
                "name": part,
                "kind": described.kind,
                "rows": described.rows,
                "rows_by_language": dict(described.rows_by_language),
                "languages": list(described.languages),
                "split": described.split,
                "parallel": described.parallel,
            }
            for part, described in benchmark.parts.items()
        ],
        "licence": benchmark.licence,
        "non_commercial": benchmark.non_commercial,
        "citation": benchmark.citation,
        "homepage": benchmark.homepage,
        "hub": None if hub is None else {"repository": hub.repository, "files": list(hub.files), "gated": hub.gated},
        "layout": benchmark.layout,
        "load": [f"{name}:FOLDER with the files in FOLDER/{name}", *([] if hub is None else [f"{name}@hub"])],
        "unverified": benchmark.unverified,
        "pitfalls": list(benchmark.pitfalls),
        "overlaps": [f"{overlap.first} and {overlap.second}: {overlap.what}" for overlap in overlaps_of(name)],
    }


def _fields(item: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(item)
