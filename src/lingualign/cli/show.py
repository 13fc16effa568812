"""The parts that several commands show: plan, model, edit, verdict, gates, paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lingualign.cli.progress import duration
from lingualign.errors import GateFailed

if TYPE_CHECKING:
    from rich.table import Table

    from lingualign.audited import AuditedModel
    from lingualign.cli.screen import Screen
    from lingualign.config import RunConfig
    from lingualign.data.schema import PromptSet
    from lingualign.edit import Edit
    from lingualign.evaluate.gates import Gate
    from lingualign.models.load import LoadedModel
    from lingualign.plan import Plan
    from lingualign.results import Result

GIBIBYTE = 1024**3
#: Share of the processors that others may take before a measured time is doubtful.
_DISTURBED = 0.2


def parse_gates(texts: Sequence[str] | None) -> list[Gate]:
    """The gates of --require.

    Raises:
        ConfigError: one cannot be read.
    """
    from lingualign.evaluate.gates import parse_gate

    return [parse_gate(text) for text in texts or ()]


def plan_lines(plan: Plan) -> list[str]:
    """Hardware, model, matched modules, and what the run needs."""
    dense = [mlp for mlp in plan.matched if not mlp.routed]
    mixtures = plan.blocks - len(dense)
    first = (dense or plan.matched)[0]
    matched = [f"{len(dense)} MLPs of {'/'.join([*first.inner, 'down'])}"] if dense else []
    matched += [f"{mixtures} mixtures of experts"] if mixtures else []
    lines = [
        f"Hardware  {plan.hardware}",
        f"Model     {plan.model}: {plan.architecture}, {_count(plan.parameters)} parameters, {plan.dtype}",
        f"Matched   {' and '.join(matched)} in {plan.blocks} blocks, "
        f"hidden {first.hidden_size}, inner {first.inner_size}",
        *(f"{'Covers' if index == 0 else '':<10}{line}" for index, line in enumerate(plan.coverage.lines())),
    ]
    if plan.report_prompts:
        lines.append(
            f"Audit     {plan.report_prompts} prompts in {len(plan.languages)} languages ({', '.join(plan.languages)})"
            f", {plan.report_tokens:,} tokens read, at most {plan.reply_tokens:,} written"
        )
    if plan.detectable is not None:
        lines.append(f"Detects   {_detects(plan)}")
    if plan.edited_blocks:
        lines.append(
            f"Edit      {plan.edited_blocks} blocks from {plan.anchor_pairs} anchor pairs "
            f"and {plan.keep_prompts} keep prompts, {plan.fit_tokens:,} tokens"
        )
    gpu = (
        f", {_size(plan.device_bytes)} of {_size(plan.free_device_bytes)} free on the GPU" if plan.device_bytes else ""
    )
    busy = "; measured beside other work, so it may be less" if plan.disturbed > _DISTURBED else ""
    lines += [
        f"Time      about {duration(sum(plan.seconds.values()))}, without loading{busy}",
        f"Memory    about {_size(plan.memory_bytes)}, of which {_size(plan.process_bytes)} are taken; "
        f"{_size(plan.free_memory_bytes)} free{gpu}; "
        f"disk {_size(plan.disk_bytes)} of {_size(plan.free_disk_bytes)} free",
        *_stage_lines(plan),
    ]
    return lines


def _stage_lines(plan: Plan) -> list[str]:
    """Time, memory and disk of each stage, in columns."""
    on_gpu = plan.device_bytes > 0
    rows = [("", "time", "memory", *(("GPU",) if on_gpu else ()), "disk")]
    for stage in plan.stages:
        sizes = [stage.memory_bytes, *([stage.device_bytes] if on_gpu else ()), stage.disk_bytes]
        spent = duration(stage.seconds) if stage.seconds else ""
        rows.append((stage.name, spent, *(_size(size) if size else "" for size in sizes)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    shown = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    return [f"{'Stages' if index == 0 else '':<10}{line}".rstrip() for index, line in enumerate(shown)]


def _size(size: float) -> str:
    return f"{size / GIBIBYTE:.2f} GiB" if size >= GIBIBYTE / 100 else f"{size / 2**20:.2f} MiB"


def _detects(plan: Plan) -> str:
    alone, among = plan.detectable or (None, None)
    prompts = f"{plan.harmful_prompts} harmful prompts, power 0.8, half of the pairs discordant"
    if alone is None:
        return f"no change in a single language: too few prompts ({prompts}); raise --seeds-per-kind"
    after = "none" if among is None else f"{among:.2f}"
    return f"a change of refusal of {alone:.2f} in one language, {after} after Holm over the languages ({prompts})"


def _count(number: int) -> str:
    for size, unit in ((10**9, " B"), (10**6, " M")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:,}"


def plan_document(plan: Plan) -> dict[str, Any]:
    """The plan for machines."""
    from dataclasses import asdict

    totals = {name: getattr(plan, name) for name in ("seconds", "memory_bytes", "device_bytes", "disk_bytes")}
    return {**asdict(plan), **totals}


def served_lines(config: RunConfig, prompts: PromptSet) -> list[str]:
    """What an audit of a model behind a server asks, and what it cannot tell."""
    asked = f"{len(prompts)} prompts in {len(prompts.languages)} languages ({', '.join(prompts.languages)})"
    return [
        f"Model     {config.model} at {config.endpoint.url}, at most {config.endpoint.concurrency} requests at once",
        f"Audit     {asked}, at most {config.audit.max_new_tokens * len(prompts):,} tokens written",
        "Left out  perplexity, divergence, n-grams of replies and prompt lengths, which need weights or tokenizer",
    ]


def model_line(loaded: LoadedModel | AuditedModel) -> str:
    """The loaded model in one line."""
    return f"Loaded    {loaded.name}, fingerprint {loaded.fingerprint}"


def edit_parts(edit: Edit, path: Path) -> list[str | Table]:
    """The edit's own diagnostics: one row a matrix."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    manifest = edit.manifest
    table = Table(box=box.SIMPLE_HEAD, title="The edit", title_justify="left", pad_edge=False)
    for name, justify in (("matrix", "left"), ("rank", "right"), ("rows x columns", "right")):
        table.add_column(name, justify="left" if justify == "left" else "right", no_wrap=True)
    table.add_column("change / weight", justify="right")
    table.add_column("explained", justify="right")
    known = {row["tensor"]: row for row in manifest.get("diagnostics", ())}
    for name, delta in edit.deltas.items():
        # What is known of a matrix depends on the method: a trained edit solves nothing, so it explains nothing.
        row = known.get(name, {})
        table.add_row(
            Text(name),
            str(delta.rank),
            f"{len(delta.out_factor)} x {len(delta.in_factor)}",
            f"{row['relative_change']:.4f}" if "relative_change" in row else "",
            f"{row['explained']:.3f}" if "explained" in row else "",
        )
    seconds = manifest.get("seconds", {})
    spent = ", ".join(f"{name} {duration(value)}" for name, value in seconds.items())
    size = path.stat().st_size / 1e6
    anchors = ", ".join(manifest.get("anchor_languages", ()))
    return [
        table,
        f"Fitted on {manifest.get('anchor_pairs', '?')} pairs in {anchors}; {spent}. {path}, {size:.1f} MB",
    ]


def measure_lines(figures: Mapping[str, Any]) -> list[str]:
    """What the headline rests on, one line each: replies the judge could not be read on, its error, a second judge."""
    from lingualign.report.panels.judges import corrected_summary, second_judge_summary, unparsed_summary

    named = {
        # A verdict says it itself.
        "Unparsed": "" if figures["verdict"] else unparsed_summary(figures),
        "Corrected": corrected_summary(figures),
        "Second": second_judge_summary(figures),
    }
    return [f"{name:<10}{summary}" for name, summary in named.items() if summary]


def show_outcome(screen: Screen, result: Result, edit_path: Path | None = None) -> None:
    """Verdict, gates and paths, or the JSON document; ends the command where a gate fails.

    Raises:
        GateFailed: one does not hold.
    """
    if result.figures["verdict"]:
        screen.result("", result.figures["verdict"])
    screen.result(*measure_lines(result.figures))
    if result.gates:
        screen.result("", *(f"Gate      {gate}" for gate in result.gates))
    screen.result("", f"Report    {result.report_path}")
    if edit_path is not None:
        screen.result(f"Edit      {edit_path}")
    screen.document(result.figures)
    failed = [str(gate.gate) for gate in result.gates if not gate.passed]
    if failed:
        raise GateFailed(f"{len(failed)} of {len(result.gates)} gates do not hold: {', '.join(failed)}")
