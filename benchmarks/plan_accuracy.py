"""What `plan` predicts beside what the same run then uses, stage by stage: time, main memory, GPU memory, disk.

    python benchmarks/plan_accuracy.py [--model small] [--device cpu] [--seeds-per-kind N] [--work FOLDER] [--out FILE]

The settings are the demo's. Plan and run are one process, as in `lingualign demo`; the memory of the stages is what the
run folder records, and the process's own peak is the kernel's.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

from results_file import result_file, shown_model

from lingualign.cli.demo import DEMO_SETTINGS
from lingualign.config import RunConfig, build_config
from lingualign.hardware import hardware_line, versions
from lingualign.pipeline import run_all
from lingualign.plan import Plan, make_plan
from lingualign.prompts import resolve_prompts
from lingualign.runs import RUN_FILE, write_json


def demo_config(model: str, device: str, seeds_per_kind: int | None) -> RunConfig:
    """The demo's settings, of any model; `seeds_per_kind` bounds the audited seeds and those that are fitted on."""
    limits = {"seeds_per_kind": seeds_per_kind, "fit_seeds_per_kind": seeds_per_kind}
    prompts = {**DEMO_SETTINGS["prompts"], **limits}
    return build_config({**DEMO_SETTINGS, "model": model, "device": device, "prompts": prompts})


def compare(plan: Plan, folder: Path) -> dict[str, Any]:
    """[planned, used] of every stage that the run recorded, and of the whole run."""
    recorded = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    timings, memory = recorded["timings"], recorded["memory"]
    planned = {stage.name: stage for stage in plan.stages if stage.name in timings}
    stages = {
        name: {
            "seconds": [stage.seconds, timings[name]],
            "memory_bytes": [stage.memory_bytes, memory[name]["resident"]],
            "device_bytes": [stage.device_bytes, memory[name]["device"]],
        }
        for name, stage in planned.items()
    }

    def both(what: str) -> list[list[float]]:
        return [list(side) for side in zip(*(stage[what] for stage in stages.values()), strict=True)]

    total = {
        "seconds": [sum(side) for side in both("seconds")],
        "memory_bytes": [max(side) for side in both("memory_bytes")],
        "device_bytes": [max(side) for side in both("device_bytes")],
        "disk_bytes": [plan.disk_bytes, sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())],
    }
    return {"stages": stages, "total": total, "stages_not_planned": sorted(timings.keys() - planned.keys())}


def kernel_peak() -> int:
    """Bytes that this process has had at most, by the kernel's account."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seeds-per-kind", type=int, help="by default all that the demo takes")
    parser.add_argument("--work", type=Path, help="where the run folder is; a temporary one by default")
    parser.add_argument("--out", type=Path, help="by default a file in results/")
    options = parser.parse_args()
    config = demo_config(options.model, options.device, options.seeds_per_kind)
    with tempfile.TemporaryDirectory(dir=options.work) as temporary:
        folder = Path(temporary) / "run"
        plan = make_plan(config, resolve_prompts(config), folder)
        run_all(config, folder)
        found = compare(plan, folder)
    for stage, figures in {**found["stages"], "whole run": found["total"]}.items():
        for what, (planned, used) in figures.items():
            if used:
                print(f"{stage}, {what}: planned {planned:.4g}, used {used:.4g}, ratio {planned / used:.2f}")
    write_json(
        options.out or result_file("plan-accuracy", options.device),
        {
            "model": shown_model(options.model),
            "prompts": plan.report_prompts,
            **found,
            "process_bytes": plan.process_bytes,
            "kernel_peak_bytes": kernel_peak(),
            "hardware": hardware_line(options.device),
            "versions": versions(),
        },
    )


if __name__ == "__main__":
    main()
