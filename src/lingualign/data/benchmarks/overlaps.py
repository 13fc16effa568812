"""Which benchmarks hold each other's prompts. Mixed, such rows count twice; fitted on and reported, they flatter.

Counts marked "measured" are by `lingualign data check A:FOLDER B:FOLDER` on the English texts (`data.similarity`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lingualign.data.benchmarks.registry import BENCHMARKS


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two benchmarks, or parts NAME/PART of them, and what they share."""

    first: str
    second: str
    what: str


OVERLAPS: tuple[Overlap, ...] = (
    Overlap("polyrefuse/harmful_test", "strongreject", "all 313 StrongREJECT prompts are in it, translated"),
    Overlap("polyrefuse/harmful_test", "multi-strongreject", "both translate StrongREJECT's 313 prompts"),
    Overlap("polyrefuse/harmful_test", "harmbench", "159 of its prompts are HarmBench's"),
    Overlap("polyrefuse/harmful_test", "jailbreakbench/harmful", "all 100 behaviours are in it, translated"),
    Overlap("polyrefuse/harmful_test", "advbench", "41 of its prompts resemble AdvBench's (measured)"),
    Overlap("polyrefuse/harmful_train", "advbench", "117 of its 260 prompts are AdvBench's (measured)"),
    Overlap("polyrefuse/harmful_train", "polyrefuse/harmful_test", "10 prompts resemble each other (measured)"),
    Overlap("polyrefuse/harmful_train", "jailbreakbench/harmful", "6 prompts resemble each other (measured)"),
    Overlap("polyrefuse/harmful_val", "harmbench", "its 39 prompts are HarmBench's (measured)"),
    Overlap("polyrefuse/harmful_val", "polyrefuse/harmful_test", "4 prompts resemble each other (measured)"),
    Overlap("polyrefuse/harmful_train", "advbench-x", "117 of its 260 prompts are AdvBench's (measured)"),
    Overlap("polyrefuse/harmful_train", "multilingual-advbench", "117 of its 260 prompts are AdvBench's (measured)"),
    Overlap("multi-strongreject", "strongreject", "it is StrongREJECT translated"),
    Overlap("advbench", "strongreject", "26 StrongREJECT prompts resemble AdvBench's (measured)"),
    Overlap("advbench-x", "advbench", "it is AdvBench translated"),
    Overlap("multilingual-advbench", "advbench", "it is AdvBench translated"),
    Overlap("advbench-x", "multilingual-advbench", "both translate AdvBench"),
    Overlap("csrt", "multijail", "its prompts are MultiJail's, mixed between languages"),
    Overlap("jailbreakbench/harmful", "advbench", "18 of its 100 behaviours come from AdvBench"),
    Overlap("jailbreakbench/harmful", "harmbench", "27 of its 100 behaviours come from TDC and HarmBench"),
    Overlap("mpo-preference", "mlc", "both draw on PKU-SafeRLHF; 2 prompts resemble each other (measured)"),
    Overlap("overrefusal-en/or_bench_hard_train", "or-bench", "it is 1,055 of OR-Bench's 1,319 hard prompts"),
    Overlap("overrefusal-en/or_bench_hard_val", "or-bench", "it is 132 of OR-Bench's 1,319 hard prompts"),
    Overlap("overrefusal-en/or_bench_hard_test", "or-bench", "it is 132 of OR-Bench's 1,319 hard prompts"),
    Overlap("or-bench/hard", "or-bench/all", "`all` holds `hard`"),
)


def overlaps_of(name: str) -> list[Overlap]:
    """The declared overlaps that name a benchmark or a part of it."""
    return [overlap for overlap in OVERLAPS if name in {_benchmark(overlap.first), _benchmark(overlap.second)}]


def overlap_warnings(names: Sequence[str]) -> list[str]:
    """One line for each declared overlap among sources that are mixed.

    Args:
        names: NAME or NAME/PART; what is no benchmark overlaps with nothing that we know of.
    """
    used = {part for name in names for part in _parts(name)}
    return [
        f"{overlap.first} and {overlap.second} overlap: {overlap.what}"
        for overlap in OVERLAPS
        if _parts(overlap.first) & used and _parts(overlap.second) & used
    ]


def _benchmark(name: str) -> str:
    return name.partition("/")[0]


def _parts(name: str) -> set[str]:
    """NAME/PART for each part that a name stands for."""
    if "/" in name or name not in BENCHMARKS:
        return {name}
    return {f"{name}/{part}" for part in BENCHMARKS[name].parts}
