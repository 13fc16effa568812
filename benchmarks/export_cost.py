"""Seconds and memory of an export beside `cp` of the same checkpoint: A B C A B C …, each a process of its own.

python benchmarks/export_cost.py [--gigabytes 2] [--rounds 5] [--folder DIR] [--out FILE]

The checkpoint is random: bfloat16 matrices of 4096 x 14336 in shards of at most 1 GB, of which the edit changes every
eighth. It is in the cache of the file system from the start, and neither `cp` nor the export waits for the disk.
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

from results_file import result_file

COLUMNS, ROWS, RANK = 14336, 4096, 64
SHARD_BYTES, EVERY = 10**9, 8


def write_checkpoint(folder: Path, edit_file: Path, size: int) -> None:
    """A checkpoint of about `size` bytes, and an edit of some of its matrices."""
    import torch
    from safetensors.torch import save_file

    from lingualign.edit import Edit, LowRankDelta, tensor_fingerprint

    folder.mkdir()
    count = max(1, size // (2 * ROWS * COLUMNS))
    per_shard = max(1, SHARD_BYTES // (2 * ROWS * COLUMNS))
    shards = -(-count // per_shard)
    places, deltas, base = {}, {}, {}
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        tensors = {}
        for block in range(shard * per_shard, min(count, (shard + 1) * per_shard)):
            name = f"model.layers.{block}.mlp.down_proj.weight"
            tensors[name] = torch.randn(ROWS, COLUMNS, dtype=torch.bfloat16)
            if block % EVERY == 0:
                deltas[name] = LowRankDelta(torch.randn(ROWS, RANK), torch.randn(COLUMNS, RANK), (ROWS, COLUMNS))
                base[name] = tensor_fingerprint(tensors[name])
        save_file(tensors, folder / file)
        places.update(dict.fromkeys(tensors, file))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    (folder / "config.json").write_text('{"model_type": "llama"}')
    Edit(deltas, base, {"method": "benchmark"}).save(edit_file)


def measure(command: list[str], out: Path) -> tuple[float, int]:
    """Seconds and peak resident bytes of a process that makes the folder `out`, which is removed again."""
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
    return seconds, usage.ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the checkpoint is written; a temporary folder by default")
    parser.add_argument("--out", type=Path, default=result_file("export-cost", "cpu"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        source, edit_file, out = folder / "source", folder / "edit.safetensors", folder / "out"
        size = int(options.gigabytes * 1e9)
        writer = multiprocessing.get_context("spawn").Process(target=write_checkpoint, args=(source, edit_file, size))
        writer.start()
        writer.join()
        os.sync()
        lingualign = [sys.executable, "-m", "lingualign"]
        arms = {
            "cp": ["cp", "-r", "--reflink=never", str(source), str(out)],
            "cp --reflink=auto": ["cp", "-r", "--reflink=auto", str(source), str(out)],
            "python, torch": [sys.executable, "-c", f"import torch, pathlib; pathlib.Path({str(out)!r}).mkdir()"],
            "export": [*lingualign, "export", str(source), str(edit_file), "--out", str(out), "--quiet"],
        }
        measured: dict[str, list[tuple[float, int]]] = {name: [] for name in arms}
        for _ in range(options.rounds):
            for name, command in arms.items():
                measured[name].append(measure(command, out))
        size = sum(file.stat().st_size for file in source.iterdir())
    from lingualign.hardware import hardware_line, versions
    from lingualign.runs import write_json

    seconds = {name: [round(value, 3) for value, _ in pairs] for name, pairs in measured.items()}
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
    peak = {name: max(memory for _, memory in pairs) for name, pairs in measured.items()}
    tensor = 2 * ROWS * COLUMNS
    line = hardware_line("cpu")
    print(f"{size / 1e9:.2f} GB, one tensor {tensor / 1e6:.0f} MB, {options.rounds} rounds; {line}")
    for name, values in seconds.items():
        print(f"{name}: median {statistics.median(values):.2f} s, {values}; peak {peak[name] / 1e6:.0f} MB")
    for name, values in ratios.items():
        print(f"export / {name}: median {statistics.median(values):.2f}, {values}")
    above = peak["export"] - peak["python, torch"]
    print(f"export above Python with torch: {above / 1e6:.0f} MB, {above / tensor:.2f} tensors")
    write_json(
        options.out,
        {
            "bytes": size,
            "tensor_bytes": tensor,
            "tensors_changed_of_each": EVERY,
            "seconds": seconds,
            "ratio_to": ratios,
            "peak_resident_bytes": peak,
            "hardware": line,
            "versions": versions(),
        },
    )
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
