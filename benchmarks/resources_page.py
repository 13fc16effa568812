"""Writes docs/resources.md, what everything costs, from the results of the cost benchmarks.

python benchmarks/resources_page.py
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cost_benchmarks import COSTS, CostBenchmark, Ratio, Result
from results_file import RESULTS
from shapes import SHAPES

PAGE = Path(__file__).parents[1] / "docs" / "resources.md"
MISSING = "-"
Row = Sequence[object]
#: A device's name and the results of the benchmarks that ran on it.
Device = tuple[str, dict[str, Any]]

_INTRODUCTION = """\
# What it costs

Written by `python benchmarks/resources_page.py` from `benchmarks/results`; a test holds it in step. `python
benchmarks/run_all.py [--device cuda]` runs all and prints the ratios. Every ratio is of one run: both sides ran in
turns, in one process or as processes of their own, on one machine. Seconds are of the named hardware and tell nothing
of another; ratios tell more.
"""


#: Why the costs grow as they do.
_GROWTH = """
Reading is linear in the chats' tokens and in the weights that they pass, which grow with the square of the width. With
blocks it grows more slowly than their number: whatever is edited, all chats pass the blocks up to the last edited one;
each edited block adds second moments and the rows that are read. Solving is linear in the edited blocks. With chats it
grows more slowly, since only sums over rows do, and not the factorisations. With the width it grows between linearly
and as its square here, where rows are fewer than activations (the dual form); the primal form's factorisations grow
with the cube, and are used where rows are more.
"""


def table(head: Row, rows: Sequence[Row]) -> str:
    """A Markdown table; figures are right of the first column."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def seconds(value: float) -> str:
    """Three figures are what a clock on a shared machine is good for."""
    return f"{value:.3g} s" if value < 100 else f"{value:.0f} s"


def size(value: float) -> str:
    return f"{value / 1e9:.2f} GB" if value >= 1e9 else f"{value / 1e6:.1f} MB"


def _edit_cost(found: Result) -> list[str]:
    rows = [
        (name, seconds(statistics.median(value) if isinstance(value, list) else value))
        for name, value in found["seconds"].items()
    ]
    about = f"{found['tokens']:,} tokens, {found['pairs']} pairs, {found['keep']} prompts to keep."
    return [about, table(("part", "median"), rows)]


def _export_cost(found: Result) -> list[str]:
    parts = []
    for name, figures in found["checkpoints"].items():
        peak = figures["peak_resident_bytes"]
        rows = [
            (f"`{process}`", seconds(statistics.median(value)), size(peak[process]))
            for process, value in figures["seconds"].items()
        ]
        changed = f"{figures['tensors_changed']} changed tensors of at most {size(figures['tensor_bytes'])}"
        parts += [f"`{name}`: {size(figures['bytes'])}; {changed}.", table(("process", "median", "peak memory"), rows)]
    return parts


def _streamed_edit(found: Result) -> list[str]:
    runs = found["runs"]
    rows = [
        (
            side,
            seconds(min(run["seconds"] for run in runs if run["side"] == side)),
            size(max(run["peak_bytes"] for run in runs if run["side"] == side)),
            size(max(run["resident_peak_bytes"] for run in runs if run["side"] == side)),
            max(run["block_loads"] for run in runs if run["side"] == side),
        )
        for side in ("pass", "edit")
    ]
    blocks = f"{found['model']['num_hidden_layers']} blocks, the largest {size(runs[0]['block_bytes'])}"
    about = f"{blocks}; layers {', '.join(map(str, found['layers']))}; hidden states {size(runs[0]['hidden_bytes'])}."
    return [about, table(("side", "fastest", "peak memory of the model", "of the process", "blocks read"), rows)]


def _streamed_parity(found: Result) -> list[str]:
    rows = [(f"`{name}`", f"{value:.1e}") for name, value in found["distance"].items()]
    smallest = f"changes of Frobenius norm {found['smallest_norm']:.3g} or more"
    about = f"{found['anchors']} pairs, {found['precision']}; {smallest}."
    return [about, table(("matrix", "‖streamed − in memory‖ / ‖in memory‖"), rows)]


def _generation(found: Result) -> list[str]:
    parts = []
    for limit in found["limits"]:
        unlike = limit["replies_unlike_the_engine"]
        rows = [
            (f"`{name}`", seconds(min(value)), f"{limit['prompts'] / min(value):.1f}", unlike.get(name, MISSING))
            for name, value in limit["seconds"].items()
        ]
        cut = f"{limit['replies_cut_at_the_limit']} cut at {limit['max_new_tokens']}"
        parts += [
            f"{limit['prompts']} prompts, {limit['reply_tokens']:,} reply tokens, {cut}, {found['precision']}, batches "
            f"of {found['batch_size']}.",
            table(("side", "fastest", "prompts a second", "replies unlike the engine's"), rows),
        ]
    return parts


def _sweep(found: Result) -> list[str]:
    rows = [
        (name, seconds(value)) for part in ("seconds", "seconds of one matrix") for name, value in found[part].items()
    ]
    about = (
        f"{found['settings']} settings over {found['blocks']} blocks from {found['solves per matrix']} solves of each."
    )
    return [about, table(("part", "time"), rows)]


def _cost_growth(found: Result) -> list[str]:
    rows = [
        (name, row["size"], row["chats"], seconds(row["reading"]), seconds(row["solving"]))
        for name, series in found["series"].items()
        for row in series
    ]
    return [_GROWTH.strip(), table(("what grows", "size", "chats", "reading", "solving"), rows)]


def _utility_cost(found: Result) -> list[str]:
    rows = [("perplexity", f"{found['perplexity']['texts']} texts", seconds(found["perplexity"]["seconds"]))]
    if "XCOPA" in found:
        rows.append(("XCOPA", f"{found['XCOPA']['documents']} documents", seconds(found["XCOPA"]["seconds"])))
    return [table(("what", "of", "time"), rows)]


def _plan_accuracy(found: Result) -> list[str]:
    shown: dict[str, Callable[[float], str]] = {"seconds": seconds}
    rows = []
    for stage, figures in {**found["stages"], "whole run": found["total"]}.items():
        for what, (planned, used) in figures.items():
            show = shown.get(what, size)
            name = what.removesuffix("_bytes")
            rows.append((stage, name, show(planned), show(used), f"{planned / used:.2f}" if used else MISSING))
    about = f"{found['prompts']} audited prompts."
    return [about, table(("stage", "of", "planned", "used", "planned / used"), rows)]


TABLES: dict[str, Callable[[Result], list[str]]] = {
    "edit_cost": _edit_cost,
    "export_cost": _export_cost,
    "streamed_edit": _streamed_edit,
    "streamed_parity": _streamed_parity,
    "generation": _generation,
    "sweep": _sweep,
    "cost_growth": _cost_growth,
    "utility_cost": _utility_cost,
    "plan_accuracy": _plan_accuracy,
}


def read_results(folder: Path) -> list[Device]:
    """What was measured, the CPU first, then GPUs by name."""
    places = [("CPU", folder), *((path.name, path) for path in sorted(folder.iterdir()) if path.is_dir())]
    return [
        (
            name,
            {
                benchmark.name: json.loads(path.read_text(encoding="utf-8"))
                for benchmark in COSTS
                if (path := place / f"{benchmark.result_name}.json").is_file()
            },
        )
        for name, place in places
    ]


def _targets(devices: Sequence[Device]) -> str:
    rows = []
    for benchmark in COSTS:
        for name, results in devices:
            if benchmark.name in results:
                rows += [
                    (f"`{benchmark.name}`", name, *_with_target(ratio))
                    for ratio in benchmark.ratios(results[benchmark.name])
                ]
    return table(("benchmark", "device", "figure", "value", "target", "met"), rows)


def _with_target(ratio: Ratio) -> Row:
    if ratio.target is None:
        return (ratio.name, f"{ratio.value:.3g}", MISSING, MISSING)
    bound = f"{'≥' if ratio.at_least else '≤'} {ratio.target:g}"
    return (ratio.name, f"{ratio.value:.3g}", bound, "yes" if ratio.met else "**no**")


def _section(benchmark: CostBenchmark, devices: Sequence[Device]) -> list[str]:
    parts = [f"## `{benchmark.name}`", benchmark.about]
    measured = [(name, results[benchmark.name]) for name, results in devices if benchmark.name in results]
    for name, found in measured:
        model = found.get("model")
        of = f", model `{model}`" if isinstance(model, str) else ""
        parts += [
            f"**{name}**: {found['hardware']}, torch {found['versions']['torch']}{of}. {_command(benchmark, name)}"
        ]
        parts += TABLES[benchmark.name](found)
    return parts if measured else [*parts, f"Not measured yet. {_command(benchmark, 'CPU')}"]


def _command(benchmark: CostBenchmark, device: str) -> str:
    arguments = " FOLDER" if benchmark.model in SHAPES else ""
    return f"`python benchmarks/{benchmark.name}.py{arguments}{'' if device == 'CPU' else ' --device cuda'}`"


def render(devices: Sequence[Device]) -> str:
    """The page."""
    parts = [_INTRODUCTION.strip(), "## Figures and targets", _targets(devices)]
    for benchmark in COSTS:
        parts += _section(benchmark, devices)
    return "\n\n".join(parts) + "\n"


def write_page() -> Path:
    """Writes the page from the results in git."""
    PAGE.write_text(render(read_results(RESULTS)), encoding="utf-8")
    return PAGE


if __name__ == "__main__":
    print(write_page())
