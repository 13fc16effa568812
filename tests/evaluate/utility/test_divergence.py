"""Divergence: nothing for no change, the definition's value for a change, whatever the batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch

from lingualign.data.schema import PromptSet
from lingualign.edit import Edit
from lingualign.evaluate.utility.divergence import (
    PromptDivergence,
    divergences,
    mean_divergence,
    prompt_divergences,
)
from lingualign.features.collect import Site
from lingualign.models.load import model_fingerprint
from lingualign.steering import SteeredTokens, Steering, SteeringTerm


def test_no_change_is_exactly_zero(
    tiny_model: tuple[Any, Any], texts: PromptSet, edit_of: Callable[[Any, float], Edit]
) -> None:
    rows = prompt_divergences(*tiny_model, edit_of(tiny_model[0], 0.0), texts, tokens=5)
    assert [(row.seed_id, row.language) for row in rows] == [(text.seed_id, text.language) for text in texts]
    for row in rows:
        assert (row.kl, row.first_kl, row.agreement) == (0, 0, 1)
        assert 1 <= row.tokens <= 5


def test_a_change_has_the_value_of_the_definition(
    tiny_model: tuple[Any, Any], texts: PromptSet, edit_of: Callable[[Any, float], Edit]
) -> None:
    model, tokenizer = tiny_model
    edit = edit_of(model, 0.3)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    rows = prompt_divergences(model, tokenizer, edit, texts, tokens=5)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    for row, text in zip(rows, texts, strict=True):
        ids = tokenizer(f"<bos><turn>user\n{text.text}<end>\n<turn>model\n", add_special_tokens=False)["input_ids"]
        start = len(ids)
        with torch.no_grad():
            for _ in range(row.tokens):
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            before = model(torch.tensor([ids])).logits[0, start - 1 : -1].double().log_softmax(-1)
            with edit.applied(model):
                after = model(torch.tensor([ids])).logits[0, start - 1 : -1].double().log_softmax(-1)
        kl = (before.exp() * (before - after)).sum(-1)
        assert row.kl == pytest.approx(float(kl.mean()), rel=1e-3)
        assert row.first_kl == pytest.approx(float(kl[0]), rel=1e-3)
        assert row.agreement == pytest.approx(float((before.argmax(-1) == after.argmax(-1)).double().mean()))
        assert row.kl > 0.001


@pytest.mark.parametrize("steered", get_args(SteeredTokens))
def test_a_steering_acts_on_the_tokens_that_it_names(
    tiny_model: tuple[Any, Any], texts: PromptSet, steered: SteeredTokens
) -> None:
    model, tokenizer = tiny_model
    generator = torch.Generator().manual_seed(0)
    factors = (torch.randn(64, 4, generator=generator) / 10 for _ in range(2))
    steering = Steering(
        {Site("model.layers.1", "output"): SteeringTerm.linear(*factors)}, model_fingerprint(model), steered
    )

    def step_by_step(prompt: list[int], reply: list[int]) -> torch.Tensor:
        """Logits of a cached generation that is made to say the reply."""
        output = model(input_ids=torch.tensor([prompt]), use_cache=True)
        logits = [output.logits[0, -1]]
        for token in reply[:-1]:
            past = output.past_key_values
            output = model(input_ids=torch.tensor([[token]]), past_key_values=past, use_cache=True)
            logits.append(output.logits[0, -1])
        return torch.stack(logits).double().log_softmax(-1)

    rows = prompt_divergences(model, tokenizer, steering, texts, tokens=5)
    for row, text in zip(rows, texts, strict=True):
        prompt = tokenizer(f"<bos><turn>user\n{text.text}<end>\n<turn>model\n", add_special_tokens=False)["input_ids"]
        reply: list[int] = []
        with torch.no_grad():
            for _ in range(row.tokens):
                reply.append(int(model(torch.tensor([prompt + reply])).logits[0, -1].argmax()))
            before = step_by_step(prompt, reply)
            with steering.applied(model):
                after = step_by_step(prompt, reply)
        kl = (before.exp() * (before - after)).sum(-1)
        assert row.kl == pytest.approx(float(kl.mean()), rel=1e-3)
        assert row.first_kl == pytest.approx(float(kl[0]), rel=1e-3)
        assert (row.first_kl == 0) == (steered == "generated")
        assert row.kl > 0


def test_batches_and_memory_do_not_matter(
    tiny_model: tuple[Any, Any], texts: PromptSet, edit_of: Callable[[Any, float], Edit]
) -> None:
    edit = edit_of(tiny_model[0], 0.3)
    together = prompt_divergences(*tiny_model, edit, texts, tokens=5)
    seen: list[int] = []
    alone = prompt_divergences(
        *tiny_model, edit, texts, tokens=5, batch_size=1, batch_logits=1, kept_bytes=1, on_batch=seen.append
    )
    assert seen == list(range(1, len(texts) + 1))
    for first, second in zip(together, alone, strict=True):
        assert first.tokens == second.tokens
        assert first.kl == pytest.approx(second.kl, rel=1e-3)


def test_means_by_hand() -> None:
    rows = [
        PromptDivergence("1", "en", 4, kl=0.1, first_kl=0.2, agreement=1.0),
        PromptDivergence("2", "en", 4, kl=0.3, first_kl=0.2, agreement=0.5),
        PromptDivergence("1", "th", 4, kl=0.6, first_kl=0.2, agreement=0.0),
    ]
    english, thai = divergences(rows)
    assert (english.language, english.n, thai.language, thai.n) == ("en", 2, "th", 1)
    assert english.kl.value == pytest.approx(0.2)
    assert english.kl.interval == pytest.approx((0.1, 0.3))
    assert english.agreement.value == pytest.approx(0.75)
    mean = mean_divergence(rows)
    assert (mean.language, mean.n) == ("mean", 3)
    assert mean.kl.value == pytest.approx(0.4)
    assert mean.first_kl.value == pytest.approx(0.2)
