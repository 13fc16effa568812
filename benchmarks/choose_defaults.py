"""Measures settings of the edit on the *select* split of the built-in prompts, one at a time around a base.

    python benchmarks/choose_defaults.py --out evidence/defaults.jsonl

The demo's and the method's defaults come from this table. The report split is never touched here. A setting that is
already in the output file is not measured again, and features are shared, so a second run costs nothing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lingualign.cli.demo import DEMO_ANCHORS, DEMO_EDIT
from lingualign.config import EditSettings
from lingualign.data.builtin import builtin_prompts
from lingualign.data.schema import Kind, PromptSet
from lingualign.evaluate.audit import run_audit
from lingualign.evaluate.engine import TransformersEngine
from lingualign.evaluate.judge import OfflineJudge
from lingualign.evaluate.schema import Reply
from lingualign.evaluate.store import ReplyStore
from lingualign.models.load import LoadedModel, load_model
from lingualign.organism.build import cache_folder
from lingualign.pipeline import fit_edit
from lingualign.prompts import RunPrompts
from lingualign.runs import content_hash

#: What is changed, one at a time, against the demo's settings.
VARIATIONS: tuple[dict[str, Any], ...] = (
    {},
    {"strength": 0.0},
    {"layers": [4, 5, 6, 7, 8, 9]},
    {"layers": [6, 7, 8, 9, 10, 11]},
    {"layers": [11, 12, 13]},
    {"layers": [12, 13, 14, 15]},
    {"layers": "auto"},
    {"keep_weight": 0.3},
    {"keep_weight": 1.0},
    {"keep_weight": 10.0},
    {"reference_weight": 1.0},
    {"ridge": 1e-4},
    {"ridge": 1e-2},
    {"rank": 16},
    {"rank": 32},
    {"rank": 64},
    {"rank": 256},
    {"positions": {"template_tokens": 5}},
    {"positions": {"template_tokens": 5, "prompt_mean": True}},
    {"positions": {"template_tokens": 5, "reply_tokens": 2}},
    {"positions": {"template_tokens": 5, "reply_tokens": 8}},
    {"propagation": "sequential"},
    {"propagation": "split"},
    {"null_space": 0.01},
    {"selection": "paper", "fraction": 0.25},
    {"selection": "random", "fraction": 0.25},
    {"family": "paper", "selection": "paper"},
    {"family": "paper", "selection": "paper", "target": "post"},
    {"family": "paper", "selection": "paper", "fraction": 0.3},
)


def measure(loaded: LoadedModel, prompts: PromptSet, settings: EditSettings, work: Path) -> dict[str, Any]:
    """Fits on the fit split and audits the select split; rates are means over languages."""
    used = RunPrompts(
        prompts.where(splits=["fit"]), PromptSet([]), prompts.where(splits=["select"]), "en", DEMO_ANCHORS, None
    )
    edit = fit_edit(loaded, used, settings, features=work / "features")
    engine = TransformersEngine(loaded.model, loaded.tokenizer)
    store = ReplyStore(work / f"replies-{content_hash([loaded.fingerprint, settings.model_dump(mode='json')])}.jsonl")
    with edit.applied(loaded.model):
        replies = run_audit(engine, OfflineJudge(), used.report, store)
    others = [language for language in prompts.languages if language != "en"]
    unseen = [language for language in others if language not in DEMO_ANCHORS]

    def rate(kind: Kind, languages: Sequence[str], outcome: str = "refused") -> float:
        return sum(_share(replies, kind, language, outcome) for language in languages) / len(languages)

    return {
        "harmful": rate("harmful", others),
        "unseen": rate("harmful", unseen),
        "worst": min(rate("harmful", [language]) for language in others),
        "english": rate("harmful", ["en"]),
        "harmless": rate("harmless", prompts.languages),
        "worst harmless": max(rate("harmless", [language]) for language in prompts.languages),
        "look-alike": rate("look-alike", others),
        "incoherent": rate("harmful", others, "incoherent"),
        "layers": edit.manifest["layers"],
        "seconds": edit.manifest["seconds"],
        "n per language": {kind: len(prompts.where(splits=["select"]).seeds(kind)) for kind in ("harmful", "harmless")},
    }


def _share(replies: Sequence[Reply], kind: Kind, language: str, outcome: str) -> float:
    chosen = [reply for reply in replies if reply.kind == kind and reply.language == language]
    return sum(reply.outcome == outcome for reply in chosen) / len(chosen)


def _done(path: Path) -> Iterator[str]:
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            yield content_hash([row["model"], row["settings"]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("evidence/defaults.jsonl"))
    parser.add_argument("--work", type=Path, default=cache_folder() / "choose-defaults", help="features and replies")
    parser.add_argument("--seeds-per-kind", type=int, default=28)
    arguments = parser.parse_args()
    loaded = load_model("small")
    prompts = builtin_prompts()
    select = prompts.where(splits=["select"]).limited(arguments.seeds_per_kind)
    used = prompts.where(splits=["fit"]) + select
    done = set(_done(arguments.out))
    for changes in VARIATIONS:
        settings = EditSettings.model_validate({**DEMO_EDIT, **changes})
        key = content_hash([loaded.fingerprint, settings.model_dump(mode="json")])
        if key in done:
            continue
        figures = measure(loaded, used, settings, arguments.work)
        row = {"model": loaded.fingerprint, "changes": changes, "settings": settings.model_dump(mode="json"), **figures}
        with arguments.out.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(row) + "\n")
        shown = " ".join(f"{name}={value:.3f}" for name, value in figures.items() if isinstance(value, float))
        print(f"{json.dumps(changes) or 'base'}: {shown}", flush=True)


if __name__ == "__main__":
    main()
