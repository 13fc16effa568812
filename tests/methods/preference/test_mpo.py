"""MPO against its equations, and that it learns what it should on a tiny model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from lingualign.errors import ConfigError, DataError, NumericalError
from lingualign.methods.preference.encoding import (
    EncodedPreference,
    both,
    encode_preferences,
    reply_log_probs,
    representations,
)
from lingualign.methods.preference.mpo import MPO, gap_loss, representation_loss, reward_gap
from lingualign.methods.preference.pairs import Preference, PreferencePair, preferences
from lingualign.methods.preference.training import Training

LORA = Training(learning_rate=5e-3, num_train_epochs=3, per_device_train_batch_size=2, tuning="lora", warmup_ratio=0.0)


def _gap(model: Any, tokenizer: Any, side: Preference) -> float:
    (item,) = encode_preferences(tokenizer, [side], 1024).values()
    with torch.no_grad():
        return float(reward_gap(*reply_log_probs(model, both([item]), tokenizer.pad_token_id)))


def _positive(model: Any, tokenizer: Any, pairs: list[PreferencePair]) -> list[PreferencePair]:
    """The pairs with the reference's replies swapped where the random model prefers the rejected one."""
    fixed = []
    for pair in pairs:
        side = pair.reference
        if _gap(model, tokenizer, side) < 0:
            side = replace(side, chosen=side.rejected, rejected=side.chosen)
        fixed.append(replace(pair, reference=side))
    return fixed


def test_losses_equal_the_equations() -> None:
    log_probs, lengths = torch.tensor([-6.0, -8.0, -10.0, -3.0]), torch.tensor([3, 2, 5, 1])
    gaps = reward_gap(log_probs, lengths)
    assert gaps.tolist() == [-6 / 3 + 10 / 5, -8 / 2 + 3 / 1]
    assert gap_loss(gaps, torch.tensor([0.5, 0.25]), 1.5).tolist() == [(1.5 * 0 - 0.5) ** 2, (1.5 * -1 - 0.25) ** 2]
    states, reference = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0)).unbind()
    found = representation_loss(states, reference)
    for index in range(2):
        squares = [(states[row] - reference[row]).square().sum() / 3 for row in (index, index + 2)]
        assert float(found[index]) == pytest.approx(float(sum(squares)) / 2)


@pytest.mark.parametrize(("reference_gap", "sign"), [(1.0, -1), (3.0, 0), (5.0, 1)])
def test_the_gradient_turns_where_the_gap_overshoots(reference_gap: float, sign: int) -> None:
    # beta RG^t = 1.5 * 2: below the reference's gap the chosen reply gains, at it nothing moves, above it loses.
    log_probs = torch.tensor([-2.0, -12.0], requires_grad=True)
    gap = reward_gap(log_probs, torch.tensor([2, 4]))
    assert gap.item() == 2.0
    gap_loss(gap, torch.tensor([reference_gap]), 1.5).sum().backward()
    assert log_probs.grad is not None
    chosen, rejected = log_probs.grad.sign().tolist()
    assert (chosen, rejected) == (-sign, sign)


@pytest.mark.parametrize("representation", ["mean", "last"])
def test_the_first_step_equals_a_plain_loop_and_the_state_term_starts_at_zero(
    tiny_model: Any, pairs: list[PreferencePair], representation: Any
) -> None:
    model, tokenizer = tiny_model
    pairs = _positive(model, tokenizer, pairs)
    training = replace(LORA, num_train_epochs=1, per_device_train_batch_size=len(pairs))
    edit = MPO(representation=representation, training=training).fit(model, tokenizer, pairs)
    (step,) = edit.manifest["loss_curve"]
    # Frozen gaps computed anew for every pair, none cached.
    expected = [
        (1.5 * _gap(model, tokenizer, pair.target) - _gap(model, tokenizer, pair.reference)) ** 2 for pair in pairs
    ]
    assert step["gap_loss"] == pytest.approx(sum(expected) / len(pairs), rel=1e-4)
    assert step["representation_loss"] == pytest.approx(0.0, abs=1e-9)


def test_cached_reference_equals_one_computed_in_batches(tiny_model: Any, pairs: list[PreferencePair]) -> None:
    model, tokenizer = tiny_model
    references = encode_preferences(tokenizer, [pair.reference for pair in pairs], 1024)
    frozen = MPO().frozen(LORA.trainee(model), references, tokenizer.pad_token_id, lambda *_: None)
    items: list[EncodedPreference] = list(references.values())
    with torch.no_grad():
        gaps = reward_gap(*reply_log_probs(model, both(items), tokenizer.pad_token_id))
        states = representations(model, both(items), tokenizer.pad_token_id, "mean")
    assert torch.allclose(torch.tensor([frozen[side].gap for side in references]), gaps, atol=1e-5)
    held = torch.stack([frozen[side].states for side in references], 1).flatten(0, 1)
    assert torch.allclose(held, states, atol=1e-5)


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_gaps_close_and_the_model_is_left_as_it_was(tiny_model: Any, pairs: list[PreferencePair], tuning: Any) -> None:
    model, tokenizer = tiny_model
    pairs = _positive(model, tokenizer, pairs)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    rate = 5e-3 if tuning == "lora" else 1e-3
    training = replace(LORA, tuning=tuning, learning_rate=rate, num_train_epochs=20)
    calls: list[tuple[str, int, int]] = []
    edit = MPO(training=training).fit(model, tokenizer, pairs, progress=lambda *call: calls.append(call))
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert calls[0] == ("reference gaps", 1, 6)
    assert calls[-1] == ("training", 60, 60)

    def distance() -> float:
        return sum(
            abs(1.5 * _gap(model, tokenizer, pair.target) - aim) for pair, aim in zip(pairs, aims, strict=True)
        ) / len(pairs)

    aims = [_gap(model, tokenizer, pair.reference) for pair in pairs]
    before = distance()
    with edit.applied(model):
        assert distance() < 0.3 * before


def test_the_state_term_holds_the_reference_language(tiny_model: Any, pairs: list[PreferencePair]) -> None:
    model, tokenizer = tiny_model
    pairs = _positive(model, tokenizer, pairs)
    chats = both(list(encode_preferences(tokenizer, [pair.reference for pair in pairs], 1024).values()))

    @torch.no_grad()
    def states() -> torch.Tensor:
        return representations(model, chats, tokenizer.pad_token_id, "mean")

    def moved(weight: float) -> float:
        method = MPO(representation_weight=weight, training=replace(LORA, num_train_epochs=8))
        with method.fit(model, tokenizer, pairs).applied(model):
            return float((states() - before).norm())

    before = states()
    assert moved(30.0) < 0.7 * moved(0.0)


def test_batches_and_accumulation_make_the_same_steps(tiny_model: Any, pairs: list[PreferencePair]) -> None:
    pairs = _positive(*tiny_model, pairs)
    # Batches of four leave one of two in each step: all examples weigh the same nevertheless.
    shapes = [(6, 1), (4, 2), (1, 6)]
    edits = [
        MPO(training=replace(LORA, per_device_train_batch_size=size, gradient_accumulation_steps=steps, seed=3)).fit(
            *tiny_model, pairs
        )
        for size, steps in shapes
    ]
    curves = [[step["loss"] for step in edit.manifest["loss_curve"]] for edit in edits]
    assert len(curves[0]) == 3
    assert curves[1] == pytest.approx(curves[0], rel=1e-3)
    assert curves[2] == pytest.approx(curves[0], rel=1e-3)


def test_the_same_seed_gives_the_same_edit_and_leaves_the_generator(
    tiny_model: Any, pairs: list[PreferencePair]
) -> None:
    pairs = _positive(*tiny_model, pairs)
    state = torch.get_rng_state()
    first, second, other = (MPO(training=replace(LORA, seed=seed)).fit(*tiny_model, pairs) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    name = next(iter(first.deltas))
    assert torch.equal(first.deltas[name].out_factor, second.deltas[name].out_factor)
    assert not torch.equal(first.deltas[name].in_factor, other.deltas[name].in_factor)


def test_pairs_with_a_negative_reference_gap_are_dropped(tiny_model: Any, pairs: list[PreferencePair]) -> None:
    pairs = _positive(*tiny_model, pairs)
    first = pairs[0].reference
    swapped = replace(pairs[0], reference=replace(first, chosen=first.rejected, rejected=first.chosen))
    manifest = MPO(training=LORA).fit(*tiny_model, [swapped, *pairs[1:]]).manifest
    assert manifest["left_out"]["negative_reference_gap"] == 1
    assert manifest["examples"] == len(pairs) - 1
    with pytest.raises(DataError, match="no pair is left"):
        MPO(training=LORA).fit(*tiny_model, [swapped])


def test_the_manifest_counts_tokens_and_work(tiny_model: Any, pairs: list[PreferencePair]) -> None:
    model, tokenizer = tiny_model
    pairs = _positive(model, tokenizer, pairs)
    manifest = MPO(training=LORA).fit(model, tokenizer, pairs).manifest
    encoded = encode_preferences(tokenizer, preferences(pairs), 1024)
    tokens = sum(item.tokens for item in encoded.values())
    references = sum(encoded[pair.reference].tokens for pair in pairs)
    assert manifest["trained_tokens"] == 3 * tokens
    assert manifest["reference_tokens"] == 2 * references
    weights = sum(module.weight.numel() for module in model.modules() if isinstance(module, torch.nn.Linear))
    assert manifest["flops_estimate"] == weights * (4 * 3 * tokens + 2 * 2 * references)
    assert manifest["anchor_languages"] == ["it"]
    assert manifest["loss_curve"][0]["learning_rate"] == LORA.learning_rate


def test_bfloat16_trains(tiny_model: Any, pairs: list[PreferencePair]) -> None:
    model, tokenizer = tiny_model[0].to(torch.bfloat16), tiny_model[1]
    pairs = _positive(model, tokenizer, pairs)
    for tuning in ("lora", "full"):
        curve = (
            MPO(training=replace(LORA, tuning=tuning, learning_rate=2e-3, num_train_epochs=10))
            .fit(model, tokenizer, pairs)
            .manifest["loss_curve"]
        )
        assert curve[0]["representation_loss"] == 0.0
        assert sum(step["loss"] for step in curve[-3:]) < 0.5 * sum(step["loss"] for step in curve[:3])


def test_wrong_settings_are_refused(tiny_model: Any, pairs: list[PreferencePair]) -> None:
    with pytest.raises(ConfigError, match="beta above 0"):
        MPO(beta=0.0)
    with pytest.raises(ConfigError, match="training needs"):
        Training(learning_rate=1e-3, per_device_train_batch_size=0)
    with pytest.raises(DataError, match="6 prompts are longer than cutoff_len"):
        MPO(training=replace(LORA, cutoff_len=4)).fit(*tiny_model, pairs)
    with pytest.raises(NumericalError, match="loss is nan at step"):
        MPO(training=replace(LORA, learning_rate=1e30)).fit(*tiny_model, _positive(*tiny_model, pairs))
