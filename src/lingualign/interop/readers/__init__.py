"""Readers of result files: what a file is shows from its content, not from its name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lingualign.errors import DataError
from lingualign.interop.arms import read_arms
from lingualign.interop.readers import harmbench, inspect, lm_eval
from lingualign.interop.samples import ResultFile
from lingualign.results import RESULT_FILE
from lingualign.runs import RUN_FILE

_FORMATS = "lm-eval's results_*.json and samples_*.jsonl, Inspect's .eval and .json, HarmBench's completions"
_SUFFIXES = (".json", ".jsonl", ".eval")


def read_result_files(paths: Sequence[Path]) -> list[ResultFile]:
    """Reads files, folders of files, and run folders of lingualign.

    In a folder, files of no known format are passed over, and of lm-eval's files for one task only the latest is read.

    Raises:
        DataError: a path is missing, a file is of no known format or damaged, or a folder holds none.
        MissingDependency: an Inspect log without inspect-ai.
    """
    found: list[ResultFile] = []
    for path in paths:
        if not path.exists():
            raise DataError(f"{path}: no such file or folder; check the path")
        if path.is_file():
            found.append(_read_file(path))
        elif (path / RESULT_FILE).is_file() or (path / RUN_FILE).is_file():
            found.append(_read_run(path))
        else:
            found += _read_folder(path)
    return found


def _read_run(folder: Path) -> ResultFile:
    """The last arm of a run: after the edit where there was one."""
    run = read_arms(folder)
    replies = run.replies.get("after", run.replies["before"])
    figures = run.figures
    return ResultFile(folder, "lingualign", figures["model"]["name"], replies=replies, judge=figures["judge"]["name"])


def _read_folder(folder: Path) -> list[ResultFile]:
    latest: dict[str, Path] = {}
    for path in sorted(path for suffix in _SUFFIXES for path in folder.rglob(f"*{suffix}") if path.is_file()):
        # Sorted by name, so that of files that differ in their time only the last stays.
        latest[str(path.with_name(lm_eval.DATE.sub("", path.stem) + path.suffix))] = path
    found = [_read_file(path) for path in latest.values() if _format(path)]
    if not found:
        raise DataError(f"{folder}: no result file in it; lingualign reads {_FORMATS}, and its own run folders")
    return found


def _read_file(path: Path) -> ResultFile:
    readers = {
        "samples": lambda: lm_eval.read_samples(path),
        "log": lambda: inspect.read_log(path),
        "results": lambda: lm_eval.read_results(path, _json(path)),
        "completions": lambda: harmbench.read_completions(path, _json(path)),
    }
    kind = _format(path)
    if kind is None:
        raise DataError(f"{path}: of no known format; lingualign reads {_FORMATS}, and its own run folders")
    try:
        return readers[kind]()
    except ValidationError as error:
        # Without the offending input, which may be anything.
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(step)[:40] for step in first["loc"])
        raise DataError(f"{path}: damaged at {where!a} ({first['type']}); write the file again") from None
    except (ValueError, OverflowError, RecursionError) as error:
        raise DataError(f"{path}: damaged ({str(error)[:120]!a}); write the file again") from None


def _format(path: Path) -> str | None:
    """What a file is: samples, log, results or completions; None for anything else."""
    if path.suffix == ".eval":
        return "log"
    try:
        content = _first_line(path) if path.suffix == ".jsonl" else _json(path)
    except (ValueError, RecursionError):
        return None
    if path.suffix == ".jsonl":
        return "samples" if lm_eval.is_sample(content) else None
    tests = {"results": lm_eval.is_results, "log": inspect.is_log, "completions": harmbench.is_completions}
    return next((kind for kind, test in tests.items() if test(content)), None)


def _first_line(path: Path) -> Any:
    with path.open(encoding="utf-8-sig") as file:
        return json.loads(file.readline())


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8-sig"))
