"""Measuring a machine with one block of a model that has no weights."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest
import torch

import lingualign.speed
from lingualign.models.locate import locate_mlps
from lingualign.plan import _skeleton
from lingualign.speed import OneBlock, measure


@pytest.fixture
def skeleton(tiny_model_folder: Path) -> Any:
    return _skeleton(str(tiny_model_folder))[0]


def test_one_block_runs_with_weights_and_the_model_stays_without(
    skeleton: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlps = locate_mlps(skeleton)
    seen: list[torch.Size] = []
    linear = torch.nn.Linear.forward

    def forward(self: torch.nn.Linear, rows: torch.Tensor) -> torch.Tensor:
        seen.append(rows.shape)
        return linear(self, rows)

    monkeypatch.setattr(torch.nn.Linear, "forward", forward)
    block = OneBlock(skeleton, mlps[2], torch.float32, "cpu")
    block.prompts(3, 5)
    # Four maps of attention and three of the MLP, once each.
    assert len(seen) == 7
    assert {shape[:2] for shape in seen} == {(3, 5)}
    block.read(9)
    block.step(4)
    assert len(seen) == 21
    assert {shape[:2] for shape in seen[14:]} == {(4, 1)}
    block.step(4, whole=False)
    assert len(seen) == 21
    assert all(parameter.is_meta for parameter in skeleton.parameters())


@pytest.mark.parametrize("runs", [True, False])
def test_a_block_that_cannot_run_is_stood_in_for(skeleton: Any, runs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise TypeError

    if not runs:
        monkeypatch.setattr(lingualign.speed, "OneBlock", refuse)
    speed = measure(skeleton, locate_mlps(skeleton), "float32", "cpu", chats=8, past=20)
    assert 0 < speed.token < 1
    assert 0 < speed.head(8) < 1
    assert 0 < speed.logits < 1
    assert 0 < speed.log_probabilities < 1
    assert min(speed.single, speed.double) > 1e6
    assert all(value >= 0 for value in (*astuple(speed.step), *astuple(speed.around)))
    assert (speed.around(8) > 0) == runs
