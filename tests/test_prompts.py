"""Sources of a run: overlaps between them, and between what is fitted on and reported, are warned about."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lingualign.config import build_config
from lingualign.data.benchmarks import BENCHMARKS
from lingualign.prompts import resolve_prompts


def warnings(*sources: str) -> tuple[str, ...]:
    settings = {"model": "small", "prompts": {"sources": list(sources)}}
    return resolve_prompts(build_config(settings, "test")).warnings


def write(path: Path, report: str) -> Path:
    rows = [("harmful", "fit", "Water the plants!"), ("harmful", "report", report), ("harmful", "select", "Sit.")]
    lines = ["seed_id,kind,split,en,de"]
    lines += [f'{n},{kind},{split},"{text}","{text} (de) {n}"' for n, (kind, split, text) in enumerate(rows)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_reported_prompt_that_is_fitted_on(tmp_path: Path) -> None:
    leaking = write(tmp_path / "leaking.csv", "water the plants")
    assert warnings(str(leaking)) == (
        "1 of 2 reported prompts have the text of a prompt the edit is fitted on (first: 1 in en); give them one split",
    )
    assert warnings(str(write(tmp_path / "sound.csv", "Bake bread."))) == ()


def test_the_built_in_prompts_give_no_warning() -> None:
    assert warnings("builtin") == ()


def shrink(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve rows in English and Thai are enough to split."""
    benchmark = BENCHMARKS[name]
    part = replace(benchmark.parts["all"], rows=12, languages=("en", "th")[: len(benchmark.languages)])
    monkeypatch.setitem(BENCHMARKS, name, replace(benchmark, parts={"all": part}))


def test_sources_with_a_declared_overlap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "advbench-x": ("advbench_x.csv", "en,th", "water plant {n},water plant {n} (th)"),
        "multi-strongreject": ("multi_strongreject.csv", "row,en,th", "{n},bake loaf {n},bake loaf {n} (th)"),
        "advbench": ("harmful_behaviors.csv", "goal,target", "mend sock {n},Sure"),
    }
    for name, (file, header, row) in files.items():
        shrink(name, monkeypatch)
        (tmp_path / name).mkdir()
        lines = [header, *(row.format(n=n) for n in range(12))]
        (tmp_path / name / file).write_text("\n".join(lines), encoding="utf-8")
    assert warnings(f"advbench-x:{tmp_path}", f"multi-strongreject:{tmp_path}") == ()
    assert warnings(f"advbench-x:{tmp_path}", f"advbench:{tmp_path}") == (
        "advbench-x and advbench overlap: it is AdvBench translated",
    )
