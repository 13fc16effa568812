"""Ideas for a better closed form that are no settings of the method, measured by refusal scores on the *select* split.

    python benchmarks/ideas.py --out evidence/closed-form-ideas.json
    python benchmarks/ideas.py --out evidence/closed-form-ideas.json --only "mean shift"
    python benchmarks/ideas.py --out evidence/closed-form-ideas.json --table

Each is fitted with the demo's prompts and settings. Refusal scores (`lingualign.evaluate.separation`) say whether an
idea leaves the trade-off curve or only moves along it: areas under the curve of harmful prompts against look-alikes and
harmless ones, and refusals at the threshold that 5% of look-alikes pass. Nothing is generated but the replies that the
fit reads. An idea that is already in the output file is not measured again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from separation import opening_of, separation
from torch import Tensor

from lingualign.cli.demo import DEMO_ANCHORS, DEMO_EDIT, DEMO_LANGUAGES_PER_SEED
from lingualign.config import EditSettings
from lingualign.data.builtin import BUILTIN_LANGUAGES, builtin_prompts
from lingualign.data.schema import KINDS, PromptSet
from lingualign.edit import Edit
from lingualign.features.collect import Site
from lingualign.hardware import hardware_line
from lingualign.methods.anchors import Anchors, build_anchors
from lingualign.methods.sparse_weight_edit import SparseWeightEdit
from lingualign.models.load import LoadedModel, load_model
from lingualign.organism.build import cache_folder
from lingualign.pipeline import own_replies
from lingualign.runs import write_json


class MeanShift(SparseWeightEdit):
    """Every pair is aimed at the mean change over all pairs, position by position."""

    def aim(self, site: Site, low: Tensor, wanted: Tensor, anchors: Anchors) -> Tensor:
        gap = super().aim(site, low, wanted, anchors)
        return gap.mean(0, keepdim=True).expand_as(gap)


class LanguagesAlone(SparseWeightEdit):
    """What is aimed at has no part in the space that the means of the languages span, so that a reply stays in its
    language."""

    def aim(self, site: Site, low: Tensor, wanted: Tensor, anchors: Anchors) -> Tensor:
        gap = super().aim(site, low, wanted, anchors)
        tags = [other.language for _, other in anchors.pairs]
        means = torch.stack(
            [wanted.mean((0, 1))]
            + [low[[row for row, tag in enumerate(tags) if tag == name]].mean((0, 1)) for name in anchors.languages]
        )
        basis = torch.linalg.svd(means - means.mean(0), full_matrices=False)[2][: len(means) - 1]
        return gap - gap @ basis.T @ basis


class LeadingDifferences(SparseWeightEdit):
    """What is aimed at lies in the eight leading directions of the change, so that what differs from prompt to prompt
    is left out."""

    def aim(self, site: Site, low: Tensor, wanted: Tensor, anchors: Anchors) -> Tensor:
        gap = super().aim(site, low, wanted, anchors)
        flat = gap.reshape(-1, gap.shape[-1])
        basis = torch.linalg.eigh(flat.T @ flat)[1][:, -8:]
        return gap @ basis @ basis.T


class SecondRound(SparseWeightEdit):
    """An edit of the edited model on top of the first, from the same anchors and replies."""

    def fit(self, model: Any, tokenizer: Any, anchors: Anchors, *, fingerprint: str = "", **options: Any) -> Edit:
        first = super().fit(model, tokenizer, anchors, fingerprint=fingerprint, **options)
        with first.applied(model):
            second = super().fit(model, tokenizer, anchors, fingerprint=f"{fingerprint}-{first.fingerprint}", **options)
        return first + replace(second, base=first.base)


def weakest_twice(anchors: Anchors) -> Anchors:
    """Pairs of the languages that the base model refuses least in (bn, ja, ko, th; select split) count twice."""
    again = [pair for pair in anchors.pairs if pair[1].language in ("bn", "ja", "ko", "th")]
    return Anchors((*anchors.pairs, *again), anchors.keep, anchors.reference)


@dataclass(frozen=True)
class Idea:
    """What differs from the demo's edit.

    Attributes:
        changes: settings.
        method: its class.
        prepare: what is done to the anchors.
        languages_per_seed: in how many languages a seed is; None for all.
        every: which part of the seeds is fitted on: all, every second, ...
        keep_languages: of the keep set; None for the anchors' and English.
    """

    changes: Mapping[str, Any] = field(default_factory=dict)
    method: type[SparseWeightEdit] = SparseWeightEdit
    prepare: Callable[[Anchors], Anchors] | None = None
    languages_per_seed: int | None = DEMO_LANGUAGES_PER_SEED
    every: int = 1
    keep_languages: Sequence[str] | None = None


IDEAS: Mapping[str, Idea] = {
    "the demo's": Idea(),
    "each seed in one language": Idea(languages_per_seed=1),
    "each seed in three languages": Idea(languages_per_seed=3),
    "each seed in all languages": Idea(languages_per_seed=None),
    "mean shift": Idea(method=MeanShift),
    "languages left alone": Idea(method=LanguagesAlone),
    "eight leading differences": Idea(method=LeadingDifferences),
    "weakest languages twice": Idea(prepare=weakest_twice),
    "hard null space as well": Idea({"null_space": 0.01}),
    "rank 16": Idea({"rank": 16}),
    "no rank constraint": Idea({"rank": None}),
    "prompt mean too": Idea({"positions": {"prompt_mean": True}}),
    "blocks 5 to 15": Idea({"layers": list(range(5, 16))}),
    "English harmful prompts count 30": Idea({"reference_weight": 30}),
    "English harmful prompts count 90": Idea({"reference_weight": 90}),
    "one language, counting 30": Idea({"reference_weight": 30}, languages_per_seed=1),
    "one language, look-alikes count 9": Idea({"look_alike_weight": 9}, languages_per_seed=1),
    "one language, every second seed": Idea(languages_per_seed=1, every=2),
    "one language, every fourth seed": Idea(languages_per_seed=1, every=4),
    "one language, every eighth seed": Idea(languages_per_seed=1, every=8),
    "one language, every fourth seed, counting 30": Idea({"reference_weight": 30}, languages_per_seed=1, every=4),
    "one language, every sixth seed, counting 30": Idea({"reference_weight": 30}, languages_per_seed=1, every=6),
    "attention in place of the MLP": Idea({"family": "attention"}),
    "attention in place of the MLP, γ = 5": Idea({"family": "attention", "keep_weight": 5.0}),
    "attention and MLP": Idea({"family": "residual"}),
    "attention and MLP, blocks 5 to 15": Idea({"family": "residual", "layers": list(range(5, 16))}),
    "attention and MLP, one language, counting 30": Idea(
        {"family": "residual", "reference_weight": 30}, languages_per_seed=1
    ),
    "keep set in all fourteen languages": Idea(keep_languages=BUILTIN_LANGUAGES),
    "keep set in English only": Idea(keep_languages=("en",)),
    "attention and MLP, keep set in all fourteen languages": Idea(
        {"family": "residual"}, keep_languages=BUILTIN_LANGUAGES
    ),
    "gate and up, towards pre-activations": Idea({"family": "paper"}),
    "gate and up, towards post-activations": Idea({"family": "paper", "target": "post"}),
    "eight reply tokens": Idea({"positions": {"reply_tokens": 8}}),
    "second round": Idea(method=SecondRound),
    "strength 0.8": Idea({"strength": 0.8}),
    "strength 1.25": Idea({"strength": 1.25}),
}
COLUMNS = (
    "pairs",
    "keep",
    "seconds",
    "AUC seen",
    "AUC unseen",
    "AUC harmless",
    "at 5%",
)


def fitted(loaded: LoadedModel, fit: PromptSet, idea: Idea, work: Path) -> tuple[Edit, Anchors]:
    """The edit of an idea, and what it was fitted on."""
    settings = EditSettings.model_validate({**DEMO_EDIT, **idea.changes})
    anchors = build_anchors(
        fit.every(idea.every), "en", DEMO_ANCHORS, idea.keep_languages, languages_per_seed=idea.languages_per_seed
    )
    if idea.prepare is not None:
        anchors = idea.prepare(anchors)
    replies = own_replies(loaded, anchors, settings.positions.reply_tokens, work)
    made = idea.method(**vars(settings.method()))
    edit = made.fit(loaded.model, loaded.tokenizer, anchors, fingerprint=loaded.fingerprint, replies=replies)
    return edit, anchors


def measure(loaded: LoadedModel, idea: Idea | None, work: Path) -> dict[str, Any]:
    """What `separation` says, with 95% intervals; of the unedited model without an idea."""
    prompts = builtin_prompts()
    select = prompts.where(splits=["select"])
    opening = opening_of(loaded, select, work)
    edit, row = Edit({}, {}), {}
    if idea is not None:
        started = time.monotonic()
        edit, anchors = fitted(loaded, prompts.where(splits=["fit"]), idea, work)
        row = {"pairs": len(anchors.pairs), "keep": len(anchors.keep), "seconds": round(time.monotonic() - started)}
    for name, (value, interval) in separation(loaded, edit, select, opening).items():
        row[name] = {"value": value, "interval": interval}
    return {**row, "n per language": {kind: len(select.seeds(kind)) for kind in KINDS}}


def table(found: Mapping[str, Any]) -> str:
    """The rows as Markdown."""
    lines = [f"| idea | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, row in found["ideas"].items():
        lines.append(f"| {name} | {' | '.join(_cell(row.get(column)) for column in COLUMNS)} |")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        low, high = value["interval"]
        return f"{value['value']:.3f} [{low:.3f}, {high:.3f}]"
    return "-" if value is None else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("evidence/closed-form-ideas.json"))
    parser.add_argument("--work", type=Path, default=cache_folder() / "ideas", help="the model's own replies")
    parser.add_argument("--only", action="append", help="measure these")
    parser.add_argument("--table", action="store_true", help="print what is measured, and measure nothing")
    arguments = parser.parse_args()
    found: dict[str, Any] = {"model": "small", "split": "select", "hardware": hardware_line("cpu"), "ideas": {}}
    if arguments.out.is_file():
        found = json.loads(arguments.out.read_text(encoding="utf-8"))
    if not arguments.table:
        arguments.work.mkdir(parents=True, exist_ok=True)
        loaded = load_model("small")
        wanted: dict[str, Idea | None] = {"no edit": None, **IDEAS}
        for name, idea in wanted.items():
            if name in found["ideas"] or (arguments.only and name not in arguments.only):
                continue
            found["ideas"][name] = measure(loaded, idea, arguments.work)
            write_json(arguments.out, found)
            print(name, "done", flush=True)
    print(table(found))


if __name__ == "__main__":
    main()
