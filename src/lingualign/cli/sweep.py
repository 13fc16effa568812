"""`lingualign sweep`: hundreds of settings from one pass over the anchors, a few of them audited."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lingualign.cli import options as o

if TYPE_CHECKING:
    from rich.table import Table

    from lingualign.methods.sweep import Score, Sweep

#: Rows of the front that are shown; all are in sweep.json.
_SHOWN = 16


def sweep(
    model: o.OptionalModel = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="Values of a setting, such as keep_weight=3,10,30; repeatable.", metavar="NAME=A,B"),
    ] = None,
    grid: Annotated[Path | None, typer.Option(help="TOML file of values, such as keep_weight = [3, 10, 30].")] = None,
    evaluate: Annotated[
        int, typer.Option(min=0, metavar="N", help="Fit N settings along the front and audit them on the select split.")
    ] = 0,
    languages: o.Languages = None,
    anchors: o.Anchors = None,
    keep: o.Keep = None,
    prompts: o.Prompts = None,
    config: o.Config = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder; by default one that the same command finds again.", show_default=False)
    ] = None,
    max_new_tokens: o.MaxNewTokens = None,
    batch_size: o.BatchSize = None,
    judge: o.JudgeOption = None,
    precision: o.PrecisionOption = None,
    device: o.Device = None,
    seed: o.Seed = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Score many settings of the edit on held-out anchors, from features that are collected once.

    What can be swept: keep_weight, look_alike_weight, reference_weight, ridge, null_space, rank, strength, and layers
    as windows of blocks, such as layers=6-11,9-14.
    """
    from lingualign.cli.flow import show_plan
    from lingualign.cli.screen import open_screen
    from lingualign.cli.show import model_line
    from lingualign.grid import collecting, read_grid, settings_of

    base = o.make_config(
        config,
        model=model,
        languages=languages,
        anchors=anchors,
        keep=keep,
        prompts=prompts,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        judge=judge,
        precision=precision,
        device=device,
        seed=seed,
    )
    settings = settings_of(base, read_grid(grid, assignments or []))
    folder = out or o.default_out(base, "sweep")
    features = folder / "features"
    with open_screen(as_json=json, quiet=quiet) as screen:
        from lingualign.methods.sweep import pareto_front
        from lingualign.models.load import load_model
        from lingualign.prompts import resolve_prompts
        from lingualign.report.tables import arms_table
        from lingualign.runs import locked
        from lingualign.sweep import audit_settings, require_select, score_settings, spread, write_settings, write_sweep

        asked = resolve_prompts(base)
        if evaluate:
            require_select(asked)
        show_plan(screen, collecting(base, settings), folder, "edit")
        loaded = load_model(base.model, precision=base.precision, device=base.device)
        screen.say(model_line(loaded))
        with locked(folder):
            found = score_settings(loaded, asked, base, settings, features=features, progress=screen.progress)
            front = pareto_front(found.scores)
            document = write_sweep(loaded, base, found, folder)
            screen.say("", front_table(found, spread(front, _SHOWN), len(front)), _seconds_line(found))
            chosen = spread(front, evaluate) if evaluate else []
            files = write_settings(base, chosen, folder)
            if chosen:
                before, trials = audit_settings(
                    loaded, asked, base, chosen, features=features, progress=screen.progress
                )
                document = write_sweep(loaded, base, found, folder, before, trials)
                arms = [trial.arm for trial in trials]
                screen.say("", arms_table(before, arms, reference=asked.reference), "On the select split.")
        screen.result(*(f"Setting   {path}" for path in files), f"Sweep     {folder / 'sweep.json'}")
        screen.document(document)


def front_table(found: Sweep, shown: Sequence[Score], on_front: int) -> Table:
    """One row a setting, by rising leakage; settings that are the same in all rows are left out."""
    from rich import box
    from rich.table import Table

    values = {
        "γ": [f"{score.setting.keep_weight:g}" for score in shown],
        "look-\nalike": [f"{score.setting.look_alike_weight:g}" for score in shown],
        "refer-\nence": [f"{score.setting.reference_weight:g}" for score in shown],
        "λ": [f"{score.setting.ridge:g}" for score in shown],
        "null\nspace": [_or_none(score.setting.null_space) for score in shown],
        "rank": [_or_none(score.setting.rank) for score in shown],
        "strength": [f"{score.setting.strength:g}" for score in shown],
        "blocks": [_blocks(score.setting.layers or ()) for score in shown],
    }
    values = {name: column for name, column in values.items() if len(set(column)) > 1}
    figures = {
        "explained": [f"{score.explained:.3f}" for score in shown],
        "\nworst": [f"{score.worst_explained:.3f}" for score in shown],
        "leakage": [f"{score.leakage:.2g}" for score in shown],
        " \nworst": [f"{score.worst_leakage:.2g}" for score in shown],
        "harmful,\nreference": [f"{score.reference_change:.2g}" for score in shown],
    }
    title = f"The front: {on_front} of {len(found.scores)} settings" + (
        f", {len(shown)} of them shown" if len(shown) < on_front else ""
    )
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", caption_justify="left", pad_edge=False)
    for name in (*values, *figures):
        table.add_column(name.strip(" "), justify="right", no_wrap=True)
    for row in zip(*values.values(), *figures.values(), strict=True):
        table.add_row(*row)
    table.caption = (
        "On prompts that were not solved from. Explained: share of the gap to the target that is closed, mean and "
        "worst language. Leakage: change of the outputs for harmless and look-alike prompts, as a share of their "
        "second moment, mean and worst; last column: the same for the reference language's harmful prompts."
    )
    return table


def _seconds_line(found: Sweep) -> str:
    from lingualign.cli.progress import duration

    each = found.seconds["re-solve"] / len(found.scores)
    return (
        f"Collected {len(found.layers)} blocks in {duration(found.seconds['collect'])}; {len(found.scores)} settings "
        f"from {found.solves} solves of each matrix in {duration(found.seconds['re-solve'])}, {each:.2g} s each."
    )


def _or_none(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"


def _blocks(layers: Sequence[int]) -> str:
    whole = list(layers) == list(range(layers[0], layers[-1] + 1))
    return f"{layers[0]}-{layers[-1]}" if whole else ",".join(map(str, layers))
