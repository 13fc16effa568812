"""The plan of a tiny model: sizes by stage, and what the run then leaves."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from cli.conftest import Command
from lingualign.cli.show import plan_lines
from lingualign.config import build_config, read_toml
from lingualign.errors import NotEnoughMemory, UnsupportedModel
from lingualign.hardware import peak_memory
from lingualign.plan import LATER_BYTES, Job, Plan, make_plan
from lingualign.prompts import resolve_prompts
from lingualign.speed import Line, Speed
from tiny_sizes import SMALL


@pytest.fixture
def plan(tiny_model_folder: Path, settings_file: Path, tmp_path: Path) -> Plan:
    config = build_config({**read_toml(settings_file), "model": str(tiny_model_folder), "device": "cpu"})
    return make_plan(config, resolve_prompts(config), tmp_path / "run")


def test_stages_are_those_of_the_run(plan: Plan, finished_run: Path) -> None:
    recorded = json.loads((finished_run / "run.json").read_text())
    planned = [stage.name for stage in plan.stages]
    assert planned == ["loading", "audit before", "edit", "audit after", "utility before", "utility after"]
    # The second judge is not planned.
    assert recorded["timings"].keys() - {"second judge"} == set(planned) - {"loading"}
    assert recorded["memory"].keys() == recorded["timings"].keys()
    assert all(0 < peak["resident"] < 2**33 and peak["device"] == 0 for peak in recorded["memory"].values())


def test_disk_is_what_the_fit_leaves(plan: Plan, finished_run: Path) -> None:
    files = [*(finished_run / "features").glob("*.safetensors"), finished_run / "edit.safetensors"]
    # A header, which the plan does not count, lies before the tensors.
    tensors = sum(file.stat().st_size - 8 - int.from_bytes(file.read_bytes()[:8], "little") for file in files)
    (edit,) = (stage for stage in plan.stages if stage.name == "edit")
    replies = edit.disk_bytes - tensors
    assert 0 <= replies < 40_000


def test_memory_is_the_process_the_weights_and_the_stage(plan: Plan) -> None:
    least = plan.process_bytes + LATER_BYTES + plan.parameters * torch.finfo(getattr(torch, plan.dtype)).bits // 8
    assert all(stage.memory_bytes >= least for stage in plan.stages if stage.name != "loading")
    assert plan.memory_bytes == max(stage.memory_bytes for stage in plan.stages)
    assert (plan.device_bytes, plan.free_device_bytes) == (0, 0)
    assert plan.disk_bytes == sum(stage.disk_bytes for stage in plan.stages)


def test_a_mixture_without_a_shared_expert(tiny_model_folder: Path, settings_file: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_folder)
    folder = tmp_path / "mixtral"
    config = AutoConfig.for_model("mixtral", **SMALL, vocab_size=len(tokenizer), num_local_experts=2)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)

    def planned(family: str, job: Job) -> Plan:
        edit = {"family": family, "layers": [0, 1], "positions": {"reply_tokens": 0}}
        settings = build_config({**read_toml(settings_file), "model": str(folder), "device": "cpu", "edit": edit})
        return make_plan(settings, resolve_prompts(settings), tmp_path / "run", job)

    with pytest.raises(UnsupportedModel, match=r"edit the attention \(family = 'attention'\)$"):
        planned("output", "run")
    assert {stage.name for stage in planned("attention", "run").stages} >= {"edit", "audit after"}
    # What is verified may be a steering, which needs nothing to edit.
    assert "audit after" in {stage.name for stage in planned("output", "verify").stages}


def test_a_measurement_beside_other_work_is_told(plan: Plan) -> None:
    assert plan.disturbed < 1.5
    quiet, busy = (plan_lines(replace(plan, disturbed=share)) for share in (0.0, 0.5))
    assert [line for line in busy if line not in quiet] == [
        f"{line}; measured beside other work, so it may be less" for line in quiet if line.startswith("Time")
    ]


def test_a_gpu_that_is_too_small_is_told_apart(plan: Plan) -> None:
    plan.check()
    small = replace(plan, stages=(replace(plan.stages[1], device_bytes=2**40),), free_device_bytes=2**30)
    with pytest.raises(NotEnoughMemory, match="of GPU memory and"):
        small.check()


def test_peak_memory_is_seen() -> None:
    with peak_memory() as peak:
        before = peak.resident
        torch.ones(2**26)
    # A quarter of a gigabyte came and went.
    assert peak.resident > before + 2**27


def test_time_grows_with_what_is_read_and_written() -> None:
    speed = Speed(
        token=1e-3,
        step=Line(0.1, 0.01),
        around=Line(0.2, 0.0),
        head=Line(0.3, 0.02),
        logits=0.03,
        log_probabilities=1e-2,
        single=1e9,
        double=1e9,
    )
    assert Line(0.1, 0.01)(11) == pytest.approx(0.2)
    assert Line(0.1, 0.01).less(Line(0.04, 0.02)) == Line(pytest.approx(0.06), 0.0)
    # 100 tokens through 2 blocks, two batches of heads, and 2 x 4 steps of ten chats.
    step = 0.2 + 2 * (0.1 + 9 * 0.01) + (0.3 + 9 * 0.02)
    expected = 100 * 2 * 1e-3 + 2 * (0.3 + 9 * 0.02) + 2 * 4 * step
    assert speed.answering(100, 20, 5, blocks=2, batch=10) == pytest.approx(expected)
    assert speed.answering(0, 0, 5, blocks=2, batch=10) == 0.0
    assert speed.scoring(100, 2) == pytest.approx(100 * 2 * 1e-3 + 100 * (0.03 + 1e-2))


def test_every_stage_is_shown(command: Command, tiny_model_folder: Path, settings_file: Path, tmp_path: Path) -> None:
    outcome = command("plan", tiny_model_folder, "--config", settings_file, "--out", tmp_path / "run")
    assert outcome.code == 0
    lines = outcome.stdout.splitlines()
    (head,) = (index for index, line in enumerate(lines) if line.startswith("Stages"))
    assert lines[head].split() == ["Stages", "time", "memory", "disk"]
    shown = [line[10:26].strip() for line in lines[head + 1 : head + 7]]
    assert shown == ["loading", "audit before", "edit", "audit after", "utility before", "utility after"]
