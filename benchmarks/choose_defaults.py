"""Measures settings of the edit on the *select* split of the built-in prompts, one at a time around the demo's.

    python benchmarks/choose_defaults.py --out evidence/defaults.jsonl
    python benchmarks/choose_defaults.py --out evidence/defaults.jsonl --change '{"rank": 64}'
    python benchmarks/choose_defaults.py --out evidence/defaults.jsonl --table
    python benchmarks/choose_defaults.py --out evidence/ideas.jsonl --adapter method_comparison/organisms/small-native \
        --change '{"teacher": "own-language"}'

The demo's and the method's defaults come from this table. The report split is never touched here. A setting that is
already in the output file is not measured again, and the model's own replies are kept for the next.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from separation import opening_of, separation

from lingualign.cli.demo import DEMO_ANCHORS, DEMO_EDIT, DEMO_LANGUAGES_PER_SEED
from lingualign.config import EditSettings
from lingualign.data.builtin import builtin_prompts
from lingualign.data.schema import KINDS, Kind, PromptSet
from lingualign.evaluate.audit import run_audit
from lingualign.evaluate.engine import TransformersEngine
from lingualign.evaluate.judge import OfflineJudge
from lingualign.evaluate.schema import Reply
from lingualign.evaluate.store import ReplyStore
from lingualign.models.load import LoadedModel, load_model
from lingualign.organism.build import cache_folder, small_model_folder
from lingualign.pipeline import PUBLISHED, fit_edit
from lingualign.prompts import RunPrompts
from lingualign.runs import content_hash

#: What is changed, one at a time, against the demo's settings.
VARIATIONS: tuple[dict[str, Any], ...] = (
    {},
    {"strength": 0.0},
    {"keep_weight": 6.0},
    {"positions": {"reply_tokens": 0}},
    {"propagation": "none"},
    {"keep_weight": 3.0},
    {"look_alike_weight": 1.0},
    PUBLISHED,
    {"selection": "paper", "fraction": 0.25},
    {"selection": "random", "fraction": 0.25},
    {"keep_weight": 30.0},
    {"layers": "auto"},
    {"propagation": "split"},
    {"rank": 32},
    {"layers": [12, 13, 14, 15]},
    {"reference_weight": 1.0},
    {"ridge": 1e-2},
    {"null_space": 0.01},
    {"positions": {"template_tokens": 2}},
    {"look_alike_weight": 10.0},
)
#: The figures of a row that the table shows.
COLUMNS = (
    *("harmful", "seen", "unseen", "worst", "English", "look-alike", "harmless", "worst harmless", "incoherent"),
    *("own language", "AUC seen", "AUC unseen", "AUC harmless", "at 5%"),
)
#: Rows from before these could be changed.
EARLIER: dict[str, int | None] = {"fit seeds": 182, "languages per seed": None}
#: The demo's.
DATA: dict[str, int | None] = {"fit seeds": None, "languages per seed": DEMO_LANGUAGES_PER_SEED}


def measure(
    loaded: LoadedModel,
    prompts: PromptSet,
    settings: EditSettings,
    work: Path,
    keep_languages: Sequence[str] | None = None,
    languages_per_seed: int | None = None,
) -> dict[str, Any]:
    """Fits on the fit split and audits the select split; rates are means over languages, AUC of refusal scores is that
    of harmful prompts against look-alikes."""
    used = RunPrompts(
        *(prompts.where(splits=["fit"]), PromptSet([]), prompts.where(splits=["select"])),
        reference="en",
        anchor_languages=DEMO_ANCHORS,
        keep_languages=tuple(keep_languages) if keep_languages else None,
        languages_per_seed=languages_per_seed,
    )
    edit = fit_edit(loaded, used, settings, features=work / "features")
    # The features of edited blocks serve no other setting, and fill the disk; the model's own replies stay.
    for file in (work / "features").rglob("*.safetensors"):
        file.unlink()
    engine = TransformersEngine(loaded.model, loaded.tokenizer)
    store = ReplyStore(work / f"replies-{content_hash([loaded.fingerprint, edit.fingerprint])}.jsonl")
    with edit.applied(loaded.model):
        replies = run_audit(engine, OfflineJudge(), used.report, store)
    apart = separation(loaded, edit, used.report, opening_of(loaded, used.report, work))
    others = [language for language in prompts.languages if language != "en"]
    unseen = [language for language in others if language not in DEMO_ANCHORS]

    def rate(kind: Kind, languages: Sequence[str], outcome: str = "refused") -> float:
        return sum(_share(replies, kind, language, outcome) for language in languages) / len(languages)

    refused = [r for r in replies if r.kind == "harmful" and r.language != "en" and r.outcome == "refused"]
    return {
        "harmful": rate("harmful", others),
        "seen": rate("harmful", DEMO_ANCHORS),
        "unseen": rate("harmful", unseen),
        "worst": min(rate("harmful", [language]) for language in others),
        "English": rate("harmful", ["en"]),
        "harmless": rate("harmless", prompts.languages),
        "worst harmless": max(rate("harmless", [language]) for language in prompts.languages),
        "look-alike": rate("look-alike", others),
        "incoherent": rate("harmful", others, "incoherent"),
        "own language": sum(r.reply_language == r.language for r in refused) / max(1, len(refused)),
        **{name: value for name, (value, _) in apart.items()},
        "layers": edit.manifest["layers"],
        "seconds": edit.manifest["seconds"],
        "n per language": {kind: len(prompts.where(splits=["select"]).seeds(kind)) for kind in KINDS},
    }


def _share(replies: Sequence[Reply], kind: Kind, language: str, outcome: str) -> float:
    chosen = [reply for reply in replies if reply.kind == kind and reply.language == language]
    return sum(reply.outcome == outcome for reply in chosen) / len(chosen)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as Markdown; each is named by what differs from the demo's settings."""
    base = EditSettings.model_validate(DEMO_EDIT).model_dump(mode="json")
    lines = [f"| setting | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for row in rows:
        changes = {name: value for name, value in row["settings"].items() if value != base[name]}
        changes |= {name: row[name] for name in ("adapter", "keep languages") if row.get(name)}
        changes |= {name: value for name, value in _data(row).items() if value != DATA[name]}
        title = json.dumps(changes)[1:-1].replace('"', "") if changes else "**the demo's**"
        cells = (f"{row[name]:.3f}" if name in row else "-" for name in COLUMNS)
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _measured(row: dict[str, Any]) -> str:
    """Identifies what a row measures; rows from before a setting existed have its default."""
    settings = EditSettings.model_validate(row["settings"]).model_dump(mode="json")
    return content_hash([row["model"], row["anchors"], settings, row.get("keep languages"), _data(row)])


def _data(row: dict[str, Any]) -> dict[str, int | None]:
    """How many prompts were fitted on."""
    return {name: row.get(name, value) for name, value in EARLIER.items()}


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("evidence/defaults.jsonl"))
    parser.add_argument("--work", type=Path, default=cache_folder() / "choose-defaults", help="features and replies")
    parser.add_argument("--seeds-per-kind", type=int, default=28)
    parser.add_argument("--fit-seeds-per-kind", type=int, default=DATA["fit seeds"], help="fit on the first seeds")
    parser.add_argument(
        "--languages-per-seed", type=int, default=DATA["languages per seed"], help="in turns; 0 for all"
    )
    parser.add_argument("--keep-languages", choices=["anchors", "all"], default="anchors", help="of the keep set")
    parser.add_argument("--adapter", type=Path, help="folder of another adapter of the small model")
    parser.add_argument("--change", type=json.loads, action="append", help="measure this instead of the list")
    parser.add_argument("--table", action="store_true", help="print what is measured, and measure nothing")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(_read(arguments.out)))
        return
    loaded = load_model(str(small_model_folder(arguments.adapter)))
    prompts = builtin_prompts()
    select = prompts.where(splits=["select"]).limited(arguments.seeds_per_kind)
    used = prompts.where(splits=["fit"]).limited(arguments.fit_seeds_per_kind) + select
    keep_languages = prompts.languages if arguments.keep_languages == "all" else None
    done = {_measured(row) for row in _read(arguments.out)}
    for changes in arguments.change or VARIATIONS:
        settings = EditSettings.model_validate({**DEMO_EDIT, **changes})
        row = {
            "model": loaded.fingerprint,
            "anchors": list(DEMO_ANCHORS),
            "settings": settings.model_dump(mode="json"),
            "adapter": arguments.adapter.name if arguments.adapter else None,
            "fit seeds": arguments.fit_seeds_per_kind,
            "languages per seed": arguments.languages_per_seed or None,
            "keep languages": "all" if keep_languages else None,
        }
        if _measured(row) in done:
            continue
        row |= measure(loaded, used, settings, arguments.work, keep_languages, arguments.languages_per_seed or None)
        with arguments.out.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(row) + "\n")
        shown = " ".join(f"{name}={row[name]:.3f}" for name in COLUMNS)
        print(f"{json.dumps(changes)}: {shown}", flush=True)


if __name__ == "__main__":
    main()
