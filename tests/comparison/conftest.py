"""The file of a tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_up import write_model_file


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    """A model's file: the tiny model, 18 reported prompts of three kinds in three languages."""
    return write_model_file(tmp_path_factory.mktemp("comparison"), tiny_model_folder)
