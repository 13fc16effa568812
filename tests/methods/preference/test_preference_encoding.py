"""Tokens of prompts with replies, and what the model gives for them, against loops over single sequences."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lingualign.errors import UnsupportedModel
from lingualign.methods.preference.encoding import (
    both,
    encode_preferences,
    reply_log_probs,
    representations,
    turn_end,
)
from lingualign.methods.preference.pairs import PreferencePair, preferences


def test_replies_end_their_turn_and_follow_the_prompt(tiny_model: Any, pairs: list[PreferencePair]) -> None:
    tokenizer = tiny_model[1]
    encoded = encode_preferences(tokenizer, preferences(pairs), 1024)
    for side, item in encoded.items():
        messages = [{"role": "user", "content": side.prompt.text}, {"role": "assistant", "content": side.chosen}]
        prompt = tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
        assert tokenizer.decode(item.chosen.ids[: item.chosen.prompt_length]) == prompt
        assert tokenizer.decode(item.chosen.ids[item.chosen.prompt_length :]) == side.chosen + "<end>"
        assert item.rejected.prompt_length == item.chosen.prompt_length


def test_replies_are_cut_and_long_prompts_left_out(tiny_model: Any, pairs: list[PreferencePair]) -> None:
    sides = preferences(pairs)
    lengths = sorted(item.chosen.prompt_length for item in encode_preferences(tiny_model[1], sides, 1024).values())
    cut = encode_preferences(tiny_model[1], sides, lengths[3])
    assert len(cut) == sum(length < lengths[3] for length in lengths)
    assert cut
    assert max(len(chat.ids) for chat in both(list(cut.values()))) == lengths[3]


def test_a_template_without_replies_is_refused(tiny_model: Any) -> None:
    tokenizer = tiny_model[1]
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    with pytest.raises(UnsupportedModel, match="assistant's turn"):
        turn_end(tokenizer)


def test_a_template_without_end_of_turn_ends_with_eos(tiny_model: Any) -> None:
    tokenizer = tiny_model[1]
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
    assert turn_end(tokenizer) == "<eos>"


@torch.no_grad()
def test_log_probs_equal_a_loop_whatever_the_padding(tiny_model: Any, pairs: list[PreferencePair]) -> None:
    model, tokenizer = tiny_model
    chats = both(list(encode_preferences(tokenizer, preferences(pairs), 1024).values()))
    sums, lengths = reply_log_probs(model, chats, tokenizer.pad_token_id)
    for chat, total, length in zip(chats, sums, lengths, strict=True):
        log_probs = model(torch.tensor([chat.ids])).logits[0].log_softmax(-1)
        reply = range(chat.prompt_length, len(chat.ids))
        expected = sum(float(log_probs[position - 1, chat.ids[position]]) for position in reply)
        assert float(total) == pytest.approx(expected, rel=1e-5)
        assert int(length) == len(reply)
    assert torch.allclose(reply_log_probs(model, chats, 7)[0], sums, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["mean", "last"])
def test_representations_equal_a_loop_whatever_the_padding(
    tiny_model: Any, pairs: list[PreferencePair], kind: Any
) -> None:
    model, tokenizer = tiny_model
    chats = both(list(encode_preferences(tokenizer, preferences(pairs), 1024).values()))
    states = representations(model, chats, tokenizer.pad_token_id, kind)
    for chat, state in zip(chats, states, strict=True):
        last_layer = model(torch.tensor([chat.ids]), output_hidden_states=True).hidden_states[-1][0]
        expected = last_layer.mean(0) if kind == "mean" else last_layer[-1]
        assert torch.allclose(state, expected, atol=1e-5)
