"""Safety neurons: planted ones are found, thresholds are the paper's, and the random control has the same count."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lingualign.errors import ConfigError
from lingualign.methods.selection import (
    effect_size,
    magnitude_score,
    paper_neurons,
    probe_neurons,
    random_neurons,
    select_neurons,
)

PLANTED = [3, 17, 64, 99]


def activations(width: int = 120, count: int = 40, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise; the planted neurons fire three deviations higher on harmful prompts, and one neuron three lower."""
    generator = torch.Generator().manual_seed(seed)
    harmful, harmless = (torch.randn(count, width, generator=generator) for _ in range(2))
    harmful[:, PLANTED] += 3.0
    harmful[:, 50] -= 3.0
    return harmful, harmless


def test_planted_neurons_are_found_and_inhibited_ones_are_not() -> None:
    assert paper_neurons(*activations()).tolist() == PLANTED


def test_scores_are_the_definitions() -> None:
    harmful, harmless = activations(width=100, count=11)
    a, b = harmful.double().numpy(), harmless[:9].double().numpy()
    difference = a.mean(0) - b.mean(0)
    z = (difference - difference.mean()) / difference.std()
    np.testing.assert_allclose(magnitude_score(harmful, harmless[:9]).numpy(), z, rtol=1e-4, atol=1e-5)
    pooled = np.sqrt((10 * a.var(0, ddof=1) + 8 * b.var(0, ddof=1)) / 18)
    np.testing.assert_allclose(effect_size(harmful, harmless[:9]).numpy(), difference / pooled, rtol=1e-4, atol=1e-5)


def test_the_rule_is_the_union_of_two_thresholds() -> None:
    harmful, harmless = activations()
    # A tiny but perfectly consistent shift: large d, small z. A large, noisy shift: large z, small d.
    harmless[:, 10] *= 1e-4
    harmful[:, 10] = harmless[:, 10] + 5e-4
    noise = torch.randn(40, generator=torch.Generator().manual_seed(4))
    harmless[:, 11], harmful[:, 11] = noise * 40, noise * 40 + 12
    d, z = effect_size(harmful, harmless), magnitude_score(harmful, harmless)
    assert d[10] > 1
    assert z[10] < 2
    assert d[11] < 1
    assert z[11] > 2
    chosen = paper_neurons(harmful, harmless).tolist()
    assert 10 in chosen
    assert 11 in chosen
    assert 10 not in paper_neurons(harmful, harmless, effect_threshold=1e9).tolist()
    assert 11 not in paper_neurons(harmful, harmless, magnitude_threshold=1e9).tolist()
    assert paper_neurons(harmful, harmless, 1e9, 1e9).tolist() == []


def test_neurons_that_never_vary_do_not_break_the_scores() -> None:
    harmful, harmless = torch.zeros(4, 6), torch.zeros(4, 6)
    assert torch.isfinite(magnitude_score(harmful, harmless)).all()
    assert paper_neurons(harmful, harmless).tolist() == []


@pytest.mark.parametrize(("harmful", "harmless"), [(1, 5), (5, 1)])
def test_one_prompt_is_not_enough(harmful: int, harmless: int) -> None:
    with pytest.raises(ConfigError, match="at least two"):
        effect_size(torch.randn(harmful, 4), torch.randn(harmless, 4))


def test_probe_finds_planted_neurons_among_few_others() -> None:
    found = set(probe_neurons(*activations(width=600, count=200)).tolist())
    assert found >= set(PLANTED)
    assert len(found) <= 8
    assert 50 not in found


def test_probe_repeats_by_seed() -> None:
    harmful, harmless = activations()
    first, again, other = (probe_neurons(harmful, harmless, threshold=1.0, epochs=20, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_select_neurons() -> None:
    harmful, harmless = activations()

    def select(selection: str, fraction: float | None = None, seed: int = 0) -> torch.Tensor | None:
        return select_neurons(
            selection,  # type: ignore[arg-type]  # parametrised over the literal's values
            harmful,
            harmless,
            magnitude_threshold=2.0,
            effect_threshold=1.0,
            fraction=fraction,
            seed=seed,
        )

    assert select("all") is None
    paper, random = select("paper"), select("random")
    assert paper is not None
    assert random is not None
    assert paper.tolist() == PLANTED
    assert len(random) == len(paper)
    assert random.tolist() == sorted(set(random.tolist()))
    assert random.tolist() != paper.tolist()
    for fraction, count in ((0.05, 6), (1e-9, 1), (1.0, 120)):
        top, drawn = select("paper", fraction), select("random", fraction)
        assert top is not None
        assert drawn is not None
        assert len(top) == len(drawn) == count
        assert top.tolist() == sorted(top.tolist())
    best = select("paper", 4 / 120)
    assert best is not None
    assert best.tolist() == PLANTED


def test_random_neurons_repeat_by_seed() -> None:
    assert torch.equal(random_neurons(5, 100, seed=1), random_neurons(5, 100, seed=1))
    assert not torch.equal(random_neurons(5, 100, seed=1), random_neurons(5, 100, seed=2))
    assert random_neurons(4, 4, seed=0).tolist() == [0, 1, 2, 3]
