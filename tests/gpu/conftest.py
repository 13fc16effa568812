"""Tests here need a GPU: `pytest -m gpu`. They compare it with the processor on tiny random models in float32.

`LINGUALIGN_TEST_DEVICE=cpu` runs them without one, to see that they run; then they prove nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lingualign.models.load import LoadedModel, load_model


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(scope="session")
def gpu() -> str:
    """The device that is tested."""
    device = os.environ.get("LINGUALIGN_TEST_DEVICE", "cuda")
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    return device


@pytest.fixture
def on(tiny_model_folder: Path) -> Callable[[str], LoadedModel]:
    """Loads the tiny model on a device."""

    def load(device: str, **options: Any) -> LoadedModel:
        return load_model(str(tiny_model_folder), **{"precision": "float32", **options}, device=device)

    return load
