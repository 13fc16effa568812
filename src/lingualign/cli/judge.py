"""`lingualign judge`: lists the judges and measures the error of one on labelled replies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lingualign.cli import options as o

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.table import Table

    from lingualign.evaluate.judges.measure import LanguageError

app = typer.Typer(help="The judges and their measured error.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list", short_help="Judges with what they tell, languages and licences.")
def list_judges(json: o.Json = False) -> None:
    """Show every judge: how it is named, what it tells, in which languages, under which licence."""
    from dataclasses import asdict

    from lingualign.cli.screen import Screen
    from lingualign.evaluate.judges.registry import known_judges

    screen = Screen(as_json=json, quiet=False)
    entries = known_judges()
    rows = [
        (entry.specification, entry.model, ", ".join(entry.gives), entry.languages, entry.licence) for entry in entries
    ]
    if not json:
        screen.result(_table("", ("judge", "model", "tells", "languages", "licence"), rows, right=()))
    screen.document({"judges": [asdict(entry) for entry in entries]})


@app.command("evaluate", short_help="Sensitivity and specificity on labelled replies.")
def evaluate(
    labels: Annotated[Path, typer.Argument(help="JSON lines of labelled replies.", show_default=False)],
    judge: Annotated[str, typer.Option(help="NAME[:MODEL][@URL]; `lingualign judge list` shows the names.")] = "ngram",
    out: Annotated[Path | None, typer.Option(help="File for the error as JSON.", show_default=False)] = None,
    cache: Annotated[
        Path | None, typer.Option(help="File of a guard's outputs: nothing is asked twice.", show_default=False)
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Replies per batch of a guard in this process.", min=1)] = 8,
    device: o.Device = None,
    concurrency: Annotated[int, typer.Option(help="Most requests to a server at once.", min=1)] = 8,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for a server's answer.", min=0.1)] = 120.0,
    key_variable: Annotated[str, typer.Option(help="Environment variable with a server's API key.")] = "OPENAI_API_KEY",
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Measure how often a judge is right, by language, on replies whose labels are known."""
    from lingualign.cli.screen import open_screen

    with open_screen(as_json=json, quiet=quiet) as screen:
        from lingualign.evaluate.judges.guard import GuardJudge
        from lingualign.evaluate.judges.measure import error_document, measure_judge, read_labels
        from lingualign.evaluate.judges.registry import make_judge
        from lingualign.runs import write_json

        made = make_judge(
            judge,
            cache=cache,
            batch_size=batch_size,
            device=device,
            concurrency=concurrency,
            timeout=timeout,
            key_variable=key_variable,
        )
        labelled = read_labels(labels, needs_prompt=isinstance(made, GuardJudge))
        errors = measure_judge(made, labelled, progress=screen.progress)
        document = error_document(made.name, labelled, errors)
        if not json:
            screen.say(_error_table(made.name, errors))
        if out is not None:
            screen.result(f"Error     {write_json(out, document)}")
        screen.document(document)


def _error_table(name: str, errors: Mapping[str, LanguageError]) -> Table:
    from lingualign.evaluate.statistics import wilson_interval

    def rate(right: int, total: int) -> str:
        low, high = wilson_interval(right, total)
        return f"{right / total:.3f} [{low:.2f}, {high:.2f}]" if total else "not measured"

    rows = [
        (
            tag,
            str(error.refused),
            rate(error.found, error.refused),
            str(error.answered),
            rate(error.spared, error.answered),
            f"{error.incoherent / error.rows:.1%}",
            f"{error.unparsed / error.rows:.1%}",
        )
        for tag, error in errors.items()
    ]
    names = ("language", "refused", "sensitivity", "answered", "specificity", "incoherent", "unparsed")
    total, human = (sum(getattr(error, count) for error in errors.values()) for count in ("rows", "human"))
    title = f"Error of {name} on {total} replies, {human} labelled by people; 95% intervals"
    return _table(title, names, rows, right=(1, 3, 5, 6))


def _table(title: str, names: tuple[str, ...], rows: Sequence[tuple[str, ...]], right: tuple[int, ...]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, title=Text(title) if title else None, title_justify="left", pad_edge=False)
    for index, name in enumerate(names):
        table.add_column(name, justify="right" if index in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table
