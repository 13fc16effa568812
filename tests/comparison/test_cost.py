"""The cost meter: what the block did and nothing else; energy is never made up."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from method_comparison.cost import Cost, metered, read_energy, spent


def test_time_operations_and_memory_of_the_block() -> None:
    with metered("cpu") as meter:
        block = torch.ones(4_000_000, dtype=torch.float64)
        torch.eye(8) @ torch.eye(8)
        time.sleep(0.1)
        del block
    cost = meter.cost
    assert 0.1 <= cost.seconds < 5
    assert cost.cpu_seconds < cost.seconds + 1
    assert cost.flops == cost.product_flops == 2 * 8**3
    assert cost.peak_device_memory is None
    assert cost.peak_memory > 32_000_000


def _package(folder: Path, number: int, energy: str, limit: int) -> None:
    package = folder / f"intel-rapl:{number}"
    package.mkdir(exist_ok=True)
    (package / "energy_uj").write_text(energy)
    (package / "max_energy_range_uj").write_text(str(limit))


def test_energy_is_summed_over_packages_and_counters_may_start_again(tmp_path: Path) -> None:
    _package(tmp_path, 0, "1000000", 9_999_999)
    _package(tmp_path, 1, "9000000", 9_999_999)
    before = read_energy(tmp_path)
    _package(tmp_path, 0, "3000000", 9_999_999)
    _package(tmp_path, 1, "1000000", 9_999_999)
    assert spent(before, read_energy(tmp_path)) == 4.0


def test_energy_that_cannot_be_read_is_not_measured(tmp_path: Path) -> None:
    assert read_energy(tmp_path / "missing") is None
    _package(tmp_path, 0, "not a number", 10)
    assert read_energy(tmp_path) is None
    assert spent(None, None) is None


def test_costs_add_up_but_for_memory() -> None:
    first = Cost(1.5, 2.0, 100, None, 10, 20, 30, 5.0)
    second = Cost(0.5, 1.0, 300, None, 1, 2, 3, None)
    assert first + second == Cost(2.0, 3.0, 300, None, 11, 22, 33, None)
