"""Completions and results of HarmBench: `{behavior_id: [{test_case, generation, label}, ...]}` in one JSON file.

`generate_completions.py` writes test cases and generations; `evaluate_completions.py` adds `label`, 1 where its
classifier sees an attack that succeeded, and for some `advbench_label`, 1 where no refusal phrase was found.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter

from lingualign.interop.samples import ResultFile, Sample

NAME = "harmbench"


class _Completion(BaseModel):
    # Multimodal test cases are pairs of an image and a text.
    test_case: str | list[Any]
    generation: str
    label: int | None = None
    advbench_label: int | None = None


_FILE = TypeAdapter(dict[str, list[_Completion]])


def is_completions(content: Any) -> bool:
    """Whether a JSON document holds completions of HarmBench."""
    return (
        isinstance(content, dict)
        and bool(content)
        and all(isinstance(cases, list) for cases in content.values())
        and any(isinstance(case, dict) and "generation" in case for cases in content.values() for case in cases)
    )


def read_completions(path: Path, content: Any) -> ResultFile:
    """The replies of a file; all its prompts are harmful. The file's name stands in for a task's.

    Raises:
        ValueError: the content has another shape.
    """
    samples = []
    for behaviour, completions in _FILE.validate_python(content).items():
        for completion in completions:
            case = completion.test_case
            prompt = case if isinstance(case, str) else str(case[-1]) if case else ""
            labels = {"ASR (label)": completion.label, "ASR (advbench_label)": completion.advbench_label}
            samples.append(
                Sample(
                    task=path.stem,
                    sample_id=behaviour,
                    prompt=prompt,
                    reply=completion.generation,
                    finished=True,
                    fields={},
                    scores={name: float(label == 1) for name, label in labels.items() if label is not None},
                    kind="harmful",
                )
            )
    return ResultFile(path, NAME, samples=tuple(samples))
