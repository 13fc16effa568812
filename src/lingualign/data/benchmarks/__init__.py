"""Public benchmarks behind one interface: what they are, how they are read, how they overlap."""

from lingualign.data.benchmarks.load import load_benchmark
from lingualign.data.benchmarks.registry import BENCHMARKS
from lingualign.data.benchmarks.spec import Benchmark, Part

__all__ = ["BENCHMARKS", "Benchmark", "Part", "load_benchmark"]
