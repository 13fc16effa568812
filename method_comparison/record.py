"""The result of one run as a JSON document: figures only, no text of prompts or replies."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from lingualign.data.schema import Prompt
from lingualign.errors import UserError
from lingualign.evaluate.metrics import cells
from lingualign.evaluate.schema import Reply
from lingualign.evaluate.verdict import Comparison, Effect, verdict_sentence
from lingualign.measures import CorrectedFigures
from lingualign.runs import write_text
from method_comparison.outcomes import encode, encode_scores, seeds_by_kind
from method_comparison.registry import FOLDER

SCHEMA = 2
RESULTS = FOLDER / "results"
#: What of a change is kept for each language.
_KEPT = ("language", "n", "before", "after", "difference", "interval", "p_adjusted")
#: The code that results depend on, as paths of the repository; files of methods and models are in the settings.
_CODE = ("src", "method_comparison/*.py", ":!method_comparison/page.py", ":!method_comparison/plots.py")


def result_path(results: Path, split: str, model: str, method: str, seed: int) -> Path:
    """Where a run's figures are."""
    return results / split / model / method / f"seed-{seed}.json"


def code_version(root: Path = FOLDER.parent) -> dict[str, Any]:
    """The last commit that changed the code, and whether there are changes besides; None and None outside git."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True).stdout

    try:
        commit = git("log", "-1", "--format=%H", "--", *_CODE).strip()
        return {"commit": commit or None, "changed": bool(git("status", "--porcelain", "--", *_CODE).strip())}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "changed": None}


def outcome_figures(before: Sequence[Reply], after: Sequence[Reply]) -> dict[str, Any]:
    """The outcome of every prompt on both sides, see `outcomes`."""
    seeds = seeds_by_kind(before)
    return {"seeds": seeds, "before": encode(before, seeds), "after": encode(after, seeds)}


def score_figures(
    opening: str,
    prompts: Sequence[Prompt],
    replies: Sequence[Reply],
    before: Sequence[float],
    after: Sequence[float],
) -> dict[str, Any]:
    """The refusal score of every prompt on both sides, seeds in the order of the outcomes; see `separation`."""
    seeds = seeds_by_kind(replies)
    sides = {"before": encode_scores(prompts, before, seeds), "after": encode_scores(prompts, after, seeds)}
    return {"opening": opening, **sides}


def comparison_figures(comparison: Comparison) -> dict[str, Any]:
    """Verdict, worst language, counts, and each effect by language; p values are Holm's."""

    def effect(effect: Effect) -> dict[str, Any]:
        rows = [{name: getattr(change, name) for name in _KEPT} for change in effect.changes]
        return {"mean": effect.mean, "anchors": effect.anchors, "unseen": effect.unseen, "languages": rows}

    return {
        "verdict": verdict_sentence(comparison),
        "worst_before": comparison.worst_before,
        "worst_after": comparison.worst_after,
        "harmful_refusal": effect(comparison.harmful_refusal),
        "harmless_refusal": effect(comparison.harmless_refusal),
        "look_alike_refusal": effect(comparison.look_alike_refusal),
        "incoherence": effect(comparison.incoherence),
    }


def corrected_summary(figures: CorrectedFigures) -> dict[str, Any]:
    """What stays of the figures that are corrected for the judge's error."""
    return {"mean_before": figures.mean, "means": figures.means, "changes": figures.changes}


def counts(replies: Sequence[Reply]) -> list[Any]:
    """Outcome counts by language and kind."""
    return list(cells(replies))


def write_record(path: Path, record: Mapping[str, Any]) -> Path:
    """Writes a result with one line for each of its parts: short, and readable as a difference in git."""
    parts = _rounded(to_jsonable_python(record))
    lines = (f"{json.dumps(name)}: {json.dumps(part)}" for name, part in parts.items())
    return write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")


def _rounded(value: Any) -> Any:
    """Floats of six significant digits; what is not finite becomes null."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _rounded(item) for name, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


def read_record(path: Path) -> dict[str, Any]:
    """Reads a result.

    Raises:
        UserError: it is damaged, or of another version of the format.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(f"{path} is damaged; delete it and run its method again") from None
    if content.get("schema") != SCHEMA:
        raise UserError(
            f"{path} has format {content.get('schema')}, not {SCHEMA}; run its method again with --overwrite"
        )
    return content


def read_records(results: Path, split: str) -> list[dict[str, Any]]:
    """All results of a split, by model, method and seed.

    Raises:
        UserError: one is damaged, or one name stands for two models.
    """
    records = [read_record(path) for path in sorted((results / split).glob("*/*/seed-*.json"))]
    known: dict[str, Any] = {}
    for record in records:
        name, identity = record["model"]["name"], (record["model"]["fingerprint"], record["prompts"]["audited"])
        if known.setdefault(name, identity) != identity:
            raise UserError(
                f"results of {name} are from different weights or prompts; "
                "run all of its methods again with --overwrite"
            )
    return sorted(records, key=lambda row: (row["model"]["name"], row["method"]["name"], row["seed"]))
