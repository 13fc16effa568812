"""`lingualign run`: audit, edit, audit again, verdict, report."""

from __future__ import annotations

from lingualign.cli import options as o


def run(
    model: o.OptionalModel = None,
    languages: o.Languages = None,
    anchors: o.Anchors = None,
    keep: o.Keep = None,
    prompts: o.Prompts = None,
    config: o.Config = None,
    out: o.Out = None,
    require: o.Require = None,
    controls: o.Controls = False,
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
    dry_run: o.DryRun = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Audit a model, edit it, audit it again, and report what changed."""
    from lingualign.cli.flow import whole_job

    settings = o.make_config(
        config,
        model=model,
        languages=languages,
        anchors=anchors,
        keep=keep,
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
    whole_job(
        settings,
        out or o.default_out(settings),
        require=require,
        controls=controls,
        show_text=show_text,
        dry_run=dry_run,
        as_json=json,
        quiet=quiet,
    )
