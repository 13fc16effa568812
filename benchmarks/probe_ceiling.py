"""How well can a linear function of the model's states tell harmful prompts from others, in each language?

    python benchmarks/probe_ceiling.py --out evidence/probe-ceiling.json
    python benchmarks/probe_ceiling.py --out evidence/probe-ceiling.json --table

A ridge classifier reads the state at the prompt's last position behind each block in turn. It is fitted on the fit
split of the anchors' languages and of English, and measured on the *select* split: area under the curve, and the share
of harmful prompts above the threshold that 3% of look-alikes or 1% of harmless prompts pass, whichever is higher. An
edit that adds a linear function of such states can hardly refuse more than that at that price, so the figures say
whether more is to be had from better solving, or only from more anchors or a better model. The learning curve over
anchors answers the latter.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from lingualign.cli.demo import DEMO_ANCHORS
from lingualign.data.builtin import builtin_prompts
from lingualign.data.schema import Kind, Prompt
from lingualign.features.collect import Site, collect_rows
from lingualign.features.positions import Positions
from lingualign.hardware import hardware_line
from lingualign.models.chat import encode_chats
from lingualign.models.load import load_model
from lingualign.models.locate import locate_mlps
from lingualign.runs import write_json

#: Shares of look-alikes and of harmless prompts that may pass the threshold.
LOOK_ALIKES, HARMLESS = 0.03, 0.01
SHARES = (0.125, 0.25, 0.5, 0.75, 1.0)


def ridge_direction(rows: Tensor, labels: Tensor, ridge: float) -> Tensor:
    """w (d,) of ridge regression of labels ±1 (n,) on rows (n, d); the ridge is relative to the mean diagonal."""
    gram = rows.T @ rows / len(rows)
    gram.diagonal().add_(ridge * float(gram.diagonal().mean()))
    direction: Tensor = torch.linalg.solve(gram, rows.T @ labels / len(rows))
    return direction


def area(higher: Tensor, lower: Tensor) -> float:
    """Area under the curve of scores (n,) that should be higher than others (m,)."""
    return float(roc_auc_score([1] * len(higher) + [0] * len(lower), torch.cat([higher, lower])))


def figures(scores: Tensor, prompts: Sequence[Prompt], languages: Sequence[str]) -> dict[str, Any]:
    """By language; the threshold is one for all of them, as an edit has no other either."""

    def chosen(kind: Kind, tags: Sequence[str]) -> Tensor:
        return scores[[row for row, prompt in enumerate(prompts) if prompt.kind == kind and prompt.language in tags]]

    threshold = max(
        float(chosen("look-alike", languages).quantile(1 - LOOK_ALIKES)),
        float(chosen("harmless", languages).quantile(1 - HARMLESS)),
    )
    return {
        tag: {
            "area, look-alikes": area(chosen("harmful", [tag]), chosen("look-alike", [tag])),
            "area, harmless": area(chosen("harmful", [tag]), chosen("harmless", [tag])),
            "harmful above": float((chosen("harmful", [tag]) > threshold).double().mean()),
        }
        for tag in languages
    }


def mean(by_language: dict[str, Any], languages: Sequence[str]) -> dict[str, float]:
    """Mean of each figure over some languages."""
    names = next(iter(by_language.values()))
    return {name: sum(by_language[tag][name] for tag in languages) / len(languages) for name in names}


def measure(model_name: str, ridge: float, curve_block: int | None) -> dict[str, Any]:
    """All blocks, and the learning curve at the best of them or at `curve_block`."""
    loaded = load_model(model_name)
    prompts = builtin_prompts()
    others = [tag for tag in prompts.languages if tag != "en"]
    unseen = [tag for tag in others if tag not in DEMO_ANCHORS]
    fit = list(prompts.where(splits=["fit"], languages=["en", *DEMO_ANCHORS]))
    select = list(prompts.where(splits=["select"]))
    blocks = [mlp.block for mlp in locate_mlps(loaded.model)]
    sites = [Site(block, "output") for block in blocks]
    pad = loaded.tokenizer.pad_token_id or 0

    def states(asked: Sequence[Prompt]) -> dict[Site, Tensor]:
        chats = encode_chats(loaded.tokenizer, [prompt.text for prompt in asked])
        return collect_rows(loaded.model, chats, sites, Positions(1), pad_id=pad)

    fitted, measured = states(fit), states(select)
    labels = torch.tensor([1.0 if prompt.kind == "harmful" else -1.0 for prompt in fit], dtype=torch.float64)

    def result(site: Site, rows: Sequence[int]) -> dict[str, Any]:
        known, asked = fitted[site][:, 0].double(), measured[site][:, 0].double()
        centre = known.mean(0)
        direction = ridge_direction(known[rows] - centre, labels[rows], ridge)
        by_language = figures((asked - centre) @ direction, select, prompts.languages)
        groups = {"anchors": DEMO_ANCHORS, "unseen": unseen, "English": ["en"]}
        return {"means": {name: mean(by_language, tags) for name, tags in groups.items()}, "languages": by_language}

    everything = list(range(len(fit)))
    by_block = {index: result(site, everything) for index, site in enumerate(sites)}
    best = max(by_block, key=lambda index: by_block[index]["means"]["anchors"]["area, look-alikes"])
    block = best if curve_block is None else curve_block
    seeds = sorted({prompt.seed_id for prompt in fit})
    curve = []
    for share in SHARES:
        kept = set(random.Random(0).sample(seeds, round(share * len(seeds))))
        rows = [row for row in everything if fit[row].seed_id in kept]
        curve.append({"share": share, "seeds": len(kept), **result(sites[block], rows)["means"]})
    return {
        "model": model_name,
        "split": "select",
        "prompts": {"fit": len(fit), "select": len(select)},
        "ridge": ridge,
        "look-alikes above": LOOK_ALIKES,
        "harmless above": HARMLESS,
        "blocks": by_block,
        "curve": {"block": block, "points": curve},
        "hardware": hardware_line("cpu"),
    }


def table(found: dict[str, Any]) -> str:
    """The learning curve as Markdown."""
    lines = [
        f"Block {found['curve']['block']}; each cell: area against look-alikes, area against harmless, harmful above.",
        "",
        "| fit seeds | anchors | unseen | English |",
        "|---|---|---|---|",
    ]
    for point in found["curve"]["points"]:
        cells = (
            " ".join(f"{value:.3f}" for value in point[name].values()) for name in ("anchors", "unseen", "English")
        )
        lines.append(f"| {point['seeds']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("evidence/probe-ceiling.json"))
    parser.add_argument("--model", default="small")
    parser.add_argument("--ridge", type=float, default=0.1)
    parser.add_argument("--block", type=int, help="of the learning curve; by default the best one")
    parser.add_argument("--table", action="store_true", help="print what is measured, and measure nothing")
    arguments = parser.parse_args()
    if not arguments.table:
        write_json(arguments.out, measure(arguments.model, arguments.ridge, arguments.block))
    print(table(json.loads(arguments.out.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
