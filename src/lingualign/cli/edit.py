"""`lingualign edit`: fits the edit and saves it, without generating any reply to be judged. Under `torchrun` the ranks
share the reading of features."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lingualign.cli import options as o


def edit(
    model: o.OptionalModel = None,
    out: Annotated[Path, typer.Option(help="The edit's file.")] = Path("edit.safetensors"),
    languages: o.Languages = None,
    anchors: o.Anchors = None,
    keep: o.Keep = None,
    prompts: o.Prompts = None,
    config: o.Config = None,
    batch_size: o.BatchSize = None,
    precision: o.PrecisionOption = None,
    device: o.Device = None,
    seed: o.Seed = None,
    streamed: Annotated[
        bool, typer.Option("--streamed", help="Keep weights on disk and one block's at a time in memory.")
    ] = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Fit the edit on the fit split and save it; a killed fit resumes from the features kept beside the file."""
    from lingualign.cli.flow import show_plan
    from lingualign.cli.screen import open_screen
    from lingualign.cli.show import edit_parts, model_line
    from lingualign.errors import ConfigError

    settings = o.make_config(
        config,
        model=model,
        languages=languages,
        anchors=anchors,
        keep=keep,
        prompts=prompts,
        batch_size=batch_size,
        precision=precision,
        device=device,
        seed=seed,
    )
    if out.suffix != ".safetensors":
        raise ConfigError(f"an edit is saved as .safetensors, not {out.name!r}; give --out edit.safetensors")
    if streamed and settings.edit.layers == "select":
        raise ConfigError(
            'layers = "select" audits many edits, for which a streamed model is too slow; give layers = "auto" or some'
        )
    from lingualign.features.ranks import joined, own_device

    with joined() as (rank, _), open_screen(as_json=json and rank == 0, quiet=quiet or rank > 0) as screen:
        from contextlib import nullcontext

        from lingualign.config import dump_config
        from lingualign.export.checkpoint import source_folder
        from lingualign.models.load import load_model
        from lingualign.models.stages import load_streamed
        from lingualign.pipeline import fit_edit
        from lingualign.prompts import resolve_prompts
        from lingualign.runs import locked, write_text

        # Of several ranks the first speaks and writes; all fit.
        if rank == 0:
            show_plan(screen, settings, out, "streamed edit" if streamed else "edit")
        where: dict[str, Any] = {"precision": settings.precision, "device": settings.device or own_device()}
        loaded = (
            load_streamed(source_folder(settings.model), name=settings.model, **where)
            if streamed
            else load_model(settings.model, **where)
        )
        screen.say(model_line(loaded))
        features = out.with_suffix(".features")
        with locked(features) if rank == 0 else nullcontext():
            fitted = fit_edit(
                loaded,
                resolve_prompts(settings),
                settings.edit,
                features=features,
                audit=settings.audit,
                progress=screen.progress,
            )
            if rank > 0:
                return
            fitted.save(out)
            write_text(out.with_suffix(".toml"), dump_config(settings))
        screen.say(*edit_parts(fitted, out))
        screen.result(f"Edit      {out}")
        screen.document({"edit": str(out), "manifest": dict(fitted.manifest)})
