"""What a fit costs: time, processor time, memory, floating-point operations, energy. What cannot be read is None."""

from __future__ import annotations

import contextlib
import operator
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from lingualign.hardware import peak_memory
from method_comparison.flops import FlopCounter

#: Counters of Intel's and AMD's processors, one for each package; usually readable by root only.
RAPL = Path("/sys/class/powercap")


@dataclass(frozen=True, slots=True)
class Cost:
    """What a piece of work cost.

    Of a fit that was made on another machine time, memory and energy are None: they compare with nothing here.

    Attributes:
        seconds: wall-clock time, counting of operations included (one or two microseconds for each call into PyTorch).
        cpu_seconds: of all threads of this process and of its finished children.
        peak_memory: bytes resident in main memory at most, the model and what was there before included.
        peak_device_memory: bytes allocated on the GPU at most; None without one.
        product_flops, backward_flops, factorisation_flops: see `FlopCounter`.
        joules: of the processor's packages, with all else that ran on them; None where the counters cannot be read,
            and on a GPU, whose energy they leave out.
    """

    seconds: float | None
    cpu_seconds: float | None
    peak_memory: int | None
    peak_device_memory: int | None
    product_flops: int
    backward_flops: int
    factorisation_flops: int
    joules: float | None

    @property
    def elsewhere(self) -> Cost:
        """The same for another machine."""
        return replace(self, seconds=None, cpu_seconds=None, peak_memory=None, peak_device_memory=None, joules=None)

    @property
    def flops(self) -> int:
        return self.product_flops + self.backward_flops + self.factorisation_flops

    def __add__(self, other: Cost) -> Cost:
        """Of one piece of work after another; what was measured of one alone is None."""

        def merged(combine: Callable[..., Any], one: Any, two: Any) -> Any:
            return None if one is None or two is None else combine(one, two)

        # Both were in memory one after the other.
        rules: dict[str, Callable[..., Any]] = {
            field.name: max if "memory" in field.name else operator.add for field in fields(self)
        }
        return Cost(**{name: merged(rule, getattr(self, name), getattr(other, name)) for name, rule in rules.items()})


class Meter:
    """Holds the cost once its block has ended."""

    cost: Cost


@contextlib.contextmanager
def metered(device: str) -> Iterator[Meter]:
    """Measures the work in a `with` block.

    Args:
        device: where the model is.
    """
    meter, counter = Meter(), FlopCounter()
    gpu = device.startswith("cuda")
    if gpu:
        torch.cuda.synchronize(device)
    energy, cpu, start = read_energy(), _cpu_seconds(), time.perf_counter()
    with peak_memory() as peak, counter:
        yield meter
        if gpu:
            torch.cuda.synchronize(device)
    meter.cost = Cost(
        seconds=round(time.perf_counter() - start, 3),
        cpu_seconds=round(_cpu_seconds() - cpu, 3),
        peak_memory=peak.resident,
        peak_device_memory=peak.device if gpu else None,
        product_flops=counter.products,
        backward_flops=counter.backward,
        factorisation_flops=counter.factorisations,
        joules=None if gpu else spent(energy, read_energy()),
    )


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def read_energy(folder: Path = RAPL) -> dict[str, tuple[int, int]] | None:
    """Microjoules and the value at which the counter starts again, by package; None where there is none to read."""
    found = {}
    try:
        for package in sorted(folder.glob("intel-rapl:[0-9]")):
            energy, limit = (int((package / name).read_text()) for name in ("energy_uj", "max_energy_range_uj"))
            found[package.name] = (energy, limit)
    except (OSError, ValueError):
        return None
    return found or None


def spent(before: dict[str, tuple[int, int]] | None, after: dict[str, tuple[int, int]] | None) -> float | None:
    """Joules between two readings. A counter that went once around is put right, one that did so twice is not."""
    if not before or not after:
        return None
    return sum((after[name][0] - was) % (limit + 1) for name, (was, limit) in before.items()) / 1e6
