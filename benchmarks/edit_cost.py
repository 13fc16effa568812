"""What an edit costs beyond a bare forward pass over the same tokens, and where its time goes: A B C A B C …

    python benchmarks/edit_cost.py [--model small] [--device cpu] [--rounds 3] [--fit-seeds 100] [--out FILE]

`pass` runs the chats of the edit through the blocks down to the last edited one and keeps nothing; `features` reads
rows and second moments at every edited block in one such pass; `edit` fits and saves the edit, block by block, on
replies that were generated before. Anchors and settings are the demo's, on the first fit seeds of each kind.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from results_file import clock, result_file, shown_model

from lingualign.cli.demo import DEMO_ANCHORS, DEMO_EDIT, DEMO_LANGUAGES_PER_SEED
from lingualign.config import EditSettings
from lingualign.data.builtin import builtin_prompts
from lingualign.features.collect import EndOfPassError, Site, batches_by_length, forward, pad
from lingualign.features.store import FeatureSource
from lingualign.hardware import hardware_line, versions
from lingualign.methods.anchor_features import AnchorFeatures
from lingualign.methods.anchors import build_anchors
from lingualign.models.chat import EncodedChat
from lingualign.models.load import LoadedModel, load_model
from lingualign.pipeline import own_replies
from lingualign.runs import write_json

BATCH_TOKENS = 2048


def bare_pass(loaded: LoadedModel, groups: list[list[EncodedChat]], last: str) -> None:
    """Forward passes that end at the module `last`, in the batches that features are read in."""

    def end(_module: Any, _args: Any) -> None:
        raise EndOfPassError

    handle = loaded.model.get_submodule(last).register_forward_pre_hook(end)
    for group in groups:
        for batch in batches_by_length(group, BATCH_TOKENS):
            ids, mask, _ = pad([group[index] for index in batch], loaded.tokenizer.pad_token_id, "right")
            forward(loaded.model, ids, mask)
    handle.remove()


def read_features(features: AnchorFeatures) -> None:
    """Rows of the pairs and moments of the keep set at all edited blocks, each group of chats in one pass."""
    mlps = [features.mlps[layer] for layer in features.layers]
    inputs = [Site(mlp.down_matrix.module, "input") for mlp in mlps]
    outputs = [Site(mlp.output, "output") for mlp in mlps]
    features.wanted(outputs)
    features.low([*inputs, *outputs])
    features.keep_moments(inputs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fit-seeds", type=int, default=100)
    parser.add_argument("--out", type=Path, help="by default a file in results/")
    options = parser.parse_args()
    loaded = load_model(options.model, device=options.device)
    prompts = builtin_prompts(["en", *DEMO_ANCHORS]).where(splits=["fit"]).limited(options.fit_seeds)
    anchors = build_anchors(prompts, "en", DEMO_ANCHORS, languages_per_seed=DEMO_LANGUAGES_PER_SEED)
    method = EditSettings(**DEMO_EDIT).method()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        start = clock(options.device)
        replies = own_replies(loaded, anchors, method.positions.reply_tokens, folder)
        replying = clock(options.device) - start
        source = FeatureSource(loaded.model, "", pad_id=loaded.tokenizer.pad_token_id, batch_tokens=BATCH_TOKENS)
        features = AnchorFeatures(method, loaded.model, loaded.tokenizer, anchors, source, replies, {})
        groups = [features.chats.reference, features.chats.low, *features.groups.values()]
        last = features.mlps[features.layers[-1]].down_matrix.module
        solving: list[float] = []
        writing: list[float] = []

        def edit() -> None:
            fitted = method.fit(loaded.model, loaded.tokenizer, anchors, replies=replies)
            start = clock(options.device)
            fitted.save(folder / "edit.safetensors")
            writing.append(clock(options.device) - start)
            solving.append(fitted.manifest["seconds"]["solve"])

        sides: dict[str, Callable[[], None]] = {
            "pass": lambda: bare_pass(loaded, groups, last),
            "features": lambda: read_features(features),
            "edit": edit,
        }
        sides["pass"]()  # Memory is there when the first round begins.
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(options.rounds):
            for name, side in sides.items():
                start = clock(options.device)
                side()
                seconds[name].append(clock(options.device) - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    whole = replying + medians["edit"]
    ratios = {name: medians[name] / medians["pass"] for name in ("features", "edit")}
    share = (statistics.median(solving) + statistics.median(writing)) / whole
    tokens = sum(len(chat.ids) for group in groups for chat in group)
    line = hardware_line(options.device)
    print(f"{tokens} tokens, {len(anchors.pairs)} pairs, {len(anchors.keep)} prompts to keep; {line}")
    for name, values in seconds.items():
        print(f"{name}: median {medians[name]:.2f} s, {[round(value, 2) for value in values]}")
    print(f"features / pass: {ratios['features']:.2f}; edit, replies apart / pass: {ratios['edit']:.2f}")
    print(f"replies {replying:.1f} s; solving and writing {share:.3f} of replies and edit")
    write_json(
        options.out or result_file("edit-cost", options.device),
        {
            "model": shown_model(options.model),
            "fingerprint": loaded.fingerprint,
            "fit_seeds": options.fit_seeds,
            "tokens": tokens,
            "pairs": len(anchors.pairs),
            "keep": len(anchors.keep),
            "seconds": {**seconds, "replies": replying, "solving": solving, "writing": writing},
            "ratios_to_pass": ratios,
            "share_of_solving_and_writing": share,
            "hardware": line,
            "versions": versions(),
        },
    )


if __name__ == "__main__":
    main()
