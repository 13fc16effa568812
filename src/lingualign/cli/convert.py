"""`lingualign convert`: the replies of a finished run for other programs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lingualign.cli import options as o


class Format(StrEnum):
    """What a run is converted to."""

    parquet = "parquet"
    inspect = "inspect"


def convert(
    folder: Annotated[Path, typer.Argument(help="A run folder.", show_default=False)],
    to: Annotated[Format, typer.Option("--to", help="A Parquet table of all replies, or one Inspect log an arm.")],
    out: Annotated[
        Path | None,
        typer.Option(help="File or folder; by default FOLDER/replies.parquet or FOLDER/inspect.", show_default=False),
    ] = None,
    show_text: Annotated[bool, typer.Option("--show-text", help="Write prompts and replies too.")] = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Write the judged replies of a finished run as Parquet or as Inspect logs; no model is loaded."""
    from lingualign.cli.screen import Screen

    screen = Screen(as_json=json, quiet=quiet)
    if to is Format.parquet:
        from lingualign.interop.parquet import write_replies_parquet

        paths = [write_replies_parquet(folder, out or folder / "replies.parquet", show_text=show_text)]
    else:
        from lingualign.interop.inspect_log import write_inspect_logs

        paths = write_inspect_logs(folder, out or folder / "inspect", show_text=show_text)
    for path in paths:
        screen.result(f"Written   {path}")
    screen.document({"format": to.value, "files": [str(path) for path in paths]})
