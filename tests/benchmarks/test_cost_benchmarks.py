"""The cost benchmarks: all are known to the one command, and docs/resources.md is that of the results in git."""

from __future__ import annotations

from pathlib import Path

import pytest
from cost_benchmarks import COSTS, Ratio
from resources_page import PAGE, TABLES, read_results, render
from results_file import RESULTS, device_folder, result_file, shown_model
from run_all import table

#: What is no cost benchmark: measurements of quality, and what the benchmarks share.
_QUALITY = {
    "causal_checks",
    "choose_defaults",
    "coverage",
    "ideas",
    "judge_checks",
    "label_small_model",
    "neuron_scores",
    "probe_ceiling",
    "separation",
}
_SHARED = {"cost_benchmarks", "make_shaped_model", "resources_page", "results_file", "run_all", "shapes"}


def test_the_page_is_that_of_the_results() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(read_results(RESULTS))


def test_every_script_is_known() -> None:
    scripts = {path.stem for path in RESULTS.parent.glob("*.py")}
    known = [benchmark.name for benchmark in COSTS]
    assert scripts == {*known, *_QUALITY, *_SHARED}
    assert list(TABLES) == known


def test_every_cost_benchmark_takes_a_device_and_writes_where_the_page_reads() -> None:
    for benchmark in COSTS:
        text = (RESULTS.parent / f"{benchmark.name}.py").read_text(encoding="utf-8")
        assert f'result_file("{benchmark.result_name}"' in text
        assert ('"--device"' in text) == benchmark.on_gpu
        assert ('"--model"' in text) == (benchmark.model == "any")
        assert all(argument in text for argument in benchmark.quick if argument.startswith("--"))


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("NVIDIA H100 80GB HBM3", "nvidia-h100"),
        ("NVIDIA A100-SXM4-40GB", "nvidia-a100"),
        ("NVIDIA GeForce RTX 4090", "nvidia-geforce-rtx-4090"),
        ("NVIDIA Graphics Device", "nvidia-graphics-device"),
    ],
)
def test_a_gpu_has_a_folder_of_its_own(name: str, folder: str) -> None:
    assert device_folder(name) == folder


def test_results_name_no_path_of_this_machine(tmp_path: Path) -> None:
    assert result_file("sweep", "cpu") == RESULTS / "sweep.json"
    assert shown_model("small") == "small"
    assert shown_model("Qwen/Qwen2.5-0.5B-Instruct") == "Qwen/Qwen2.5-0.5B-Instruct"
    assert shown_model(str(tmp_path)) == tmp_path.name


def test_ratios_are_held_against_their_targets() -> None:
    most, least, told = Ratio("a", 1.2, 1.1), Ratio("b", 6.0, 5.0, at_least=True), Ratio("c", 2.0)
    assert (most.met, least.met, told.met) == (False, True, None)
    lines = table([("x", most), ("x", least), ("y", told)]).splitlines()
    assert [line.split() for line in lines] == [
        ["benchmark", "ratio", "value", "target", "met"],
        ["x", "a", "1.200", "<=", "1.10", "no"],
        ["x", "b", "6.000", ">=", "5.00", "yes"],
        ["y", "c", "2.000"],
    ]
