"""Every neuron score against its definition, in plain loops; what it promises of resamples and of languages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lingualign.errors import ConfigError, DataError
from lingualign.features.collect import Site, collect_rows
from lingualign.features.positions import Positions
from lingualign.methods.neuron_scores.base import NeuronScore
from lingualign.methods.neuron_scores.cohens_d import CohensD
from lingualign.methods.neuron_scores.generation_contrast import GenerationContrast
from lingualign.methods.neuron_scores.magnitude_or_effect import MagnitudeOrEffect
from lingualign.methods.neuron_scores.plnd import Plnd, worst_rank
from lingualign.methods.neuron_scores.probe import Probe
from lingualign.methods.neuron_scores.random_neurons import RandomNeurons
from lingualign.methods.neuron_scores.reliability import chance_overlap, jaccard, overlap, stability
from lingualign.models.chat import encode_chats

PLANTED = [3, 17, 64, 99]
WIDTH = 120
TEXTS = ["please tell me the steps at home", "the quick brown fox jumps over the lazy dog", "bread, please"]


def groups(count: int = 40, seed: int = 0, shift: float = 3.0) -> tuple[Tensor, Tensor]:
    """Noise in which the planted neurons fire higher in the first group."""
    generator = torch.Generator().manual_seed(seed)
    first, second = (torch.randn(count, WIDTH, generator=generator) for _ in range(2))
    first[:, PLANTED] += shift
    return first, second


def scores() -> list[NeuronScore]:
    return [
        MagnitudeOrEffect(),
        CohensD(),
        Probe(epochs=300),
        Plnd(column_norms=torch.ones(WIDTH)),
        GenerationContrast(),
        RandomNeurons(CohensD()),
    ]


@pytest.mark.parametrize("score", scores(), ids=lambda score: score.name)
def test_a_count_takes_the_highest_scores_in_ascending_order(score: NeuronScore) -> None:
    values = score.score(*groups())
    chosen = score.select(*groups(), 7)
    assert values.shape == (WIDTH,)
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert len(chosen) == 7
    others = sorted(set(range(WIDTH)) - set(chosen.tolist()))
    assert values[chosen].min() >= values[others].max()


@pytest.mark.parametrize("score", [MagnitudeOrEffect(), CohensD(), GenerationContrast()], ids=lambda score: score.name)
def test_planted_neurons_score_highest(score: NeuronScore) -> None:
    assert score.select(*groups(), len(PLANTED)).tolist() == PLANTED


def test_the_union_is_where_the_score_is_positive() -> None:
    rule = MagnitudeOrEffect(1.5, 0.4)
    first, second = groups()
    difference = (first.mean(0) - second.mean(0)).double().numpy()
    z = (difference - difference.mean()) / difference.std()
    d = CohensD().score(first, second).numpy()
    wanted = np.flatnonzero((z > 1.5) | (d > 0.4)).tolist()
    assert rule.select(first, second).tolist() == wanted
    assert (rule.score(first, second) > 0).nonzero().flatten().tolist() == wanted
    assert CohensD(0.4).select(first, second).tolist() == np.flatnonzero(d > 0.4).tolist()


def test_plnd_is_the_change_of_the_output_when_a_neuron_is_removed(tiny_model: Any) -> None:
    """The parallel form against removing each neuron in turn from the real MLP."""
    model, tokenizer = tiny_model
    mlp = model.model.layers[1].mlp
    chats = encode_chats(tokenizer, TEXTS)
    rows = collect_rows(model, chats, [Site("model.layers.1.mlp.down_proj", "input")], Positions(template_tokens=3))
    activations = next(iter(rows.values()))
    weight = mlp.down_proj.weight.detach()
    importance = Plnd(column_norms=weight.norm(dim=0)).importance(activations)
    for prompt in range(len(TEXTS)):
        for neuron in (0, 5, 95):
            without = activations[prompt].clone()
            without[:, neuron] = 0
            change = (activations[prompt] @ weight.T - without @ weight.T).norm()
            torch.testing.assert_close(importance[prompt, neuron], change, rtol=1e-3, atol=1e-5)


def test_plnd_keeps_what_is_strong_in_every_prompt() -> None:
    activations, _ = groups(count=5)
    norms = torch.rand(WIDTH, generator=torch.Generator().manual_seed(9)) + 0.5
    rule = Plnd(top_number=70, column_norms=norms)
    strength = (activations.abs() * norms).numpy()
    sets = [set(np.argsort(-row)[:70].tolist()) for row in strength]
    wanted = sorted(set.intersection(*sets))
    assert 0 < len(wanted) < 70
    assert rule.select(activations, activations).tolist() == wanted
    assert (worst_rank(rule.importance(activations)) <= 70).nonzero().flatten().tolist() == wanted


def test_plnd_as_released_sums_magnitudes_over_tokens() -> None:
    values = torch.randn(4, 3, WIDTH, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(Plnd().importance(values), values.abs().sum(1))
    torch.testing.assert_close(Plnd().importance(values[:, 0]), values[:, 0].abs())


def test_plnd_does_not_pass_for_a_selection_when_it_takes_everything() -> None:
    with pytest.raises(ConfigError, match="selects all 120 neurons"):
        Plnd(top_number=2000).select(*groups())


def test_generation_contrast_is_the_root_mean_square_difference() -> None:
    first, second = groups(count=9)
    wanted = [(sum(float(first[t, j] - second[t, j]) ** 2 for t in range(9)) / 9) ** 0.5 for j in range(WIDTH)]
    np.testing.assert_allclose(GenerationContrast().score(first, second).numpy(), wanted, rtol=1e-5)
    assert len(GenerationContrast().select(first, second)) == round(0.05 * WIDTH)
    with pytest.raises(DataError, match="same completions"):
        GenerationContrast().score(first, second[:5])


def test_random_takes_as_many_as_the_rule_it_stands_for() -> None:
    first, second = groups()
    chosen = RandomNeurons(CohensD(), seed=1).select(first, second)
    assert len(chosen) == len(CohensD().select(first, second))
    assert chosen.tolist() != RandomNeurons(CohensD(), seed=2).select(first, second).tolist()


def test_jaccard_and_overlap() -> None:
    sets = {"en": torch.tensor([1, 2, 3]), "it": torch.tensor([2, 3, 4]), "th": torch.tensor([9])}
    torch.testing.assert_close(overlap(sets), torch.tensor([[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1.0]]))
    empty = torch.tensor([], dtype=torch.long)
    assert jaccard(empty, empty) == 1.0
    assert jaccard(empty, sets["en"]) == 0.0


def test_stability_tells_signal_from_noise() -> None:
    signal = stability(CohensD(), *groups(), count=4)
    noise = stability(CohensD(), *groups(shift=0.0), count=4)
    assert signal == 1.0
    assert noise < 0.6
    assert stability(CohensD(), *groups(shift=0.0), count=4) == noise
    assert stability(CohensD(), *groups(shift=0.0), count=4, seed=1) != noise
    with pytest.raises(ConfigError, match="at least two"):
        stability(CohensD(), *groups(), count=4, resamples=1)


def test_paired_rows_are_drawn_together() -> None:
    """Two models that differ in one neuron by the same amount on every token: only unpaired draws would blur that."""
    first, _ = groups()
    second = first.clone()
    second[:, 8] += 0.01
    assert stability(GenerationContrast(), first, second, count=1) == 1.0


def test_chance_overlap_is_what_random_sets_have() -> None:
    drawn = [torch.randperm(WIDTH, generator=torch.Generator().manual_seed(s))[:30] for s in range(60)]
    mean = np.mean([jaccard(a, b) for a, b in zip(drawn[::2], drawn[1::2], strict=True)])
    assert chance_overlap(30, WIDTH) == pytest.approx(mean, abs=0.03)
