"""An edit on a GPU: that of the processor, streamed or not, applied, undone and exported from there."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from plain_anchors import plain_anchors
from safetensors.torch import load_file

from lingualign.edit import Edit
from lingualign.export.checkpoint import export_checkpoint
from lingualign.features.positions import Positions
from lingualign.methods.anchors import Anchors
from lingualign.methods.sparse_weight_edit import SparseWeightEdit
from lingualign.models.load import LoadedModel
from lingualign.models.stages import load_streamed

Load = Callable[[str], LoadedModel]
SETTINGS = {"layers": [1, 2], "rank": 8, "ridge": 0.1, "positions": Positions(template_tokens=2)}


@pytest.fixture
def anchors() -> Anchors:
    return plain_anchors()


def fitted(loaded: LoadedModel, anchors: Anchors, cache: Path | None = None, **settings: Any) -> Edit:
    method = SparseWeightEdit(**{**SETTINGS, **settings})
    return method.fit(loaded.model, loaded.tokenizer, anchors, fingerprint=loaded.fingerprint, cache=cache)


def distance(edit: Edit, other: Edit) -> float:
    """Of the changes of the weights, relative."""
    assert edit.deltas.keys() == other.deltas.keys()
    return max(
        float((edit.deltas[name].dense() - delta.dense()).norm() / delta.dense().norm())
        for name, delta in other.deltas.items()
    )


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"solver": "primal"},
        {"solver": "dual"},
        {"solver": "primal", "null_space": 0.1},
        {"selection": "paper", "fraction": 0.5},
        {"family": "paper", "selection": "random", "fraction": 0.5},
        {"family": "paper", "target": "post"},
        {"family": "residual"},
        {"layers": "auto", "layer_count": 2},
        {"propagation": "none"},
        {"propagation": "split"},
    ],
)
def test_the_edit_is_the_processors(gpu: str, on: Load, anchors: Anchors, settings: dict[str, Any]) -> None:
    assert on(gpu).fingerprint == on("cpu").fingerprint
    assert distance(fitted(on(gpu), anchors, **settings), fitted(on("cpu"), anchors, **settings)) < 1e-3


@pytest.mark.parametrize("prefetch", [True, False])
def test_streamed_it_is_the_whole_models(
    gpu: str, on: Load, anchors: Anchors, tiny_model_folder: Path, tmp_path: Path, prefetch: bool
) -> None:
    streamed = load_streamed(tiny_model_folder, precision="float32", device=gpu, prefetch=prefetch)
    assert distance(fitted(streamed, anchors, tmp_path), fitted(on(gpu), anchors)) < 1e-5


def test_features_of_one_device_serve_the_other(gpu: str, on: Load, anchors: Anchors, tmp_path: Path) -> None:
    edit = fitted(on(gpu), anchors, tmp_path)
    assert fitted(on("cpu"), anchors, tmp_path).fingerprint == edit.fingerprint


def test_it_is_applied_and_undone_bit_exactly(gpu: str, on: Load, anchors: Anchors) -> None:
    loaded = on(gpu)
    edit = fitted(loaded, anchors)
    before = copy.deepcopy(loaded.model.state_dict())
    with edit.applied(loaded.model):
        for name, delta in edit.deltas.items():
            assert torch.allclose(loaded.model.get_parameter(name).cpu(), before[name].cpu() + delta.dense(), atol=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in loaded.model.state_dict().items())


def test_an_export_holds_what_is_applied(
    gpu: str, on: Load, anchors: Anchors, tiny_model_folder: Path, tmp_path: Path
) -> None:
    loaded = on(gpu)
    edit = fitted(loaded, anchors)
    export_checkpoint(tiny_model_folder, edit, tmp_path / "exported")
    written = load_file(tmp_path / "exported" / "model.safetensors")
    with edit.applied(loaded.model):
        for name, value in loaded.model.named_parameters():
            assert torch.allclose(written[name], value.cpu(), atol=1e-6)
