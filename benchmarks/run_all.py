"""Runs the cost benchmarks in turn, each in a process of its own, and prints their ratios beside the targets.

    python benchmarks/run_all.py [--only edit_cost,generation] [--device cuda] [--model small] [--quick] [--again]
        [--page] [--work FOLDER] [--data ../shared/data] [--results FOLDER]

A benchmark whose result is there is not run again unless `--again` says so; one that fails is left out, with one line.
`--model` takes what `load_model` takes, or a shape of make_shaped_model.py (`1b`), which is written to the work folder;
there, too, lie the checkpoints that are streamed (16 GB for 8b). They stay for the next call where `--work` is given.
Quick results are to see that everything works: they go to the work folder, not to results/.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from cost_benchmarks import COSTS, CostBenchmark, Ratio
from resources_page import write_page
from results_file import result_file
from shapes import SHAPES

FOLDER = Path(__file__).parent


def shaped_model(shape: str, work: Path) -> Path:
    """The checkpoint of a shape in the work folder, written where it is not there."""
    folder = work / shape
    if not (folder / "model.safetensors.index.json").is_file():
        subprocess.run([sys.executable, FOLDER / "make_shaped_model.py", shape, folder], check=True)
    return folder


def arguments(benchmark: CostBenchmark, options: argparse.Namespace, work: Path) -> list[str]:
    """What the benchmark is called with, its result file apart."""
    given: list[str] = []
    if benchmark.model in SHAPES:
        given.append(str(shaped_model("tiny" if options.quick else benchmark.model, work)))
    else:
        model = shaped_model(options.model, work) if options.model in SHAPES else options.model
        given += ["--model", str(model)]
    if benchmark.on_gpu:
        given += ["--device", options.device]
    if benchmark.data and options.data:
        given += ["--data", options.data]
    return [*given, *(benchmark.quick if options.quick else ())]


def run(benchmark: CostBenchmark, options: argparse.Namespace, work: Path) -> Path | None:
    """The result file, old or new; None where the benchmark failed."""
    out = result_file(benchmark.result_name, options.device)
    if options.results:
        out = options.results / f"{benchmark.result_name}.json"
    elif options.quick:
        out = work / "quick" / f"{benchmark.result_name}.json"
    if out.is_file() and not options.again:
        print(f"{benchmark.name}: {out} is there", flush=True)
        return out
    print(f"{benchmark.name}: {benchmark.about}", flush=True)
    try:
        command = [sys.executable, str(FOLDER / f"{benchmark.name}.py"), *arguments(benchmark, options, work)]
        subprocess.run([*command, "--out", str(out)], check=True)
    except subprocess.CalledProcessError as error:
        print(f"{benchmark.name}: left out, {error.cmd[1]} ended with {error.returncode}", flush=True)
        return None
    return out


def table(ratios: list[tuple[str, Ratio]]) -> str:
    """Benchmarks, ratios, targets, and whether each is met, in columns."""
    rows = [("benchmark", "ratio", "value", "target", "met")]
    for name, ratio in ratios:
        bound = "" if ratio.target is None else f"{'>=' if ratio.at_least else '<='} {ratio.target:.2f}"
        met = {True: "yes", False: "no", None: ""}[ratio.met]
        rows.append((name, ratio.name, f"{ratio.value:.3f}", bound, met))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [benchmark.name for benchmark in COSTS]
    parser.add_argument("--only", help=f"some of {', '.join(known)}")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", default="small")
    parser.add_argument("--data")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--page", action="store_true", help="also write docs/resources.md")
    parser.add_argument("--work", type=Path, help="a temporary folder by default")
    parser.add_argument("--results", type=Path, help="folder of the results; by default the device's in results/")
    options = parser.parse_args()
    wanted = options.only.split(",") if options.only else known
    if unknown := set(wanted) - set(known):
        parser.error(f"there is no {', '.join(sorted(unknown))}; give some of {', '.join(known)}")
    on_gpu = options.device.startswith("cuda")
    ratios: list[tuple[str, Ratio]] = []
    failed = False
    with tempfile.TemporaryDirectory() as temporary:
        work = (options.work or Path(temporary)).resolve()
        for benchmark in COSTS:
            if benchmark.name not in wanted:
                continue
            if on_gpu and not benchmark.on_gpu:
                print(f"{benchmark.name}: left out, it has no GPU variant", flush=True)
                continue
            out = run(benchmark, options, work)
            if out is None:
                failed = True
            else:
                result = json.loads(out.read_text(encoding="utf-8"))
                ratios += [(benchmark.name, ratio) for ratio in benchmark.ratios(result)]
    print(f"\n{table(ratios)}")
    if options.page:
        print(f"written: {write_page()}")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
