"""All benchmarks by name."""

from __future__ import annotations

from lingualign.data.benchmarks.english import ENGLISH
from lingualign.data.benchmarks.multilingual import MULTILINGUAL
from lingualign.data.benchmarks.over_refusal import OVER_REFUSAL
from lingualign.data.benchmarks.spec import Benchmark
from lingualign.data.benchmarks.utility import UTILITY
from lingualign.errors import DataError

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark for benchmark in (*MULTILINGUAL, *ENGLISH, *OVER_REFUSAL, *UTILITY)
}


def benchmark_named(name: str, part: str | None = None) -> Benchmark:
    """The benchmark of a name.

    Raises:
        DataError: there is none, or it has no such part.
    """
    if name not in BENCHMARKS:
        raise DataError(f"unknown benchmark {name!r}; use one of {', '.join(BENCHMARKS)}")
    benchmark = BENCHMARKS[name]
    if part is not None and part not in benchmark.parts:
        raise DataError(f"{name} has no part {part!r}; use one of {', '.join(benchmark.parts)}")
    return benchmark
