"""`lingualign verify`: audits a model without and with an edit or a steering; gates on the difference for CI."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lingualign.cli import options as o


def verify(
    model: o.Model,
    edit: Annotated[Path, typer.Argument(help="The file of an edit or a steering.", show_default=False)],
    require: o.Require = None,
    languages: o.Languages = None,
    prompts: o.Prompts = None,
    config: o.Config = None,
    out: o.Out = None,
    show_text: o.ShowText = False,
    seeds_per_kind: o.SeedsPerKind = None,
    max_new_tokens: o.MaxNewTokens = None,
    batch_size: o.BatchSize = None,
    judge: o.JudgeOption = None,
    second_judge: o.SecondJudge = None,
    judge_errors: o.JudgeErrors = None,
    tasks: o.Tasks = None,
    task_data: o.TaskData = None,
    task_limit: o.TaskLimit = None,
    precision: o.PrecisionOption = None,
    device: o.Device = None,
    seed: o.Seed = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Prove what an edit or a steering changes: two audits of the same prompts, paired statistics, gates for CI."""
    from lingualign.cli.flow import show_plan
    from lingualign.cli.screen import open_screen
    from lingualign.cli.show import parse_gates, show_outcome

    settings = o.make_config(
        config,
        model=model,
        languages=languages,
        prompts=prompts,
        seeds_per_kind=seeds_per_kind,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        judge=judge,
        second_judge=second_judge,
        judge_errors=judge_errors,
        tasks=tasks,
        task_data=task_data,
        task_limit=task_limit,
        precision=precision,
        device=device,
        seed=seed,
    )
    gates = parse_gates(require)
    with open_screen(as_json=json, quiet=quiet) as screen:
        from lingualign.pipeline import verify_treatment
        from lingualign.report.tables import comparison_table
        from lingualign.treatments import load_treatment

        treatment = load_treatment(edit)
        folder = out or o.default_out(settings, treatment.fingerprint)
        show_plan(screen, settings, folder, "verify")
        result = verify_treatment(settings, treatment, folder, screen.progress, gates=gates, show_text=show_text)
        assert result.comparison is not None
        screen.say("", comparison_table(result.comparison))
        show_outcome(screen, result)
