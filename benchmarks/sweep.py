"""Seconds of a sweep: collecting features once, then solving and scoring every setting of the default grid.

    python benchmarks/sweep.py [--model small] [--device cpu] [--layers 9 10] [--fit-seeds-per-kind N]
        [--work FOLDER] [--out FILE]

Anchors, blocks and the rest are the demo's. An empty work folder times the collecting; a second call reads the
features. Beside them, for one matrix of the model's size, what a further λ costs as a factorisation of its own, and
the eigendecomposition that would serve all λ of one γ: the sweep does the first, as long as a grid has few λ.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from results_file import clock, result_file, shown_model

from lingualign.cli.demo import DEMO_EDIT, DEMO_SETTINGS
from lingualign.config import build_config
from lingualign.grid import DEFAULT_GRID, settings_of
from lingualign.hardware import hardware_line, versions
from lingualign.methods.sweep import pareto_front
from lingualign.models.load import load_model
from lingualign.models.locate import locate_mlps
from lingualign.prompts import resolve_prompts
from lingualign.runs import write_json
from lingualign.solvers.low_rank import solve_primal
from lingualign.sweep import score_settings


def _seconds(work: Callable[[], object]) -> float:
    started = clock("cpu")
    work()
    return round(clock("cpu") - started, 3)


def factorisations(width: int, outputs: int) -> dict[str, float]:
    """Seconds of one solve and of one eigendecomposition, for a matrix of width inputs and as many outputs as given."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2 * width, width, generator=generator, dtype=torch.float64)
    gram = rows.T @ rows / len(rows)
    cross = torch.randn(width, outputs, generator=generator, dtype=torch.float64)
    return {
        "a solve": _seconds(
            lambda: solve_primal(gram, cross, 1e6, gram, keep_weight=10.0, ridge=1e-3, rank=128),
        ),
        "an eigendecomposition": _seconds(lambda: torch.linalg.eigh(gram)),
    }


def measure(model: str, device: str, layers: Sequence[int], fit_seeds: int | None, work: Path) -> dict[str, Any]:
    """One sweep of the default grid."""
    prompts = {**DEMO_SETTINGS["prompts"], "fit_seeds_per_kind": fit_seeds}
    edit = {**DEMO_EDIT, "layers": layers}
    config = build_config({**DEMO_SETTINGS, "model": model, "device": device, "prompts": prompts, "edit": edit})
    settings = settings_of(config, DEFAULT_GRID)
    loaded = load_model(config.model, device=device)
    started = clock(device)
    found = score_settings(loaded, resolve_prompts(config), config, settings, features=work)
    whole = clock(device) - started
    mlp = locate_mlps(loaded.model)[found.layers[0]]
    return {
        "model": shown_model(model),
        "hardware": hardware_line(device),
        "versions": versions(),
        "settings": len(settings),
        "blocks": len(found.layers),
        "solves per matrix": found.solves,
        "pairs solved from": found.solved,
        "prompts scored on": sum(found.held_out.values()),
        "on the front": len(pareto_front(found.scores)),
        "seconds": {
            # The model's own replies are generated before the sweep begins to count.
            "replies and collecting": round(whole - found.seconds["re-solve"], 2),
            "re-solving": round(found.seconds["re-solve"], 2),
            "a setting": round(found.seconds["re-solve"] / len(settings), 4),
        },
        "seconds of one matrix": factorisations(mlp.inner_size, mlp.hidden_size),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--layers", type=int, nargs="+", default=DEMO_EDIT["layers"], help="by default the demo's")
    parser.add_argument("--fit-seeds-per-kind", type=int, help="fit on the first seeds; by default on all")
    parser.add_argument("--work", type=Path, help="folder of the features; a temporary one by default")
    parser.add_argument("--out", type=Path, help="by default a file in results/")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        figures = measure(options.model, options.device, options.layers, options.fit_seeds_per_kind, work)
    print(json.dumps(figures, indent=2))
    write_json(options.out or result_file("sweep", options.device), figures)


if __name__ == "__main__":
    main()
