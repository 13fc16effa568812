"""`lingualign export`: an edit as a full checkpoint or as a LoRA adapter."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lingualign.cli import options as o


class Format(StrEnum):
    """What is written."""

    checkpoint = "checkpoint"
    lora = "lora"


def export(
    model: o.Model,
    edit: Annotated[Path, typer.Argument(help="The edit's file.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The new folder.", show_default=False)],
    format: Annotated[
        Format, typer.Option(help="A full edited checkpoint, or a PEFT LoRA adapter.")
    ] = Format.checkpoint,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Write the edited model as a checkpoint folder, or the edit as a LoRA adapter."""
    from lingualign.cli.screen import open_screen
    from lingualign.errors import UserError

    with open_screen(as_json=json, quiet=quiet) as screen:
        from lingualign.edit import Edit
        from lingualign.export.checkpoint import export_checkpoint, source_folder
        from lingualign.export.lora import export_lora
        from lingualign.treatments import load_treatment

        treatment = load_treatment(edit)
        if not isinstance(treatment, Edit):
            raise UserError(
                f"{edit} is a steering: it acts on activations and cannot be baked into weights; "
                f"measure it with `lingualign verify {model} {edit}`"
            )
        if format is Format.checkpoint:
            path = export_checkpoint(source_folder(model), treatment, out)
        else:
            path = export_lora(treatment, out, model)
        screen.result(f"Wrote     {path} ({format})")
        screen.document({"path": str(path), "format": str(format)})
