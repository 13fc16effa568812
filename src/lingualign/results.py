"""The figures of a run as one JSON document, and the report made from it and the stored replies."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

from lingualign.audited import AuditedModel
from lingualign.config import RunConfig, load_config
from lingualign.errors import UserError
from lingualign.evaluate.gates import Gate, GateResult, check_gates
from lingualign.evaluate.judges.card import JudgeCard
from lingualign.evaluate.metrics import cells
from lingualign.evaluate.schema import Reply
from lingualign.evaluate.store import ReplyStore
from lingualign.evaluate.verdict import Comparison, compare, verdict_sentence
from lingualign.hardware import versions
from lingualign.measures import (
    SecondOpinion,
    UtilityFigures,
    agreement_figures,
    behaviour,
    corrected_figures,
    prompt_controls,
)
from lingualign.prompts import RunPrompts, prompts_hash, resolve_prompts
from lingualign.report.arms import compare_arm
from lingualign.report.data import Arm, ReportData
from lingualign.report.html import write_report
from lingualign.report.panels import panels
from lingualign.result_schema import RESULT_SCHEMA
from lingualign.runs import RUN_FILE, RunFolder, write_json
from lingualign.treatments import Treatment

RESULT_FILE = "result.json"
REPORT_FILE = "report.html"


@dataclass(frozen=True)
class Result:
    """What a run found.

    Attributes:
        figures: everything in `result.json`.
        comparison: before against after, or None for an audit alone.
        gates: gates that were checked.
        result_path, report_path: the files.
    """

    figures: Mapping[str, Any]
    comparison: Comparison | None
    gates: tuple[GateResult, ...]
    result_path: Path
    report_path: Path

    @property
    def passed(self) -> bool:
        """Whether every gate holds."""
        return all(gate.passed for gate in self.gates)


def write_result(
    folder: RunFolder,
    config: RunConfig,
    prompts: RunPrompts,
    model: AuditedModel,
    judge: JudgeCard,
    before: Sequence[Reply],
    after: Sequence[Reply] | None,
    treatment: Treatment | None,
    *,
    arms: Sequence[Arm],
    gates: Sequence[Gate],
    second: SecondOpinion | None,
    utility: UtilityFigures,
    show_text: bool,
) -> Result:
    """Computes the figures of a run, writes `result.json` and renders `report.html` from the folder."""
    reference = prompts.reference
    fitted = (_fitted_languages(treatment.manifest) or config.prompts.anchor_languages or ()) if treatment else ()
    anchors = tuple(language for language in dict.fromkeys(fitted) if language != reference)
    comparison = None
    if after is not None:
        comparison = compare(before, after, reference=reference, anchor_languages=anchors)
    checked = tuple(check_gates(gates, comparison)) if comparison and gates else ()
    figures: dict[str, Any] = {
        "schema": RESULT_SCHEMA,
        "model": {
            "name": model.name,
            "fingerprint": model.fingerprint,
            "parameters": model.parameters,
            "dtype": model.dtype,
        },
        "hardware": model.hardware,
        "reference": reference,
        "anchor_languages": anchors,
        "languages": prompts.report.languages,
        "split": "report",
        "prompts": {"fit": prompts_hash(prompts.fit), "report": prompts_hash(prompts.report)},
        "judge": {"name": judge.name, "languages": judge.as_table()},
        "cells": cells(before),
        "corrected": corrected_figures(before, after, judge.errors, reference),
        "second_judge": agreement_figures(before, after, second) if second else None,
        "behaviour": {
            "before": behaviour(before, reference),
            "after": behaviour(after, reference) if after is not None else None,
        },
        "prompt_controls": prompt_controls(before, prompts.report, model.tokenizer, reference),
        "utility": utility,
        "warnings": prompts.warnings,
        "verdict": verdict_sentence(comparison) if comparison else None,
        "comparison": comparison,
        "gates": checked,
        "controls": [
            {
                "name": arm.name,
                "description": arm.description,
                "comparison": compare_arm(before, arm, reference=reference, anchor_languages=anchors),
            }
            for arm in arms
        ],
        "edit": dict(treatment.manifest) if treatment else None,
        "settings": config.model_dump(mode="json"),
        "timings": dict(folder.timings),
        "versions": versions(),
    }
    plain = _plain(figures)
    path = write_json(folder.path / RESULT_FILE, plain)
    report = render_folder(folder.path, show_text=show_text, prompts=prompts)
    return Result(plain, comparison, checked, path, report)


def render_folder(folder: Path, *, show_text: bool = False, prompts: RunPrompts | None = None) -> Path:
    """Renders the report of a finished run from its files.

    Args:
        folder: the run folder.
        show_text: whether prompts and replies are shown; they are harmful or hostile text.
        prompts: the run's prompts; read again from their sources where they are needed and not given.

    Raises:
        UserError: the folder holds no finished run, or the prompts are not those of the run any more.
    """
    figures = read_result(folder)
    texts = prompt_texts(folder, figures, "render", prompts) if show_text else {}

    def replies(file: str) -> tuple[Reply, ...]:
        # The store is in the order of generation.
        order = {language: place for place, language in enumerate(figures["languages"])}
        return tuple(sorted(ReplyStore(folder / file).load(), key=lambda reply: order[reply.language]))

    data = ReportData(
        title=f"Refusals by language: {figures['model']['name']}",
        model_name=figures["model"]["name"],
        model_fingerprint=figures["model"]["fingerprint"],
        hardware=figures["hardware"],
        before=replies("before.jsonl"),
        after=replies("after.jsonl") if figures["comparison"] else None,
        reference=figures["reference"],
        anchor_languages=tuple(figures["anchor_languages"]),
        edit_manifest=figures["edit"],
        controls=tuple(
            Arm(arm["name"], arm["description"], replies(f"controls/{arm['name']}.jsonl"))
            for arm in figures["controls"]
        ),
        settings=figures["settings"],
        versions=figures["versions"],
        timings=figures["timings"],
        judge=figures["judge"],
        split=figures["split"],
        prompts=texts,
        panels=panels(figures),
        gates=tuple(
            GateResult(Gate(**result["gate"]), result["value"], result["passed"]) for result in figures["gates"]
        ),
    )
    write_report(data, folder / REPORT_FILE, show_text=show_text)
    return folder / REPORT_FILE


def prompt_texts(
    folder: Path, figures: Mapping[str, Any], action: str, prompts: RunPrompts | None = None
) -> dict[tuple[str, str, str], str]:
    """The prompts of a run by `Reply.key`.

    Args:
        folder: the run folder.
        figures: the content of its `result.json`.
        action: what they are wanted for, as the error names it: render, convert.
        prompts: the run's prompts; read again from their sources when None.

    Raises:
        UserError: they are not those of the run any more.
    """
    prompts = prompts or resolve_prompts(load_config(folder / "config.toml"))
    if prompts_hash(prompts.report) != figures["prompts"]["report"]:
        raise UserError(f"the prompts of {folder} have changed since the run; {action} it without --show-text")
    return {prompt.key: prompt.text for prompt in prompts.report}


def read_result(folder: Path) -> dict[str, Any]:
    """The content of a run folder's `result.json`.

    Raises:
        UserError: there is none, or it is damaged.
    """
    path = folder / RESULT_FILE
    if not path.is_file():
        state = "an unfinished run; give its command again" if (folder / RUN_FILE).is_file() else "no run folder"
        raise UserError(f"{folder} is {state}")
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(f"{path} is damaged; give the run's command again, which makes it anew") from None
    return content


def _fitted_languages(manifest: Mapping[str, Any]) -> list[str]:
    """Languages that a treatment was fitted on, as its manifest says; a method without pairs names no anchors."""
    if "sum_of" in manifest:
        return [language for part in manifest["sum_of"] for language in _fitted_languages(part)]
    return list(manifest.get("anchor_languages") or manifest.get("languages") or ())


def _plain(value: Any) -> Any:
    """JSON's types only; a number that is not finite becomes null."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
