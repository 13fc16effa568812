"""What `demo`, `run` and `plan` do: the plan, then the pipeline's steps with what a person sees between them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lingualign.cli.screen import Screen, open_screen
from lingualign.cli.show import (
    edit_parts,
    model_line,
    parse_gates,
    plan_document,
    plan_lines,
    served_lines,
    show_outcome,
)

if TYPE_CHECKING:
    from lingualign.config import RunConfig
    from lingualign.plan import Job


def show_plan(screen: Screen, config: RunConfig, out: Path, job: Job, *, as_document: bool = False) -> None:
    """Shows what the job needs, and what about its prompts a person should know.

    Raises:
        NotEnoughMemory: the machine does not have it.
        UserError: model or prompts cannot be read.
    """
    from lingualign.plan import make_plan
    from lingualign.prompts import resolve_prompts

    prompts = resolve_prompts(config)
    plan = make_plan(config, prompts, out, job)
    screen.say(*plan_lines(plan), f"Output    {out}", *(f"Warning   {line}" for line in prompts.warnings))
    if as_document:
        screen.document(plan_document(plan))
    plan.check()


def show_served(screen: Screen, config: RunConfig, out: Path) -> None:
    """Shows what an audit of a model behind a server asks.

    Raises:
        UserError: the prompts cannot be read.
    """
    from lingualign.prompts import resolve_prompts

    prompts = resolve_prompts(config)
    warnings = (f"Warning   {line}" for line in prompts.warnings)
    screen.say(*served_lines(config, prompts.report), f"Output    {out}", *warnings)


def whole_job(
    config: RunConfig,
    out: Path,
    *,
    require: list[str] | None = None,
    controls: bool = False,
    show_text: bool = False,
    dry_run: bool = False,
    as_json: bool = False,
    quiet: bool = False,
) -> None:
    """Plan, audit, edit, audit, controls if asked for, verdict, report.

    Raises:
        UserError: something the user can put right.
    """
    gates = parse_gates(require)
    with open_screen(as_json=as_json, quiet=quiet) as screen:
        show_plan(screen, config, out, "run", as_document=dry_run)
        if dry_run:
            return
        from lingualign.evaluate.corrected import corrected_cells
        from lingualign.evaluate.metrics import cells
        from lingualign.pipeline import controls_left_out, open_run
        from lingualign.report.tables import arms_table, audit_table, comparison_table

        with open_run(config, out, screen.progress) as run:
            reference = run.prompts.reference
            screen.say(model_line(run.loaded))
            before = run.before()
            measured = cells(before)
            screen.say("", audit_table(measured, corrected_cells(measured, run.card.errors), reference=reference), "")
            edit = run.fit()
            screen.say(*edit_parts(edit, run.edit_path))
            after = run.after(edit)
            if controls and (left_out := controls_left_out(edit)):
                screen.say(f"Controls  {left_out}")
            arms = run.controls(edit) if controls else []
            result = run.finish(before, after, edit, arms=arms, gates=gates, show_text=show_text)
            assert result.comparison is not None
            screen.say("", comparison_table(result.comparison))
            if arms:
                screen.say("", arms_table(before, run.all_arms(after, arms), reference=reference))
            show_outcome(screen, result, run.edit_path)
