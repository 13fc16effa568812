"""Parallel harmless texts, an edit of the tiny model, and small files of the layout of the public sets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lingualign.data.schema import Prompt, PromptSet
from lingualign.edit import Edit, LowRankDelta, tensor_fingerprint

TEXTS = {
    "en": ["how do I bake bread at home?", "the quick brown fox", "tell me the steps, please", "a dog"],
    "th": ["วิธีทำขนมปังที่บ้าน", "ขนมปัง", "บอกขั้นตอนหน่อย", "หมา"],
}


@pytest.fixture
def texts() -> PromptSet:
    """Four seeds in two languages; the last seed is missing in Thai."""
    prompts = [
        Prompt(str(seed), language, "harmless", text)
        for language, rows in TEXTS.items()
        for seed, text in enumerate(rows)
    ]
    return PromptSet(prompts[:-1])


@pytest.fixture
def edit_of() -> Callable[[Any, float], Edit]:
    """Makes a random change of one output matrix of a model, of a given size."""

    def make(model: Any, size: float) -> Edit:
        name = "model.layers.2.mlp.down_proj.weight"
        weight = dict(model.named_parameters())[name]
        generator = torch.Generator().manual_seed(0)
        delta = LowRankDelta(
            size * torch.randn(weight.shape[0], 2, generator=generator),
            torch.randn(weight.shape[1], 2, generator=generator),
            (weight.shape[0], weight.shape[1]),
        )
        return Edit({name: delta}, {name: tensor_fingerprint(weight)}, {"method": "test"})

    return make


@pytest.fixture
def xcopa_folder(tmp_path: Path) -> Path:
    """500 made-up items in Estonian and Thai; every Thai flag is wrong."""
    for language, flags in (("et", ("cause", "effect")), ("th", ("effect", "cause"))):
        rows = [
            {
                "premise": f"premise {index}" + ("." if language == "et" else ""),
                "choice1": f"First {index % 7}",
                "choice2": f"Second one {index % 5}",
                "question": flags[index % 2],
                "label": index % 3 % 2,
                "idx": index,
                "changed": False,
            }
            for index in range(500)
        ]
        path = tmp_path / "xcopa" / language / f"test.{language}.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return tmp_path
