"""Do the neurons that a score selects carry refusal? They are switched off while the small model answers.

    python benchmarks/causal_checks.py --out evidence/causal-checks.json
    python benchmarks/causal_checks.py --out evidence/causal-checks.json --table

Each score selects a share of every edited block's neurons on the fit split's English prompts; the model then answers
the harmful prompts of the *select* split without them, and without as many others drawn at random from the same blocks.
With an edit (`--edit`) it is the edited model that answers. In memory only.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lingualign.cli.demo import DEMO_EDIT
from lingualign.data.builtin import builtin_prompts
from lingualign.data.schema import Kind
from lingualign.edit import Edit
from lingualign.evaluate.causal import causal_check
from lingualign.evaluate.engine import TransformersEngine
from lingualign.evaluate.judge import OfflineJudge
from lingualign.evaluate.metrics import Change
from lingualign.features.collect import Site, collect_rows
from lingualign.features.positions import Positions
from lingualign.hardware import hardware_line
from lingualign.methods.neuron_scores.base import NeuronScore
from lingualign.methods.neuron_scores.cohens_d import CohensD
from lingualign.methods.neuron_scores.magnitude_or_effect import MagnitudeOrEffect
from lingualign.models.chat import encode_chats
from lingualign.models.load import load_model
from lingualign.models.locate import locate_mlps
from lingualign.organism.build import cache_folder
from lingualign.runs import content_hash, write_json

SCORES: Mapping[str, NeuronScore] = {"z or d": MagnitudeOrEffect(), "Cohen's d": CohensD()}
SHARES = (0.01, 0.05, 0.2)


def measure(edit: Edit, seeds: int, seed: int, work: Path) -> dict[str, Any]:
    """Refusals with all neurons, without the selected ones and without others, by score and share."""
    loaded = load_model("small")
    prompts = builtin_prompts()
    fit = prompts.where(splits=["fit"], languages=["en"])
    asked = prompts.where(splits=["select"]).limited(seeds)
    layers = DEMO_EDIT["layers"]
    sites = {layer: Site(mlp.down, "input") for layer, mlp in enumerate(locate_mlps(loaded.model)) if layer in layers}

    def rows(kind: Kind) -> Mapping[Site, Any]:
        chats = encode_chats(loaded.tokenizer, [prompt.text for prompt in fit.where(kinds=[kind])])
        found = collect_rows(loaded.model, chats, list(sites.values()), Positions(template_tokens=5))
        return {site: values.mean(1) for site, values in found.items()}

    with edit.applied(loaded.model):
        harmful, harmless = rows("harmful"), rows("harmless")
        engine = TransformersEngine(loaded.model, loaded.tokenizer)
        folder = work / content_hash([loaded.fingerprint, edit.fingerprint])
        checks = []
        for title, score in SCORES.items():
            for share in SHARES:
                neurons = {
                    layer: score.select(harmful[site], harmless[site], round(share * harmful[site].shape[1]))
                    for layer, site in sites.items()
                }
                found = causal_check(engine, OfflineJudge(), asked, neurons, folder, seed=seed)
                checks.append(
                    {
                        "score": title,
                        "share": share,
                        "neurons": found.neurons,
                        "chosen": _changes(found.chosen),
                        "random": _changes(found.random),
                        "incoherent, chosen": _changes(found.incoherent_chosen),
                        "incoherent, random": _changes(found.incoherent_random),
                    }
                )
                print(title, share, "done", flush=True)
    return {
        "model": loaded.fingerprint,
        "edit": edit.fingerprint if edit.deltas else None,
        "split": "select",
        "layers": layers,
        "seed": seed,
        "n per language": len(asked.seeds("harmful")),
        "hardware": hardware_line("cpu"),
        "checks": checks,
    }


def _changes(found: list[Change]) -> dict[str, Any]:
    return {
        change.language: {
            "before": change.before,
            "after": change.after,
            "interval": change.interval,
            "p": change.p_adjusted,
        }
        for change in found
    }


def table(found: Mapping[str, Any]) -> str:
    """Refusals in English, and their mean over the other languages, as Markdown."""
    lines = [
        "| score | share of neurons | off | English | 95% interval of the change | others | incoherent |",
        "|---|---|---|---|---|---|---|",
    ]
    for check in found["checks"]:
        for which in ("chosen", "random"):
            by_language, broken = check[which], check[f"incoherent, {which}"]
            english = by_language["en"]
            others, incoherent = (
                sum(row["after"] for tag, row in rows.items() if tag != "en") / (len(rows) - 1)
                for rows in (by_language, broken)
            )
            low, high = english["interval"]
            cells = [check["score"], f"{check['share']:.0%}", which]
            cells += [f"{english['before']:.2f} to {english['after']:.2f}", f"[{low:+.2f}, {high:+.2f}]"]
            lines.append(f"| {' | '.join([*cells, f'{others:.2f}', f'{incoherent:.2f}'])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("evidence/causal-checks.json"))
    parser.add_argument("--edit", type=Path, help="of the small model, applied before")
    parser.add_argument("--seeds", type=int, default=28, help="harmful prompts in each language")
    parser.add_argument("--seed", type=int, default=0, help="of the random neurons")
    parser.add_argument("--work", type=Path, default=cache_folder() / "causal-checks", help="replies")
    parser.add_argument("--table", action="store_true", help="print what is measured, and measure nothing")
    given = parser.parse_args()
    if not given.table:
        edit = Edit.load(given.edit) if given.edit else Edit({}, {})
        write_json(given.out, measure(edit, given.seeds, given.seed, given.work))
    print(table(json.loads(given.out.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
