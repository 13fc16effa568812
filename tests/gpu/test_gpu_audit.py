"""Audits and measures on a GPU: the processor's replies and figures, and no crash where the memory is too small."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from plain_anchors import plain_anchors

from lingualign.data.schema import Prompt
from lingualign.evaluate.causal import neurons_switched_off
from lingualign.evaluate.engine import TransformersEngine
from lingualign.evaluate.separation import refusal_scores
from lingualign.evaluate.utility.divergence import prompt_divergences
from lingualign.evaluate.utility.perplexity import score_texts
from lingualign.features.positions import Positions
from lingualign.methods.sparse_weight_edit import SparseWeightEdit
from lingualign.models.chat import encode_chats
from lingualign.models.load import LoadedModel

Load = Callable[[str], LoadedModel]
TEXTS = [f"please tell me about bread {'and the lazy dog ' * (number % 4)}{number}" for number in range(13)]
METHOD = SparseWeightEdit(layers=[1], rank=4, positions=Positions(template_tokens=2))
PROMPTS = [Prompt(str(number), "en", "harmless", text) for number, text in enumerate(TEXTS)]


def replies(loaded: LoadedModel, size: Any, texts: list[str] = TEXTS) -> list[list[int]]:
    # So many end markers that replies end in different places.
    loaded.model.generation_config.eos_token_id = list(range(2, len(loaded.tokenizer), 9))
    engine = TransformersEngine(loaded.model, loaded.tokenizer, max_new_tokens=12, batch_size=size)
    return engine.reply_ids(encode_chats(loaded.tokenizer, texts))


@pytest.mark.parametrize("size", [1, 4, 64, "auto"])
def test_replies_are_the_processors(gpu: str, on: Load, size: Any) -> None:
    found = replies(on(gpu), size)
    assert found == replies(on("cpu"), 1)
    assert len({len(reply) for reply in found}) > 2


@pytest.fixture
def little_memory(gpu: str) -> Iterator[None]:
    """A GPU with 200 MB more than are in use."""
    if gpu == "cpu":
        pytest.skip("the processor's memory cannot be limited")
    torch.cuda.empty_cache()
    room = torch.cuda.memory_reserved() + 200 * 1024**2
    torch.cuda.set_per_process_memory_fraction(room / torch.cuda.get_device_properties(0).total_memory)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_batch_too_large_is_halved_until_it_fits(gpu: str, on: Load, little_memory: None) -> None:
    del little_memory
    texts = [f"{'and the lazy dog ' * 20}{number % 40}" for number in range(4000)]
    loaded = on(gpu)
    # Fails where the memory is not too small after all.
    loaded.model.generation_config.eos_token_id = list(range(2, len(loaded.tokenizer), 9))
    engine = TransformersEngine(loaded.model, loaded.tokenizer, max_new_tokens=4, batch_size=4000)
    found = engine.reply_ids(encode_chats(loaded.tokenizer, texts))
    assert isinstance(engine.batch_size, int)
    assert 1 < engine.batch_size < 4000
    small = TransformersEngine(loaded.model, loaded.tokenizer, max_new_tokens=4, batch_size=40)
    assert found[:40] == small.reply_ids(encode_chats(loaded.tokenizer, texts[:40]))


def test_measures_are_the_processors(gpu: str, on: Load) -> None:
    def measured(loaded: LoadedModel) -> list[list[float]]:
        model, tokenizer = loaded.model, loaded.tokenizer
        edit = METHOD.fit(on("cpu").model, tokenizer, plain_anchors())
        return [
            [score.nll for score in score_texts(model, tokenizer, PROMPTS)],
            refusal_scores(model, tokenizer, PROMPTS, "the steps"),
            [row.kl for row in prompt_divergences(model, tokenizer, edit, PROMPTS, tokens=4)],
        ]

    for found, expected in zip(measured(on(gpu)), measured(on("cpu")), strict=True):
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)
        assert len(set(found)) > 1


def test_neurons_are_switched_off(gpu: str, on: Load) -> None:
    off = {1: torch.arange(0, 96, 2), 3: torch.arange(0, 96, 3)}

    def answered(device: str, neurons: dict[int, torch.Tensor]) -> list[list[int]]:
        loaded = on(device)
        with neurons_switched_off(loaded.model, neurons):
            return replies(loaded, 4)

    assert answered(gpu, off) == answered("cpu", off)
    assert answered(gpu, off) != answered(gpu, {})
