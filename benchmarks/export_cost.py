"""Seconds, processor seconds and memory of an export beside `cp` of the same checkpoint: A B C A B C …, each a process
of its own.

python benchmarks/export_cost.py [FOLDER] [--gigabytes 2] [--rounds 5] [--work DIR] [--out FILE]

Of a random checkpoint that the system's cache of files holds, so that neither `cp` nor the export waits for the disk:
bfloat16 matrices of 4096 x 14336 in shards of at most 1 GB, of which the edit changes every eighth. And of the
checkpoint in FOLDER, such as make_shaped_model.py's 8b, of which it changes `down_proj` in six blocks in the middle. An
export works in two threads; its processor seconds, unlike its seconds, hardly depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from results_file import result_file

COLUMNS, ROWS, RANK = 14336, 4096, 64
SHARD_BYTES, EVERY, BLOCKS = 10**9, 8, 6


def write_checkpoint(folder: Path, size: int) -> None:
    """A checkpoint of about `size` bytes."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    count = max(1, size // (2 * ROWS * COLUMNS))
    per_shard = max(1, SHARD_BYTES // (2 * ROWS * COLUMNS))
    shards = -(-count // per_shard)
    places = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        tensors = {
            f"model.layers.{block}.mlp.down_proj.weight": torch.randn(ROWS, COLUMNS, dtype=torch.bfloat16)
            for block in range(shard * per_shard, min(count, (shard + 1) * per_shard))
        }
        save_file(tensors, folder / file)
        places.update(dict.fromkeys(tensors, file))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    (folder / "config.json").write_text('{"model_type": "llama"}')


def write_edit(folder: Path, file: Path, every: int | None) -> None:
    """An edit of rank 64 of a checkpoint's `down_proj`: of each `every`-th, or of those of six blocks in the middle."""
    import torch

    from lingualign.edit import Edit, LowRankDelta, tensor_fingerprint
    from lingualign.models.stored import read_weights

    _, stored = read_weights(folder)
    names = [name for name in stored if name.endswith("mlp.down_proj.weight")]
    names.sort(key=lambda name: int(name.split(".")[2]))
    first = max(0, (len(names) - BLOCKS) // 2)
    deltas, base = {}, {}
    for name in names[::every] if every else names[first : first + BLOCKS]:
        weight = stored[name].read()
        rows, columns = weight.shape
        rank = min(RANK, rows, columns)
        deltas[name] = LowRankDelta(torch.randn(rows, rank), torch.randn(columns, rank), (rows, columns))
        base[name] = tensor_fingerprint(weight)
    Edit(deltas, base, {"method": "benchmark"}).save(file)


def elsewhere(function: Any, *arguments: Any) -> None:
    """A call in a process of its own, which keeps this one small."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{function.__name__} ended with {process.exitcode}")


def measure(command: list[str], out: Path) -> tuple[float, float, int]:
    """Seconds, processor seconds and peak resident bytes of a process that makes the folder `out`, which is removed
    again."""
    # A child's peak is never below its parent's so far: this process keeps small, and imports torch last.
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    # Of this one child; RUSAGE_CHILDREN would give the largest of all so far.
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[0]} ended with {process.returncode}")
    shutil.rmtree(out)
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def measure_export(source: Path, edit_file: Path, out: Path, rounds: int) -> dict[str, Any]:
    """All arms in turns, and their ratios."""
    export = [sys.executable, "-m", "lingualign", "export", str(source), str(edit_file), "--out", str(out), "--quiet"]
    arms = {
        "cp": ["cp", "-r", "--reflink=never", str(source), str(out)],
        "cp --reflink=auto": ["cp", "-r", "--reflink=auto", str(source), str(out)],
        "python, torch": [sys.executable, "-c", f"import torch, pathlib; pathlib.Path({str(out)!r}).mkdir()"],
        "export": export,
    }
    measured: dict[str, list[tuple[float, float, int]]] = {name: [] for name in arms}
    for _ in range(rounds):
        for name, command in arms.items():
            measured[name].append(measure(command, out))
            print(f"{name}: {measured[name][-1][0]:.2f} s", flush=True)
    seconds = {name: [round(value, 3) for value, _, _ in found] for name, found in measured.items()}
    ratios = {
        name: [round(export / floor, 3) for export, floor in zip(seconds["export"], seconds[name], strict=True)]
        for name in arms
        if name.startswith("cp")
    }
    # The import of torch takes as long for a large checkpoint as for a small one.
    ratios["cp, start of Python with torch left out"] = [
        round((export - start) / floor, 3)
        for export, start, floor in zip(seconds["export"], seconds["python, torch"], seconds["cp"], strict=True)
    ]
    return {
        "bytes": sum(file.stat().st_size for file in source.iterdir()),
        "seconds": seconds,
        "processor_seconds": {name: [round(value, 3) for _, value, _ in found] for name, found in measured.items()},
        "ratio_to": ratios,
        "peak_resident_bytes": {name: max(memory for _, _, memory in found) for name, found in measured.items()},
    }


def changed(edit_file: Path) -> dict[str, int]:
    """How many tensors an edit changes, and the bytes of the largest in two bytes a value."""
    from lingualign.edit import Edit

    shapes = [delta.shape for delta in Edit.load(edit_file).deltas.values()]
    return {"tensors_changed": len(shapes), "tensor_bytes": max(2 * rows * columns for rows, columns in shapes)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="a checkpoint in several safetensors files")
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path, help="where copies are written; a temporary folder by default")
    parser.add_argument("--out", type=Path, default=result_file("export-cost", "cpu"))
    options = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    edits = {}
    with tempfile.TemporaryDirectory(dir=options.work) as temporary:
        work = Path(temporary)
        random = work / "random"
        elsewhere(write_checkpoint, random, int(options.gigabytes * 1e9))
        os.sync()
        sources = {"random": (random, EVERY)}
        if options.folder:
            sources[options.folder.name] = (options.folder, None)
        for name, (source, every) in sources.items():
            edits[name] = work / f"{name}.safetensors"
            elsewhere(write_edit, source, edits[name], every)
            found[name] = measure_export(source, edits[name], work / "out", options.rounds)
        # This process has kept small until all is measured: it is the floor of its children's peaks.
        for name, file in edits.items():
            found[name] |= changed(file)
    from lingualign.hardware import hardware_line, versions
    from lingualign.runs import write_json

    for name, figures in found.items():
        ratios = {other: statistics.median(values) for other, values in figures["ratio_to"].items()}
        print(f"{name}, {figures['bytes'] / 1e9:.2f} GB: " + ", ".join(f"{v:.2f} x {k}" for k, v in ratios.items()))
    write_json(options.out, {"checkpoints": found, "hardware": hardware_line("cpu"), "versions": versions()})


if __name__ == "__main__":
    main()
