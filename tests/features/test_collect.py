"""Feature collection: the hooks hand over what the modules compute, however the chats are padded and batched."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lingualign.errors import ConfigError, NumericalError, UnsupportedModel
from lingualign.features.collect import Site, batches_by_length, collect_rows, pad, stream_features
from lingualign.features.positions import Positions
from lingualign.models.chat import EncodedChat, encode_chats

TEXTS = [
    "please tell me the steps at home",
    "bread",
    "the quick brown fox jumps over the lazy dog, please",
    "วิธีทำขนมปังที่บ้าน",
]
REPLIES = ["the quick dog", "home, please tell me", "por favor dime los pasos", "the lazy fox jumps"]
DOWN_IN = Site("model.layers.1.mlp.down_proj", "input")
DOWN_OUT = Site("model.layers.1.mlp.down_proj", "output")
BLOCK_OUT = Site("model.layers.2", "output")
ALL = Positions(template_tokens=3, prompt_mean=True, reply_tokens=2)


@pytest.fixture
def chats(tiny_model: tuple[Any, Any]) -> list[EncodedChat]:
    return encode_chats(tiny_model[1], TEXTS, replies=REPLIES)


def direct(model: Any, chat: EncodedChat, site: Site) -> torch.Tensor:
    """(T, width) of one unpadded chat, through transformers' own outputs and the module's own arithmetic."""
    with torch.no_grad():
        hidden = model(torch.tensor([chat.ids]), output_hidden_states=True).hidden_states
        if site == BLOCK_OUT:
            return hidden[3][0]
        # Block 1 by hand: its input is hidden[1], its output hidden[2] = residual + down(act(gate) · up).
        block = model.model.layers[1]
        captured = hidden[1][0]
        embeddings = model.model.rotary_emb(hidden[1], torch.arange(len(chat.ids))[None])
        attended = block.self_attn(
            block.input_layernorm(hidden[1]), position_embeddings=embeddings, attention_mask=None
        )[0][0]
        residual = captured + attended
        normed = block.post_attention_layernorm(residual)
        mlp = block.mlp
        inner = torch.nn.functional.silu(mlp.gate_proj(normed)) * mlp.up_proj(normed)
        return inner if site == DOWN_IN else inner @ mlp.down_proj.weight.T


@pytest.mark.parametrize("site", [DOWN_IN, DOWN_OUT, BLOCK_OUT])
def test_rows_are_what_the_module_computes_at_the_declared_positions(
    tiny_model: tuple[Any, Any], chats: list[EncodedChat], site: Site
) -> None:
    model = tiny_model[0]
    rows = collect_rows(model, chats, [site], ALL)[site]
    assert rows.shape == (4, 6, 96 if site == DOWN_IN else 64)
    assert rows.dtype == torch.float32
    for chat, row in zip(chats, rows, strict=True):
        values = direct(model, chat, site)
        end, (start, stop) = chat.prompt_length, chat.content
        expected = torch.cat([values[end - 3 : end], values[start:stop].mean(0, keepdim=True), values[end : end + 2]])
        torch.testing.assert_close(row, expected, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("batch_tokens", [1, 60, 4096])
def test_padding_side_and_batch_size_do_not_matter(
    tiny_model: tuple[Any, Any], chats: list[EncodedChat], side: str, batch_tokens: int
) -> None:
    model = tiny_model[0]
    sites = [DOWN_IN, BLOCK_OUT]
    expected = collect_rows(model, chats, sites, ALL, batch_tokens=1)
    rows = collect_rows(model, chats, sites, ALL, padding_side=side, batch_tokens=batch_tokens, pad_id=17)
    for site in sites:
        torch.testing.assert_close(rows[site], expected[site], rtol=1e-4, atol=1e-4)


def test_reply_rows_do_not_see_later_tokens_and_prompt_rows_do_not_see_the_reply(tiny_model: tuple[Any, Any]) -> None:
    model, tokenizer = tiny_model
    positions = Positions(template_tokens=2, reply_tokens=1)
    first, second = (
        collect_rows(model, encode_chats(tokenizer, TEXTS[:1], replies=[reply]), [BLOCK_OUT], positions)[BLOCK_OUT]
        for reply in ("the quick fox", "the lazy dog")
    )
    torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)


def test_the_pass_stops_after_the_last_site_and_hooks_are_removed(
    tiny_model: tuple[Any, Any], chats: list[EncodedChat]
) -> None:
    model = tiny_model[0]
    ran = []
    for name in ("model.layers.1.mlp.down_proj", "model.layers.2", "model.layers.3", "lm_head"):
        model.get_submodule(name).register_forward_pre_hook(lambda _module, _args, name=name: ran.append(name))
    collect_rows(model, chats[:1], [DOWN_IN, DOWN_OUT], Positions())
    assert ran == ["model.layers.1.mlp.down_proj"]
    own = model.get_submodule("model.layers.1.mlp.down_proj")
    assert len(own._forward_pre_hooks) == 1
    assert len(own._forward_hooks) == 0
    with torch.no_grad():
        assert model(torch.tensor([chats[0].ids])).logits.shape[1] == len(chats[0].ids)


def test_hooks_are_removed_after_a_failure(tiny_model: tuple[Any, Any], chats: list[EncodedChat]) -> None:
    model = tiny_model[0]
    with torch.no_grad():
        model.get_submodule("model.layers.1.mlp.up_proj").weight[4, 4] = float("nan")
    with pytest.raises(NumericalError, match=r"input of model\.layers\.1\.mlp\.down_proj holds NaN"):
        collect_rows(model, chats, [DOWN_IN], Positions())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_sites_that_do_not_exist_or_do_not_run_are_errors(
    tiny_model: tuple[Any, Any], chats: list[EncodedChat]
) -> None:
    model = tiny_model[0]
    with pytest.raises(UnsupportedModel, match=r"no module model\.layers\.9"):
        collect_rows(model, chats, [Site("model.layers.9", "output")], Positions())
    model.idle = torch.nn.Linear(2, 2)
    with pytest.raises(UnsupportedModel, match="idle was not run"):
        collect_rows(model, chats, [DOWN_IN, Site("idle", "output")], Positions())


def test_progress_and_order(tiny_model: tuple[Any, Any], chats: list[EncodedChat]) -> None:
    done: list[int] = []
    seen = []
    for batch, rows in stream_features(
        tiny_model[0], chats, [DOWN_IN], Positions(), batch_tokens=1, on_batch=done.append
    ):
        assert rows[DOWN_IN].shape[0] == len(batch)
        seen += batch
    assert done == [1, 2, 3, 4]
    # Batches come by length; `collect_rows` puts the rows back, as the comparison with single chats shows.
    assert seen == sorted(range(4), key=lambda index: len(chats[index].ids))
    assert seen != [0, 1, 2, 3]


def test_batches_hold_every_chat_once_within_the_budget() -> None:
    chats = [EncodedChat(tuple(range(length)), (0, 1), length) for length in (5, 30, 7, 7, 50, 2)]
    batches = list(batches_by_length(chats, 30))
    assert sorted(index for batch in batches for index in batch) == list(range(6))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(len(chats[index].ids) for index in batch) <= 30
    assert len(batches) < 6
    assert list(batches_by_length([], 30)) == []


def test_pad_masks_exactly_the_padding() -> None:
    chats = [EncodedChat((3, 4, 5), (0, 1), 3), EncodedChat((6,), (0, 1), 1)]
    ids, mask, offsets = pad(chats, 9, "left")
    assert ids.tolist() == [[3, 4, 5], [9, 9, 6]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert offsets == [0, 2]
    ids, mask, offsets = pad(chats, 9, "right")
    assert ids.tolist() == [[3, 4, 5], [6, 9, 9]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert offsets == [0, 0]


def test_positions_name_what_they_cannot_do() -> None:
    with pytest.raises(ConfigError, match="positions are empty"):
        Positions(template_tokens=0)
    assert Positions(template_tokens=0, prompt_mean=True).rows == 1
    short = EncodedChat((1, 2, 3, 4), (1, 2), 3)
    with pytest.raises(ConfigError, match="3 prompt tokens is too short"):
        Positions(template_tokens=4).select([short], [0], 4)
    # Of one-hot tokens, each row shows the weights of the tokens in it.
    ended = Positions(template_tokens=1, reply_tokens=2).select([short], [0], 4).of(torch.eye(4)[None])
    assert ended[0].argmax(1).tolist() == [2, 3, 3]
    selection = Positions(template_tokens=2, prompt_mean=True, reply_tokens=1).select([short], [2], 6)
    weights = selection.of(torch.eye(6, dtype=torch.bfloat16)[None])
    assert weights[0].argmax(1).tolist() == [3, 4, 3, 5]
    assert torch.equal(weights.sum(2), torch.ones(1, 4))
