"""How the cost of an edit grows: with anchors, edited blocks, languages and width.

    python benchmarks/cost_growth.py [--only anchors] [--model small] [--device cpu] [--rounds 2] [--out FILE]

All but the width on a model with the demo's other settings; the width on random Llama blocks in bfloat16, two of them,
of which one is edited, with 64 pairs. `reading` is the fit less its solving; replies are generated before and
not counted. Every size is measured once a round, in turns, and the least of its rounds counts: what else the machine
does can only add.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from make_shaped_model import make_tokenizer
from results_file import clock, result_file

from lingualign.cli.demo import DEMO_ANCHORS, DEMO_EDIT
from lingualign.data.builtin import builtin_prompts
from lingualign.features.positions import Positions
from lingualign.hardware import hardware_line, versions
from lingualign.methods.anchors import Anchors, build_anchors
from lingualign.methods.sparse_weight_edit import SparseWeightEdit
from lingualign.models.load import LoadedModel, load_model
from lingualign.models.locate import locate_mlps
from lingualign.pipeline import own_replies
from lingualign.runs import write_json

#: Languages of the anchors, the first n of which are taken.
LANGUAGES = (*DEMO_ANCHORS, "id", "sw", "es", "de")
Fit = Callable[[], dict[str, Any]]


def fit_loaded(
    loaded: LoadedModel, folder: Path, *, seeds: int, languages: Sequence[str], layers: Sequence[int]
) -> tuple[int, Fit]:
    """The number of chats that an edit of a model reads, and the fit."""
    prompts = builtin_prompts(["en", *languages]).where(splits=["fit"]).limited(seeds)
    anchors = build_anchors(prompts, "en", languages)
    method = SparseWeightEdit(**{**DEMO_EDIT, "layers": list(layers)})
    replies = own_replies(loaded, anchors, method.positions.reply_tokens, folder)
    return len(anchors.pairs) + len(anchors.keep), _fit(loaded.model, loaded.tokenizer, method, anchors, replies)


def fit_wide(width: int, device: str) -> tuple[int, Fit]:
    """The same of one of two random blocks of a width."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer(2048)
    config = LlamaConfig(
        vocab_size=2048,
        hidden_size=width,
        intermediate_size=7 * width // 2,
        num_hidden_layers=2,
        num_attention_heads=width // 128,
        num_key_value_heads=width // 512,
        pad_token_id=tokenizer.pad_token_id,
        dtype="bfloat16",
    )
    torch.set_default_dtype(torch.bfloat16)
    model = LlamaForCausalLM(config).eval().to(device)
    torch.set_default_dtype(torch.float32)
    prompts = builtin_prompts(["en", "it"]).where(splits=["fit"]).limited(64)
    anchors = build_anchors(prompts, "en", ["it"])
    method = SparseWeightEdit(layers=[1], positions=Positions(template_tokens=4))
    return len(anchors.pairs) + len(anchors.keep), _fit(model, tokenizer, method, anchors, {})


def _fit(model: Any, tokenizer: Any, method: SparseWeightEdit, anchors: Anchors, replies: Any) -> Fit:
    def fit() -> dict[str, Any]:
        device = str(model.device)
        start = clock(device)
        edit = method.fit(model, tokenizer, anchors, replies=replies)
        whole = clock(device) - start
        solving = edit.manifest["seconds"]["solve"]
        return {"reading": whole - solving, "solving": solving}

    return fit


def series(
    only: str | None, loaded: LoadedModel, folder: Path
) -> Iterator[tuple[str, list[int], Callable[[int], tuple[int, Fit]]]]:
    """What grows, its sizes, and what is fitted at one of them."""
    layers = DEMO_EDIT["layers"]
    top = len(locate_mlps(loaded.model)) - 1
    few = {"seeds": 25, "languages": LANGUAGES[:4], "layers": layers}
    every: dict[str, tuple[list[int], Callable[[int], tuple[int, Fit]]]] = {
        "anchors": ([25, 100, 400], lambda size: fit_loaded(loaded, folder, **{**few, "seeds": size})),
        "layers": (
            [1, 4, min(16, top)],
            lambda size: fit_loaded(loaded, folder, **{**few, "layers": range(top - size, top)}),
        ),
        "languages": ([1, 4, 13], lambda size: fit_loaded(loaded, folder, **{**few, "languages": LANGUAGES[:size]})),
        "width": ([1024, 2048, 4096, 8192], lambda size: fit_wide(size, str(loaded.model.device))),
    }
    for name, (sizes, make) in every.items():
        if only in (None, name):
            yield name, sizes, make


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["anchors", "layers", "languages", "width"])
    parser.add_argument("--model", default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, help="by default a file in results/")
    options = parser.parse_args()
    loaded = load_model(options.model, device=options.device)
    found: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name, sizes, make in series(options.only, loaded, Path(temporary)):
            rows: dict[int, dict[str, Any]] = {}
            for _ in range(options.rounds):
                for size in sizes:
                    chats, fit = make(size)
                    seconds = fit()
                    row = rows.setdefault(size, {"size": size, "chats": chats, **seconds})
                    row.update({part: min(row[part], value) for part, value in seconds.items()})
            found[name] = list(rows.values())
            for row in found[name]:
                print(
                    f"{name} {row['size']}: {row['chats']} chats, reading {row['reading']:.2f} s, "
                    f"solving {row['solving']:.2f} s",
                    flush=True,
                )
    write_json(
        options.out or result_file("cost-growth", options.device),
        {
            "model": options.model,
            "series": found,
            "hardware": hardware_line(options.device),
            "versions": versions(),
        },
    )


if __name__ == "__main__":
    main()
