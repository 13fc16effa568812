"""`lingualign audit`: refusal by language of a model as it is."""

from __future__ import annotations

from lingualign.cli import options as o


def audit(
    model: o.OptionalModel = None,
    languages: o.Languages = None,
    prompts: o.Prompts = None,
    config: o.Config = None,
    out: o.Out = None,
    show_text: o.ShowText = False,
    seeds_per_kind: o.SeedsPerKind = None,
    max_new_tokens: o.MaxNewTokens = None,
    batch_size: o.BatchSize = None,
    endpoint: o.Endpoint = None,
    concurrency: o.Concurrency = None,
    timeout: o.Timeout = None,
    key_variable: o.KeyVariable = None,
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
    """Measure refusal, over-refusal and incoherence of a model in each language, here or behind a server."""
    from lingualign.cli.flow import show_plan, show_served
    from lingualign.cli.screen import open_screen
    from lingualign.cli.show import model_line, show_outcome

    settings = o.make_config(
        config,
        model=model,
        languages=languages,
        prompts=prompts,
        seeds_per_kind=seeds_per_kind,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        endpoint=endpoint,
        concurrency=concurrency,
        timeout=timeout,
        key_variable=key_variable,
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
    folder = out or o.default_out(settings)
    with open_screen(as_json=json, quiet=quiet) as screen:
        served = settings.endpoint.url is not None
        if served:
            show_served(screen, settings, folder)
        else:
            show_plan(screen, settings, folder, "audit")
        from lingualign.evaluate.corrected import corrected_cells
        from lingualign.evaluate.metrics import cells
        from lingualign.pipeline import open_audit
        from lingualign.report.tables import audit_table

        with open_audit(settings, folder, screen.progress) as run:
            if not served:
                screen.say(model_line(run.audited))
            before = run.before()
            result = run.finish(before, show_text=show_text)
            measured = cells(before)
            corrected = corrected_cells(measured, run.card.errors)
            screen.result("", audit_table(measured, corrected, reference=run.prompts.reference))
            show_outcome(screen, result)
