"""Two ranks with gloo fit the edit that one process fits, up to rounding."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cli.conftest import run_command, write_settings
from lingualign.edit import Edit
from lingualign.features import ranks

_TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def _distance(edit: Edit, other: Edit) -> float:
    assert edit.base == other.base
    return max(
        float((delta.dense() - other.deltas[name].dense()).norm() / other.deltas[name].dense().norm())
        for name, delta in edit.deltas.items()
    )


@pytest.mark.parametrize(
    ("settings", "options"),
    [('solver = "dual"', ()), ('solver = "primal"\nselection = "paper"\nfraction = 0.5', ("--streamed",))],
)
def test_two_ranks_fit_the_edit_of_one(
    settings: str, options: tuple[str, ...], tiny_model_folder: Path, prompts_file: Path, tmp_path: Path
) -> None:
    file = write_settings(tmp_path / "settings.toml", prompts_file, settings)
    shared = ["edit", str(tiny_model_folder), "--config", str(file), *options, "--out"]
    alone, together = tmp_path / "alone.safetensors", tmp_path / "together.safetensors"
    assert run_command(*shared, alone) == 0
    _launch(*shared, str(together))
    assert _distance(Edit.load(together), Edit.load(alone)) < 1e-5
    # Again from the features that both kept, one of which is lost: no rank waits for another that has more.
    next(iter(together.with_suffix(".features").glob("rows-*"))).unlink()
    together.unlink()
    _launch(*shared, str(together))
    assert _distance(Edit.load(together), Edit.load(alone)) < 1e-5


def _launch(*arguments: str) -> None:
    program = Path(sys.executable).with_name("lingualign")
    done = subprocess.run(
        [*_TORCHRUN, "--no-python", program, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # The first rank alone speaks.
    assert done.stdout.count("Hardware") == 1


def test_a_process_by_itself_has_all() -> None:
    assert (ranks.rank(), ranks.size()) == (0, 1)
    assert ranks.share(["bb", "a", "ccc"], len) == [0, 1, 2]
    assert ranks.largest(3) == 3
    assert ranks.united({"a": 1}) == {"a": 1}
    assert torch.equal(ranks.total(torch.ones(2)), torch.ones(2))
    with ranks.joined() as found:
        assert found == (0, 1)
