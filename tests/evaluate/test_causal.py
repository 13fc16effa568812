"""Switching neurons off: the same as zeroed weights, taken back afterwards, beside a control of the same size."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lingualign.data.schema import Prompt, PromptSet
from lingualign.errors import ConfigError, DataError
from lingualign.evaluate.causal import causal_check, matched_random, neurons_switched_off
from lingualign.evaluate.engine import TransformersEngine
from lingualign.evaluate.judge import Exchange, Judgement
from lingualign.models.chat import encode_chats

NEURONS = {1: torch.tensor([3, 40, 95]), 3: torch.arange(20)}


def logits(model: Any, tokenizer: Any) -> Tensor:
    chat = encode_chats(tokenizer, ["please tell me the steps at home"])[0]
    with torch.no_grad():
        found: Tensor = model(torch.tensor([chat.ids])).logits
    return found


def test_off_is_the_same_as_zeroed_columns_and_is_taken_back(tiny_model: Any) -> None:
    model, tokenizer = tiny_model
    before = copy.deepcopy(model.state_dict())
    whole = logits(model, tokenizer)
    with neurons_switched_off(model, NEURONS):
        off = logits(model, tokenizer)
    assert torch.equal(logits(model, tokenizer), whole)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        for layer, indices in NEURONS.items():
            model.model.layers[layer].mlp.down_proj.weight[:, indices] = 0
    torch.testing.assert_close(off, logits(model, tokenizer), rtol=1e-5, atol=1e-5)
    assert (off - whole).abs().max() > 1e-2


def test_hooks_go_after_a_failure(tiny_model: Any) -> None:
    model = tiny_model[0]
    with pytest.raises(RuntimeError, match="stop"), neurons_switched_off(model, NEURONS):
        raise RuntimeError("stop")
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_random_neurons_match_in_count_and_block_and_leave_the_chosen_out(tiny_model: Any) -> None:
    model = tiny_model[0]
    drawn = matched_random(model, NEURONS, seed=1)
    assert {layer: len(indices) for layer, indices in drawn.items()} == {1: 3, 3: 20}
    for layer, indices in drawn.items():
        assert indices.tolist() == sorted(set(indices.tolist()))
        assert not set(indices.tolist()) & set(NEURONS[layer].tolist())
        assert int(indices.max()) < 96
    assert torch.equal(drawn[3], matched_random(model, NEURONS, seed=1)[3])
    assert not torch.equal(drawn[3], matched_random(model, NEURONS, seed=2)[3])
    # All others are taken where there are just as many.
    assert matched_random(model, {0: torch.arange(48)}, 0)[0].tolist() == list(range(48, 96))


def test_neurons_that_do_not_exist_are_named(tiny_model: Any) -> None:
    model = tiny_model[0]
    for neurons, message in (
        ({9: torch.tensor([1])}, "blocks 0 to 3"),
        ({0: torch.tensor([96])}, "neurons 0 to 95"),
        ({0: torch.tensor([-1])}, "neurons 0 to 95"),
    ):
        with pytest.raises(ConfigError, match=message), neurons_switched_off(model, neurons):
            pass
    with pytest.raises(ConfigError, match="only 47 others"):
        matched_random(model, {0: torch.arange(49)}, 0)


class SameReplyJudge:
    """Calls a reply a refusal if it is what the whole model says, whatever that is."""

    name = "same reply"

    def __init__(self, whole: dict[str, str]) -> None:
        self.whole = whole
        self.calls = 0

    def judge(self, exchanges: Sequence[Exchange]) -> list[Judgement]:
        self.calls += 1
        return [
            Judgement("refused" if self.whole[exchange.prompt] == exchange.reply else "answered", 1.0, "")
            for exchange in exchanges
        ]


def test_the_check_compares_three_audits_by_language_and_resumes(tiny_model: Any, tmp_path: Path) -> None:
    model, tokenizer = tiny_model
    prompts = PromptSet(
        Prompt(str(number), language, kind, f"{kind} {language} {word}")
        for language in ("en", "es")
        for kind in ("harmful", "harmless")
        for number, word in enumerate(("tea", "bread", "river"))
    )
    engine = TransformersEngine(model, tokenizer, max_new_tokens=6)
    texts = [prompt.text for prompt in prompts]
    # Block 0 does nothing, so its neurons are not missed.
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.zero_()
    whole = {texts[i]: raw.text for batch, raws in engine.generate(texts) for i, raw in zip(batch, raws, strict=True)}
    judge = SameReplyJudge(whole)
    idle = causal_check(engine, judge, prompts, {0: torch.arange(40)}, tmp_path)
    assert idle.neurons == 40
    assert [(change.language, change.n, change.before, change.difference) for change in idle.chosen] == [
        ("en", 3, 1.0, 0.0),
        ("es", 3, 1.0, 0.0),
    ]
    assert all(change.difference == 0 for change in [*idle.random, *idle.chosen_against_random])
    neurons = {layer: torch.arange(48) for layer in (1, 2, 3)}
    found = causal_check(engine, judge, prompts, neurons, tmp_path)
    assert found.neurons == 144
    assert [change.difference for change in found.chosen] == [-1.0, -1.0]
    for change, by_random, against in zip(found.chosen, found.random, found.chosen_against_random, strict=True):
        assert against.difference == pytest.approx(change.difference - by_random.difference)
        assert change.lost == 3
    assert all(change.difference == 0 for change in [*found.incoherent_chosen, *found.incoherent_random])
    calls = judge.calls
    assert causal_check(engine, judge, prompts, neurons, tmp_path) == found
    assert judge.calls == calls
    # The whole model's replies serve both checks: one file of five.
    assert len(list(tmp_path.glob("without-*.jsonl"))) == 5
    with pytest.raises(DataError, match="no look-alike replies"):
        causal_check(engine, judge, prompts, neurons, tmp_path / "other", kind="look-alike")
