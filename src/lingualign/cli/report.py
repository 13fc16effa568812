"""`lingualign report`: renders the report of a finished run again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lingualign.cli import options as o


def report(
    folder: Annotated[Path, typer.Argument(help="A run folder.", show_default=False)],
    show_text: o.ShowText = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Render the report of a finished run from its files; no model is loaded."""
    from lingualign.cli.screen import Screen

    screen = Screen(as_json=json, quiet=quiet)
    from lingualign.results import render_folder

    path = render_folder(folder, show_text=show_text)
    screen.result(f"Report    {path}")
    screen.document({"report": str(path)})
