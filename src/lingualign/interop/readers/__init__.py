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
            file = _read_file(path)
            if file is None:
                raise DataError(f"{path}: of no known format; lingualign reads {_FORMATS}, and its own run folders")
            found.append(file)
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
    found = [file for path in latest.values() if (file := _read_file(path))]
    if not found:
        raise DataError(f"{folder}: no result file in it; lingualign reads {_FORMATS}, and its own run folders")
    return found


def _read_file(path: Path) -> ResultFile | None:
    """The content of a file, or None where it is of no known format."""
    try:
        content = _opened(path)
    except (ValueError, RecursionError):
        return None
    try:
        if path.suffix == ".eval" or inspect.is_log(content):
            return inspect.read_log(path)
        if lm_eval.is_sample(content):
            return lm_eval.read_samples(path)
        if lm_eval.is_results(content):
            return lm_eval.read_results(path, content)
        if harmbench.is_completions(content):
            return harmbench.read_completions(path, content)
    except ValidationError as error:
        # Without the offending input, which may be anything.
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(step)[:40] for step in first["loc"])
        raise DataError(f"{path}: damaged at {where!a} ({first['type']}); write the file again") from None
    except (ValueError, OverflowError, RecursionError) as error:
        raise DataError(f"{path}: damaged ({str(error)[:120]!a}); write the file again") from None
    return None


def _opened(path: Path) -> Any:
    """A JSON document, the first line of JSON lines, or None for any other file."""
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8-sig"))
    if path.suffix == ".jsonl":
        with path.open(encoding="utf-8-sig") as file:
            return json.loads(file.readline())
    return None
