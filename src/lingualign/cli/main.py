"""The `lingualign` program: registers the commands and turns errors into one line and an exit code."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from lingualign import __version__
from lingualign.cli import (
    audit,
    check,
    convert,
    data,
    demo,
    doctor,
    edit,
    export,
    judge,
    plan,
    report,
    run,
    sweep,
    verify,
)
from lingualign.errors import UserError

#: Exit code of a command that Ctrl+C ended, as shells have it.
INTERRUPTED = 130


class Commands(TyperGroup):
    """The group of commands, with one place where errors a person can act on lose their traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            print("interrupted: what is done is kept; give the same command again to go on", file=sys.stderr)
            sys.exit(INTERRUPTED)


app = typer.Typer(
    cls=Commands,
    help="Make open-weight language models equally safe in every language: measure, edit, prove.",
    no_args_is_help=True,
    add_completion=False,
    # Rich help costs more time than everything else that --help does.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"lingualign {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


app.command("demo", short_help="The whole job on a small built-in model.")(demo.demo)
app.command("run", short_help="Audit, edit, audit again, verdict, report.")(run.run)
app.command("audit", short_help="Measure refusal in each language.")(audit.audit)
app.command("edit", short_help="Fit the edit and save it.")(edit.edit)
app.command("sweep", short_help="Score many settings of the edit, audit a few.")(sweep.sweep)
app.command("verify", short_help="Prove what an edit or a steering changes.")(verify.verify)
app.command("export", short_help="Write an edited checkpoint or a LoRA adapter.")(export.export)
app.command("report", short_help="Render a finished run's report again.")(report.report)
app.add_typer(judge.app, name="judge", short_help="The judges and their measured error.")
app.command("check", short_help="Rates by language from other harnesses' files.")(check.check)
app.command("convert", short_help="A run's replies as Parquet or Inspect logs.")(convert.convert)
app.command("plan", short_help="Modules, time, memory, disk; loads nothing.")(plan.plan)
app.command("doctor", short_help="Versions, memory, disk, extras, cache.")(doctor.doctor)
app.add_typer(data.app, name="data", short_help="Public benchmarks: list, show, check.")


def run_cli() -> None:
    """Entry point of the `lingualign` program."""
    app()
