"""Carried hidden states: the same rows as a pass from the start, without running the blocks that are done."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lingualign.features.carry import CarriedStates
from lingualign.features.collect import Site, collect_rows
from lingualign.features.positions import Positions
from lingualign.models.chat import EncodedChat, encode_chats

POSITIONS = Positions(template_tokens=3)
TEXTS = ["please tell me the steps at home", "bread", "the lazy dog", "วิธีทำขนมปังที่บ้าน"]


def _gemma() -> Any:
    """Blocks with sliding and with full attention, which the model hands different masks and rotary tables."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    config = Gemma3TextConfig(
        vocab_size=400,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        sliding_window=4,
        layer_types=["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Gemma3ForCausalLM(config).eval()


@pytest.fixture(params=["llama", "gemma"])
def model(request: pytest.FixtureRequest, tiny_model: Any) -> Any:
    return tiny_model[0] if request.param == "llama" else _gemma()


@pytest.fixture
def chats(tiny_model: Any) -> list[EncodedChat]:
    return encode_chats(tiny_model[1], TEXTS)


def _site(block: int) -> Site:
    return Site(f"model.layers.{block}.mlp.down_proj", "input")


@pytest.mark.parametrize("blocks", [(0, 1, 2, 3), (1, 3), (2, 2)])
def test_rows_equal_those_of_a_pass_from_the_start(
    model: Any, chats: list[EncodedChat], blocks: tuple[int, ...]
) -> None:
    states = CarriedStates(model, "model.layers")
    layers = list(model.model.layers)
    for block in blocks:
        carried = collect_rows(model, chats, [_site(block)], POSITIONS, states=states, batch_tokens=60)
        anew = collect_rows(model, chats, [_site(block)], POSITIONS, batch_tokens=60)
        assert torch.equal(carried[_site(block)], anew[_site(block)])
        # What comes after is collected from the model as it is now.
        with torch.no_grad():
            layers[block].mlp.down_proj.weight.mul_(1.5)
    assert list(model.model.layers) == layers


def test_blocks_that_are_done_do_not_run_again(tiny_model: Any, chats: list[EncodedChat]) -> None:
    model = tiny_model[0]
    runs = [0] * len(model.model.layers)

    def count(index: int) -> None:
        runs[index] += 1

    for index, block in enumerate(model.model.layers):
        block.register_forward_pre_hook(lambda _module, _args, index=index: count(index))
    states = CarriedStates(model, "model.layers")
    for block in (1, 2, 3):
        collect_rows(model, chats, [_site(block)], POSITIONS, states=states)
    assert runs == [1, 2, 2, 1]


def test_an_earlier_block_is_reached_from_the_start(tiny_model: Any, chats: list[EncodedChat]) -> None:
    model = tiny_model[0]
    states = CarriedStates(model, "model.layers")
    collect_rows(model, chats, [_site(3)], POSITIONS, states=states)
    carried = collect_rows(model, chats, [_site(1)], POSITIONS, states=states)
    assert torch.equal(carried[_site(1)], collect_rows(model, chats, [_site(1)], POSITIONS)[_site(1)])
