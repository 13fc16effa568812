"""What an edit of a streamed model takes beyond reading its blocks and passing the same chats through them.

Each side runs in a process of its own, in turns: `pass` takes the chats of the edit through the blocks down to the last
edited one with the same loader, `edit` fits and saves the edit. Memory is the peak of the process less what it had
before the model was loaded, on Linux; with a GPU, the peak of what torch has on it, where no hidden states are kept.
The whole process's peak in main memory stands beside it.

python benchmarks/streamed_edit.py FOLDER [--layers 12,16,20] [--anchors 64] [--device cpu] [--repeats 2] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from results_file import clock, result_file

from lingualign.data.builtin import builtin_prompts
from lingualign.edit import Edit
from lingualign.features.block_major import BlockMajor
from lingualign.features.positions import Positions
from lingualign.features.store import FeatureSource
from lingualign.hardware import hardware_line, versions
from lingualign.methods.anchor_chats import encode_anchors
from lingualign.methods.anchors import Anchors, build_anchors
from lingualign.methods.sparse_weight_edit import SparseWeightEdit
from lingualign.models.load import LoadedModel
from lingualign.models.stages import StreamedWeights, load_streamed, streamed_weights
from lingualign.runs import write_json

POSITIONS = Positions(template_tokens=4)
LANGUAGES = ("en", "it")


def anchors_of(count: int) -> Anchors:
    """`count` pairs of harmful prompts in English and Italian, and as many prompts of each kind to keep."""
    prompts = builtin_prompts(LANGUAGES).where(splits=["fit"]).limited(count)
    return build_anchors(prompts, LANGUAGES[0], LANGUAGES)


def fit(loaded: LoadedModel, layers: tuple[int, ...], anchors: Anchors) -> Edit:
    """The edit that is measured, of a model that is streamed or in memory."""
    return SparseWeightEdit(layers=layers, positions=POSITIONS).fit(loaded.model, loaded.tokenizer, anchors)


def described(folder: Path, device: str, layers: tuple[int, ...], anchors: int) -> dict[str, Any]:
    """What was measured, and on what."""
    return {
        "model": json.loads((folder / "config.json").read_text(encoding="utf-8")),
        "hardware": hardware_line(device),
        "versions": versions(),
        "layers": layers,
        "anchors": anchors,
    }


def memory(field: str) -> int:
    """Bytes that the kernel gives for this process: `VmRSS` now, `VmHWM` at the peak."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def measure(side: str, folder: Path, layers: tuple[int, ...], anchors: Anchors, device: str) -> dict[str, Any]:
    """Seconds and memory of one side, the loading of the model included."""
    before = memory("VmRSS")
    start = clock(device)
    loaded = load_streamed(folder, device=device)
    weights = streamed_weights(loaded.model)
    assert weights is not None
    loading = clock(device) - start
    if side == "edit":
        with tempfile.TemporaryDirectory() as out:
            fit(loaded, layers, anchors).save(Path(out) / "edit.safetensors")
    else:
        _pass(loaded, layers, anchors)
    return {
        "side": side,
        "seconds": clock(device) - start,
        "seconds_loading": loading,
        "peak_bytes": _peak(device, before),
        "resident_peak_bytes": memory("VmHWM"),
        "block_loads": sum(weights.loads.values()),
        **_sizes(loaded, weights, anchors),
    }


def _peak(device: str, before: int) -> int:
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    return memory("VmHWM") - before


def _pass(loaded: LoadedModel, layers: tuple[int, ...], anchors: Anchors) -> None:
    chats = encode_anchors(loaded.tokenizer, anchors, POSITIONS, {})
    source = FeatureSource(loaded.model, "")
    edited = [*source.batches(chats.low), *source.batches(chats.keep)]
    states = BlockMajor(loaded.model, source.batches(chats.reference), edited, pad_id=loaded.tokenizer.pad_token_id)
    states.advance(max(layers) + 1)


def _sizes(loaded: LoadedModel, weights: StreamedWeights, anchors: Anchors) -> dict[str, Any]:
    chats = encode_anchors(loaded.tokenizer, anchors, POSITIONS, {})
    tokens = sum(len(chat.ids) for chat in (*chats.reference, *chats.low, *chats.keep))
    dtype = next(loaded.model.parameters()).dtype
    blocks = [0] * len(loaded.model.get_submodule(weights.blocks))
    for name, parameter in loaded.model.named_parameters():
        block = weights.block_of(name)
        if block is not None:
            blocks[block] += parameter.numel() * dtype.itemsize
    hidden = tokens * loaded.model.config.get_text_config().hidden_size * dtype.itemsize
    # They are kept in main memory.
    hidden = 0 if weights.device.type == "cuda" else hidden
    return {"tokens": tokens, "dtype": str(dtype), "block_bytes": max(blocks), "hidden_bytes": hidden}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", default="12,16,20")
    parser.add_argument("--anchors", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="by default a file in results/")
    parser.add_argument("--side", choices=["pass", "edit"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    layers = tuple(int(layer) for layer in options.layers.split(","))
    if options.side:
        print(json.dumps(measure(options.side, options.folder, layers, anchors_of(options.anchors), options.device)))
        return
    runs = []
    for _ in range(options.repeats):
        for side in ("pass", "edit"):
            command = [sys.executable, __file__, *sys.argv[1:], "--side", side]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            runs.append(json.loads(output.splitlines()[-1]))
            print(f"{side}: {runs[-1]['seconds']:.1f} s, {runs[-1]['peak_bytes'] / 1e6:.0f} MB", flush=True)
    best = {side: min(run["seconds"] for run in runs if run["side"] == side) for side in ("pass", "edit")}
    peak = max(run["peak_bytes"] for run in runs if run["side"] == "edit")
    # Hidden states apart, in units of the largest block.
    blocks = (peak - runs[-1]["hidden_bytes"]) / runs[-1]["block_bytes"]
    print(
        f"time: {best['edit'] / best['pass']:.2f} x the pass; memory: {blocks:.2f} x the largest block + hidden states"
    )
    write_json(
        options.out or result_file("streamed-edit", options.device),
        {
            **described(options.folder, options.device, layers, options.anchors),
            "time_ratio": best["edit"] / best["pass"],
            "memory_in_blocks": blocks,
            "runs": runs,
        },
    )


if __name__ == "__main__":
    main()
