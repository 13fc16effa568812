"""The cost benchmarks by name: how each is called, and which of its figures have a target."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

#: What a benchmark wrote.
Result = Mapping[str, Any]


@dataclass(frozen=True)
class Ratio:
    """A figure measured in one run, and what it should be.

    Attributes:
        name: what it is.
        value: the figure; a ratio of two seconds or sizes.
        target: what it should be at most, or at least; None where it is only told.
        at_least: which of the two.
    """

    name: str
    value: float
    target: float | None = None
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target


@dataclass(frozen=True)
class CostBenchmark:
    """One script of this folder.

    Attributes:
        name: the script's, without `.py`; its result file is named alike.
        about: one sentence.
        ratios: its figures with targets, from its result.
        quick: arguments that make it short.
        on_gpu: whether it has a GPU variant (`--device`).
        model: `any` for a model that `--model` chooses, or a shape of make_shaped_model.py: its first argument is the
            folder of such a checkpoint.
        data: whether it takes `--data`.
    """

    name: str
    about: str
    ratios: Callable[[Result], list[Ratio]]
    quick: tuple[str, ...] = ()
    on_gpu: bool = True
    model: str = "any"
    data: bool = False

    @property
    def result_name(self) -> str:
        """The result file's name without its ending."""
        return self.name.replace("_", "-")


def _edit_cost(found: Result) -> list[Ratio]:
    ratios = found["ratios_to_pass"]
    return [
        Ratio("reading features / bare pass over the same tokens", ratios["features"], 1.10),
        Ratio("edit without replies / bare pass", ratios["edit"]),
        Ratio("solving and writing / whole edit", found["share_of_solving_and_writing"], 0.05),
    ]


def _export_cost(found: Result) -> list[Ratio]:
    ratios = []
    for name, figures in found["checkpoints"].items():
        of = f"{name}, {figures['bytes'] / 1e9:.1f} GB"
        ratio, peak = figures["ratio_to"], figures["peak_resident_bytes"]
        above = (peak["export"] - peak["python, torch"]) / figures["tensor_bytes"]
        without_start = statistics.median(ratio["cp, start of Python with torch left out"])
        ratios += [
            Ratio(f"{of}: export / cp", statistics.median(ratio["cp"]), 1.2),
            Ratio(f"{of}: the same, start of Python with torch left out", without_start),
            Ratio(f"{of}: peak of the whole process, GB", peak["export"] / 1e9, 1.0),
            Ratio(f"{of}: memory above Python with torch / largest changed tensor", above, 1.0),
        ]
    return ratios


def _streamed_edit(found: Result) -> list[Ratio]:
    resident = max(run["resident_peak_bytes"] for run in found["runs"] if run["side"] == "edit")
    return [
        Ratio("streamed edit / reading and passing the same blocks", found["time_ratio"], 1.3),
        Ratio("peak memory without hidden states / largest block", found["memory_in_blocks"], 1.3),
        Ratio("peak of the whole process, GB", resident / 1e9, 3.0),
    ]


def _streamed_parity(found: Result) -> list[Ratio]:
    return [Ratio("largest difference of a matrix's change, relative", max(found["distance"].values()), 1e-5)]


def _generation(found: Result) -> list[Ratio]:
    # A side that is not timed in this run has no ratio.
    targets = {"single": 5.0, "static": 1.3}
    return [
        Ratio(
            f"{name} / engine, {limit['max_new_tokens']} tokens, {unlike[name]} replies differ",
            value,
            targets.get(name),
            True,
        )
        for limit in found["limits"]
        for unlike in [limit["replies_unlike_the_engine"]]
        for name, value in limit["engine_is_faster_than"].items()
    ]


def _sweep(found: Result) -> list[Ratio]:
    seconds = found["seconds"]
    return [Ratio("a setting / replies and collecting", seconds["a setting"] / seconds["replies and collecting"])]


def _cost_growth(found: Result) -> list[Ratio]:
    ratios = []
    for name, rows in found["series"].items():
        first, last = rows[0], rows[-1]
        # The width's prompts stay; all else adds chats, blocks or both.
        grown = f"{name} {first['size']} to {last['size']}, chats x {last['chats'] / first['chats']:.1f}"
        ratios += [Ratio(f"{part}, {grown}", last[part] / first[part]) for part in ("reading", "solving")]
    return ratios


def _utility_cost(found: Result) -> list[Ratio]:
    perplexity = found["perplexity"]
    return [Ratio("perplexity, seconds a text", perplexity["seconds"] / perplexity["texts"])]


def _plan_accuracy(found: Result) -> list[Ratio]:
    # A GPU's memory is planned where there is one.
    return [
        Ratio(f"plan, {what.removesuffix('_bytes')}: off by", abs(planned / used - 1), 0.25)
        for what, (planned, used) in found["total"].items()
        if used
    ]


COSTS: tuple[CostBenchmark, ...] = (
    CostBenchmark(
        "edit_cost",
        "An edit beyond a bare forward pass over the same tokens.",
        _edit_cost,
        quick=("--rounds", "1", "--fit-seeds", "10"),
    ),
    CostBenchmark(
        "export_cost",
        "An export beside `cp` of the same checkpoint.",
        _export_cost,
        quick=("--rounds", "2", "--gigabytes", "0.5"),
        on_gpu=False,
        model="8b",
    ),
    CostBenchmark(
        "streamed_edit",
        "An edit of a streamed model beyond reading its blocks and passing the same chats.",
        _streamed_edit,
        quick=("--repeats", "1", "--anchors", "8", "--layers", "1,2"),
        model="8b",
    ),
    CostBenchmark(
        "streamed_parity",
        "The edit of a streamed model beside that of the same model in memory.",
        _streamed_parity,
        quick=("--anchors", "8", "--layers", "1,2"),
        model="1b",
    ),
    CostBenchmark(
        "generation",
        "An audit's replies one at a time, in static batches and by the engine.",
        _generation,
        quick=("--repeats", "1", "--seeds", "1", "--max-new-tokens", "8,16"),
    ),
    CostBenchmark(
        "sweep",
        "A sweep of the default grid.",
        _sweep,
        quick=("--layers", "9"),
    ),
    CostBenchmark(
        "cost_growth",
        "How the cost of an edit grows with anchors, edited blocks, languages and width.",
        _cost_growth,
        quick=("--rounds", "1", "--only", "layers"),
    ),
    CostBenchmark(
        "utility_cost",
        "Perplexity of harmless prompts, and XCOPA.",
        _utility_cost,
        quick=("--seeds", "2"),
        data=True,
    ),
    CostBenchmark(
        "plan_accuracy",
        "What `plan` predicts beside what the run then uses.",
        _plan_accuracy,
        quick=("--seeds-per-kind", "2"),
    ),
)
