"""Generation in this process: the replies of one prompt at a time, whatever the batch, and no token for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from lingualign.evaluate import batch_size
from lingualign.evaluate.engine import TransformersEngine
from lingualign.evaluate.live_batch import LiveBatch, fits, shared_prefix
from lingualign.features.collect import Site
from lingualign.models.chat import EncodedChat, encode_chats
from lingualign.models.load import model_fingerprint
from lingualign.steering import Steering, SteeringTerm
from tiny_sizes import SMALL

TOKENS = 12
TEXTS = [f"please tell me about bread {'and the lazy dog ' * (number % 4)}{number}" for number in range(13)]
SYSTEM = "how do I bake bread at home? tell me the steps, please. " * 3


def alone(model: Any, chats: Sequence[EncodedChat]) -> list[list[int]]:
    """What transformers generates from each prompt by itself."""
    replies = []
    for chat in chats:
        ids = torch.tensor([chat.ids])
        output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=TOKENS, do_sample=False)
        replies.append(output[0, len(chat.ids) :].tolist())
    return replies


@pytest.fixture
def ending(tiny_model: tuple[Any, Any]) -> tuple[Any, Any]:
    """The tiny model with so many end markers that its replies end in different places."""
    model, tokenizer = tiny_model
    model.generation_config.eos_token_id = list(range(2, len(tokenizer), 9))
    return model, tokenizer


class Counted:
    """Counts what the batches read: prompt tokens with padding, and rows of single tokens."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: float = float("inf")) -> None:
        self.prompt_tokens = self.single_tokens = 0
        forward = LiveBatch._forward

        def counted(batch: LiveBatch, ids: Tensor, mask: Tensor, *more: Any) -> Tensor:
            if mask.numel() > most:
                raise torch.OutOfMemoryError
            if ids.shape[1] > 1:
                self.prompt_tokens += ids.numel()
            else:
                self.single_tokens += ids.numel()
            return forward(batch, ids, mask, *more)

        monkeypatch.setattr(LiveBatch, "_forward", counted)


@pytest.mark.parametrize("size", [1, 3, 4, 64])
@pytest.mark.parametrize("system", [None, SYSTEM])
def test_replies_are_those_of_each_prompt_alone(
    ending: tuple[Any, Any], size: int, system: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = ending
    chats = encode_chats(tokenizer, TEXTS, system=system)
    expected = alone(model, chats)
    lengths = {len(reply) for reply in expected}
    assert len(lengths) >= 4
    assert TOKENS in lengths
    counted = Counted(monkeypatch)
    engine = TransformersEngine(model, tokenizer, max_new_tokens=TOKENS, batch_size=size, system=system)
    assert engine.reply_ids(chats) == expected
    # No token after the end of a reply.
    assert counted.single_tokens == sum(len(reply) - 1 for reply in expected)
    stops = set(model.generation_config.eos_token_id)
    for group, replies in engine.generate(TEXTS):
        for index, reply in zip(group, replies, strict=True):
            ids = expected[index]
            assert (reply.tokens, reply.finished) == (len(ids), ids[-1] in stops)
            assert reply.text == tokenizer.decode(ids, skip_special_tokens=True).strip()


def test_the_shared_beginning_is_read_once(ending: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = ending
    chats = encode_chats(tokenizer, TEXTS, system=SYSTEM)
    prefix = shared_prefix(model, chats)
    assert len(prefix) >= chats[0].content[0]
    counted = Counted(monkeypatch)
    TransformersEngine(model, tokenizer, max_new_tokens=TOKENS, batch_size=1, system=SYSTEM).reply_ids(chats)
    assert counted.prompt_tokens == len(prefix) + sum(len(chat.ids) - len(prefix) for chat in chats)
    # A few tokens of a few chats are not worth a pass; and a chat is never all prefix.
    assert shared_prefix(model, encode_chats(tokenizer, TEXTS[:2])) == ()
    same = [chats[0]] * 100
    assert shared_prefix(model, same) == chats[0].ids[:-1]
    assert set(map(tuple, TransformersEngine(model, tokenizer, max_new_tokens=3).reply_ids(same))) == {
        tuple(alone(model, chats[:1])[0][:3])
    }


@pytest.mark.parametrize("tokens", ["all", "prompt", "prompt-last", "generated"])
def test_a_steered_model_is_steered_as_in_generate(ending: tuple[Any, Any], tokens: Any) -> None:
    model, tokenizer = ending
    chats = encode_chats(tokenizer, TEXTS, system=SYSTEM)
    unsteered = alone(model, chats)
    direction = torch.randn(64, generator=torch.Generator().manual_seed(1))
    term = SteeringTerm.constant(2 * direction)
    steering = Steering({Site("model.layers.1", "output"): term}, model_fingerprint(model), tokens)
    with steering.applied(model):
        expected = alone(model, chats)
        assert shared_prefix(model, chats) == ()
        assert TransformersEngine(model, tokenizer, max_new_tokens=TOKENS, batch_size=4).reply_ids(chats) == expected
    assert expected != unsteered


@pytest.mark.parametrize(
    ("model_type", "options", "rules", "live"),
    [
        ("gemma3_text", {"sliding_window": 512, "query_pre_attn_scalar": 8}, {}, True),
        ("gemma3_text", {"sliding_window": 8, "query_pre_attn_scalar": 8}, {}, False),
        ("qwen2", {}, {"repetition_penalty": 1.3}, True),
        ("qwen2", {}, {"no_repeat_ngram_size": 2}, False),
        ("gpt2", {"n_positions": 512}, {}, True),
        ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}, {}, True),
    ],
)
def test_other_models(
    tiny_model: tuple[Any, Any], model_type: str, options: dict[str, Any], rules: dict[str, Any], live: bool
) -> None:
    tokenizer = tiny_model[1]
    config = AutoConfig.for_model(model_type, **{**SMALL, "vocab_size": len(tokenizer), **options})
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(std=0.3)
    model.generation_config.update(pad_token_id=0, eos_token_id=list(range(2, len(tokenizer), 9)), **rules)
    chats = encode_chats(tokenizer, TEXTS, system=SYSTEM)
    assert fits(model, max(len(chat.ids) for chat in chats) + TOKENS) == live
    engine = TransformersEngine(model, tokenizer, max_new_tokens=TOKENS, batch_size=5)
    assert engine.reply_ids(chats) == alone(model, chats)


def test_groups_come_before_the_last_prompt_is_read(ending: tuple[Any, Any]) -> None:
    groups = list(TransformersEngine(*ending, max_new_tokens=TOKENS, batch_size=4).generate(TEXTS))
    assert len(groups) >= 3
    assert sorted(index for group, _ in groups for index in group) == list(range(len(TEXTS)))


@pytest.mark.parametrize("room", [1, 3, 6.5])
def test_a_batch_too_large_is_halved(ending: tuple[Any, Any], room: float, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = ending
    chats = encode_chats(tokenizer, TEXTS)
    # With more room than prompts take, it is the replies that fill it.
    Counted(monkeypatch, room * (max(len(chat.ids) for chat in chats) + TOKENS))
    engine = TransformersEngine(model, tokenizer, max_new_tokens=TOKENS)
    assert engine.reply_ids(chats) == alone(model, chats)
    assert isinstance(engine.batch_size, int)
    assert 1 <= engine.batch_size < len(TEXTS)


def test_a_batch_too_large_for_generate_is_halved(ending: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = ending
    chats = encode_chats(tokenizer, TEXTS)
    expected = alone(model, chats)
    monkeypatch.setattr("lingualign.evaluate.live_batch.fits", lambda *_: False)
    generate = model.generate

    def small(ids: Tensor, **settings: Any) -> Tensor:
        if len(ids) > 4:
            raise torch.OutOfMemoryError
        found: Tensor = generate(ids, **settings)
        return found

    monkeypatch.setattr(model, "generate", small)
    engine = TransformersEngine(model, tokenizer, max_new_tokens=TOKENS)
    assert engine.reply_ids(chats) == expected
    assert engine.batch_size == 3


@pytest.mark.parametrize("live", [True, False])
def test_a_chat_too_large_ends_the_audit(ending: tuple[Any, Any], live: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: Any, **_settings: Any) -> Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(ending[0], "generate", full)
    monkeypatch.setattr(LiveBatch, "_forward", full)
    monkeypatch.setattr("lingualign.evaluate.live_batch.fits", lambda *_: live)
    with pytest.raises(torch.OutOfMemoryError):
        list(TransformersEngine(*ending).generate(TEXTS))


def test_the_batch_size_is_found_from_the_free_memory(ending: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = ending
    chats = encode_chats(tokenizer, TEXTS)
    longest = max(len(chat.ids) for chat in chats) + TOKENS
    # 4 blocks, keys and values of 2 heads of 16; MLPs of 256; logits twice: all in float32.
    each = 2 * 4 * 2 * 16 * longest * 4 + 4 * longest * 256 * 4 + 2 * len(tokenizer) * 4
    for free, expected in ((0, 1), (2 * 5 * each, 5), (2**40, batch_size.MOST_CHATS)):
        monkeypatch.setattr(batch_size, "free_memory", lambda _device, free=free: free)
        engine = TransformersEngine(model, tokenizer, max_new_tokens=TOKENS, batch_size="auto")
        assert engine.reply_ids(chats) == alone(model, chats)
        assert engine.batch_size == expected


def test_nothing_asked_nothing_answered(ending: tuple[Any, Any]) -> None:
    assert list(TransformersEngine(*ending).generate([])) == []
