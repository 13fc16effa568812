"""Neuron scores on the small model, side by side.

    python benchmarks/neuron_scores.py --out evidence/neuron-scores.json

How many neurons each selects by its own rule, whether other prompts give the same ones, and whether other languages do.
Features are what enters `down_proj` on the fit split, mean over the template's last five tokens; PLND reads these
tokens one by one, the contrast reads completions. All figures but the first column are Jaccard indices of equally many
neurons, mean over the layers. The probe's fits take most of the time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from torch import Tensor

from lingualign.data.builtin import builtin_prompts
from lingualign.data.schema import Kind, PromptSet
from lingualign.evaluate.engine import TransformersEngine
from lingualign.features.collect import Site, collect_rows
from lingualign.features.positions import Positions
from lingualign.methods.neuron_scores.base import NeuronScore
from lingualign.methods.neuron_scores.cohens_d import CohensD
from lingualign.methods.neuron_scores.generation_contrast import GenerationContrast
from lingualign.methods.neuron_scores.magnitude_or_effect import MagnitudeOrEffect
from lingualign.methods.neuron_scores.plnd import Plnd
from lingualign.methods.neuron_scores.probe import Probe
from lingualign.methods.neuron_scores.random_neurons import RandomNeurons
from lingualign.methods.neuron_scores.reliability import chance_overlap, jaccard, overlap, stability
from lingualign.models.chat import encode_chats
from lingualign.models.load import load_model
from lingualign.models.locate import locate_mlps
from lingualign.models.matrices import MlpMatrices
from lingualign.organism.base import load_base
from lingualign.organism.build import cache_folder
from lingualign.runs import write_json

POSITIONS = Positions(template_tokens=5)
#: Completion tokens on which the two models are compared.
COMPLETION = 8
#: The safety release of PLND takes 2,000 of the 14,336 neurons of Llama-3-8B.
PLND_SHARE = 2000 / 14336


@dataclass(frozen=True)
class Column:
    """A score with its two groups of rows by language, in one layer."""

    score: NeuronScore
    features: Mapping[str, tuple[Tensor, Tensor]]


def columns(
    model: Any, base: Any, tokenizer: Any, prompts: PromptSet, mlps: Sequence[MlpMatrices], seed: int
) -> dict[str, list[Column]]:
    """By the score's title, one column for each of the layers."""
    inner = [Site(mlp.down, "input") for mlp in mlps]
    up = [Site(mlp.inner["up"], "output") for mlp in mlps]

    def texts(language: str, kind: Kind) -> list[str]:
        return [prompt.text for prompt in prompts.where(kinds=[kind], languages=[language])]

    rows = {
        (language, kind): collect_rows(model, encode_chats(tokenizer, texts(language, kind)), [*inner, *up], POSITIONS)
        for language in prompts.languages
        for kind in ("harmful", "harmless")
    }
    engine = TransformersEngine(base, tokenizer, max_new_tokens=COMPLETION)
    completions = {}
    for language in prompts.languages:
        asked = texts(language, "harmless")
        replies = {i: raw.text for batch, raws in engine.generate(asked) for i, raw in zip(batch, raws, strict=True)}
        # A prompt to which the base model says nothing has no tokens to compare.
        spoken = [i for i in range(len(asked)) if replies[i]]
        chats = encode_chats(tokenizer, [asked[i] for i in spoken], replies=[replies[i] for i in spoken])
        positions = Positions(template_tokens=0, reply_tokens=COMPLETION)
        completions[language] = [collect_rows(one, chats, inner, positions) for one in (base, model)]

    found: dict[str, list[Column]] = {}
    for index, mlp in enumerate(mlps):
        number = round(PLND_SHARE * mlp.inner_size)
        norms = model.get_parameter(f"{mlp.down}.weight").detach().float().norm(dim=0)

        def groups(site: Site, mean: bool) -> dict[str, tuple[Tensor, Tensor]]:
            pairs = {tag: (rows[tag, "harmful"][site], rows[tag, "harmless"][site]) for tag in prompts.languages}
            return {tag: (one.mean(1), other.mean(1)) for tag, (one, other) in pairs.items()} if mean else pairs

        pooled, tokens = groups(inner[index], mean=True), groups(inner[index], mean=False)
        models = {
            tag: (one[inner[index]].flatten(0, 1), other[inner[index]].flatten(0, 1))
            for tag, (one, other) in completions.items()
        }
        for title, score, features in (
            ("z or d", MagnitudeOrEffect(), pooled),
            ("Cohen's d", CohensD(), pooled),
            ("probe", Probe(), pooled),
            ("PLND, paper", Plnd(number, norms), tokens),
            ("PLND, released code", Plnd(number), groups(up[index], mean=False)),
            ("generation contrast", GenerationContrast(), models),
            ("random", RandomNeurons(MagnitudeOrEffect(), seed + index), pooled),
        ):
            found.setdefault(title, []).append(Column(score, features))
    return found


def figures(
    layers: Sequence[Column], reference: Sequence[Column], count: int, resamples: int, seed: int
) -> dict[str, Any]:
    """One row of the table; `reference` is Cohen's d in the same layers."""
    sets = [
        {tag: column.score.select(*features, count) for tag, features in column.features.items()} for column in layers
    ]
    with_d = [column.score.select(*column.features["en"], count) for column in reference]
    across = [overlap(chosen) for chosen in sets]
    return {
        "own rule": fmean(len(column.score.select(*column.features["en"])) for column in layers),
        "stability": fmean(
            stability(column.score, *column.features["en"], count=count, resamples=resamples, seed=seed)
            for column in layers
        ),
        "with Cohen's d": fmean(jaccard(one["en"], other) for one, other in zip(sets, with_d, strict=True)),
        "with English": {
            tag: fmean(float(matrix[0, place]) for matrix in across)
            for place, tag in enumerate(layers[0].features)
            if tag != "en"
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("evidence/neuron-scores.json"))
    parser.add_argument("--layers", type=int, nargs="+", default=[8, 14])
    parser.add_argument("--languages", nargs="+", default=["zh", "de", "th", "sw"], help="beside English")
    parser.add_argument("--seeds-per-kind", type=int, default=30)
    parser.add_argument("--share", type=float, default=0.03, help="share of neurons that are compared")
    parser.add_argument("--resamples", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    started = time.monotonic()
    loaded = load_model("small", precision="float32", device="cpu")
    base, _ = load_base(cache_folder() / "gemma-3-270m")
    prompts = builtin_prompts(["en", *arguments.languages]).where(splits=["fit"]).limited(arguments.seeds_per_kind)
    mlps = locate_mlps(loaded.model)
    width = mlps[0].inner_size
    count = round(arguments.share * width)
    measured = columns(
        loaded.model, base.eval(), loaded.tokenizer, prompts, [mlps[i] for i in arguments.layers], arguments.seed
    )
    table = {
        title: figures(layers, measured["Cohen's d"], count, arguments.resamples, arguments.seed)
        for title, layers in measured.items()
    }
    write_json(
        arguments.out,
        {
            "model": loaded.fingerprint,
            **{name: value for name, value in vars(arguments).items() if name != "out"},
            "neurons compared": count,
            "width": width,
            "chance": chance_overlap(count, width),
            "scores": table,
            "seconds": round(time.monotonic() - started, 1),
        },
    )
    print(
        f"{count} of {width} neurons in each of layers {arguments.layers}; chance {chance_overlap(count, width):.3f}\n"
    )
    print("| score | own rule | stability | with Cohen's d | with English: " + ", ".join(arguments.languages) + " |")
    print("|---|---|---|---|---|")
    for title, row in table.items():
        others = ", ".join(f"{value:.2f}" for value in row["with English"].values())
        own, steady, like_d = row["own rule"], row["stability"], row["with Cohen's d"]
        print(f"| {title} | {own:.0f} | {steady:.2f} | {like_d:.2f} | {others} |")


if __name__ == "__main__":
    main()
