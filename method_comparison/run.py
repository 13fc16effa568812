"""Runs the comparison; goes on where it stopped.

    python -m method_comparison.run --dry-run                      # what is to be done, and about how long it takes
    python -m method_comparison.run                                # all methods on the small model, select split
    python -m method_comparison.run --split report                 # the final table
    python -m method_comparison.run --models small,qwen2.5-0.5b --methods sparse-weight-edit,sham --seeds 0,1,2

Figures go to method_comparison/results, which is in git; replies and edits to a work folder, which is not.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from lingualign.errors import UserError
from lingualign.organism.build import cache_folder
from method_comparison.record import RESULTS
from method_comparison.registry import METHODS, load_methods, load_model_file
from method_comparison.runner import Comparison, Options


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    given = _parser().parse_args(arguments)
    options = Options(given.split, given.results, given.work, given.overwrite)
    try:
        methods = load_methods(given.methods, given.method_files)
        for name in given.models:
            comparison = Comparison(load_model_file(name), methods, given.seeds, options, _Stages())
            if given.dry_run:
                print(plan_text(comparison))
            else:
                comparison.run(
                    lambda task, record: print(
                        f"{task.path.parent.parent.name} {task.method.name} seed {task.seed}: "
                        f"{record['comparison']['verdict']}",
                        flush=True,
                    ),
                    fit_only=given.fit_only,
                )
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def plan_text(comparison: Comparison) -> str:
    """One line for each run with its state and estimated minutes, and the sum of what is open."""
    tasks = comparison.tasks()
    waiting = comparison.waiting(tasks)
    before, estimates = comparison.estimates(waiting) if waiting else (0.0, {})
    lines = [f"{comparison.model.name}, {comparison.options.split} split, {len(comparison.audited)} prompts"]
    for task in tasks:
        line = f"  {task.method.name:28} seed {task.seed}  {task.state}"
        if (task.method.name, task.seed) in estimates:
            fit, rest = estimates[task.method.name, task.seed]
            line += f"  fit {'not known' if fit is None else _minutes(fit)}, audit and utility {_minutes(rest)}"
        lines.append(line)
    known = before + sum((fit or 0.0) + rest for fit, rest in estimates.values()) if waiting else 0.0
    least = "at least " if any(fit is None for fit, _ in estimates.values()) else "about "
    return "\n".join([*lines, f"  {len(waiting)} of {len(tasks)} to be done, {least}{_minutes(known)}"])


class _Stages:
    """Says on standard error what has begun."""

    def __init__(self) -> None:
        self.last = ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage != self.last:
            self.last = stage
            print(f"{time.strftime('%H:%M:%S')} {stage} ({done} of {total})", file=sys.stderr, flush=True)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=_names, default=["small"], help="names or files in models/, with commas")
    parser.add_argument("--methods", type=_names, help="names in methods/, with commas; all by default")
    parser.add_argument("--seeds", type=_seeds, default=[0, 1, 2], help="with commas; for methods that depend on one")
    parser.add_argument("--split", choices=("select", "report"), default="select", help="whose prompts are audited")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the figures")
    parser.add_argument("--work", type=Path, default=cache_folder() / "method-comparison", help="replies and edits")
    parser.add_argument("--method-files", type=Path, default=METHODS, help="folder of the methods' files")
    parser.add_argument("--overwrite", action="store_true", help="replace results of other settings or commits")
    parser.add_argument("--fit-only", action="store_true", help="fit and stop; the work folder may be taken elsewhere")
    parser.add_argument("--dry-run", action="store_true", help="show the plan and stop")
    return parser


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _seeds(text: str) -> list[int]:
    return [int(name) for name in _names(text)]


if __name__ == "__main__":
    sys.exit(main())
