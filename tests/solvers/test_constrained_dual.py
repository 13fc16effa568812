"""The dual of constrained alignment: its derivatives, its optimum, and when there is none."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor

from lingualign.errors import ConfigError, NumericalError
from lingualign.solvers.constrained_dual import dual_at, joint_room, minimise_dual

SEEDS = st.integers(0, 10_000)
BETAS = st.sampled_from([0.02, 0.1, 1.0])


def _problem(seed: int, constraints: int, prompts: int = 8, samples: int = 10) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    reward = torch.randn(prompts, samples, generator=generator).double()
    shift = 0.5 * torch.rand(constraints, 1, 1, generator=generator)
    return reward, (torch.randn(constraints, prompts, samples, generator=generator) - shift).double()


def test_value_gradient_and_policy_are_those_of_a_plain_loop() -> None:
    reward, constraints = _problem(3, 2)
    multipliers, beta = torch.tensor([0.7, 0.2]).double(), 0.3
    value, gradient = 0.0, [0.0, 0.0]
    for x in range(8):
        tilts = [
            math.exp((reward[x, y] + sum(multipliers[j] * constraints[j, x, y] for j in range(2))) / beta)
            for y in range(10)
        ]
        value += beta * math.log(sum(tilts) / 10) / 8
        for j in range(2):
            gradient[j] += sum(t * float(constraints[j, x, y]) for y, t in enumerate(tilts)) / sum(tilts) / 8
    point = dual_at(multipliers, reward, constraints, beta)
    assert point.value == pytest.approx(value, abs=1e-12)
    assert point.gradient.tolist() == pytest.approx(gradient, abs=1e-12)
    assert point.policy.sum(1).tolist() == pytest.approx([1.0] * 8)


@given(SEEDS, st.integers(1, 3))
def test_derivatives_agree_with_finite_differences(seed: int, constraints: int) -> None:
    reward, h = _problem(seed, constraints)
    weights = torch.rand(8, generator=torch.Generator().manual_seed(seed)).double()
    weights /= weights.sum()
    multipliers = torch.rand(constraints, generator=torch.Generator().manual_seed(seed + 1)).double()
    point, step = dual_at(multipliers, reward, h, 0.5, weights), 1e-5
    for j in range(constraints):
        shift = torch.zeros(constraints).double()
        shift[j] = step
        above, below = (dual_at(multipliers + sign * shift, reward, h, 0.5, weights) for sign in (1, -1))
        assert (above.value - below.value) / (2 * step) == pytest.approx(float(point.gradient[j]), abs=1e-7)
        assert torch.allclose((above.gradient - below.gradient) / (2 * step), point.hessian[j], atol=1e-6)


@given(SEEDS, st.integers(1, 4), BETAS)
def test_optimum_is_that_of_scipy(seed: int, constraints: int, beta: float) -> None:
    reward, h = _problem(seed, constraints)
    if joint_room(h) < 0.05:
        return
    solution = minimise_dual(reward, h, beta)

    def objective(multipliers: np.ndarray) -> tuple[float, np.ndarray]:
        point = dual_at(torch.from_numpy(multipliers), reward, h, beta)
        return point.value, point.gradient.numpy()

    numeric = minimize(objective, np.zeros(constraints), jac=True, bounds=[(0, None)] * constraints, method="L-BFGS-B")
    assert solution.point.value <= numeric.fun + 1e-9
    assert solution.projected_gradient <= 1e-9 * float(h.abs().mean())
    # Complementary slackness: what is not met with equality costs nothing.
    assert float((solution.multipliers * solution.point.gradient).abs().max()) < 1e-6
    assert float(solution.point.gradient.min()) > -1e-8


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_the_papers_gradient_steps_converge_to_the_same_multiplier(beta: float) -> None:
    reward, safety = _problem(11, 1, prompts=40, samples=30)
    threshold = float(safety.mean()) + 0.8
    multiplier = 1.0
    for _ in range(20_000):
        policy = torch.softmax((reward + multiplier * (safety[0] - threshold)) / beta, 1)
        gradient = float((policy * (safety[0] - threshold)).sum(1).mean())
        multiplier = max(multiplier - 0.05 * gradient, 0.0)
    solution = minimise_dual(reward, safety - threshold, beta)
    assert multiplier > 0.1
    assert float(solution.multipliers[0]) == pytest.approx(multiplier, abs=1e-6)


def test_a_slack_constraint_costs_nothing() -> None:
    reward, h = _problem(5, 2)
    solution = minimise_dual(reward, torch.stack([h[0] + 10.0, h[1]]), 0.1)
    assert float(solution.multipliers[0]) == 0.0
    assert torch.allclose(solution.multipliers[1:], minimise_dual(reward, h[1:], 0.1).multipliers, atol=1e-7)


def test_infeasible_constraints_are_told_from_feasible_ones_near_them() -> None:
    reward, h = _problem(7, 1)
    best = float(h.amax(2).mean())
    assert float(minimise_dual(reward, h - (best - 1e-3), 0.1).multipliers[0]) > 0
    for beyond in (0.0, 1e-3, 5.0):
        with pytest.raises(ConfigError, match="lower the margin or sample more"):
            minimise_dual(reward, h - (best + beyond), 0.1)


def test_constraints_that_exclude_each_other_are_infeasible_together() -> None:
    reward, h = _problem(7, 1)
    opposed = torch.cat([h - 0.2, -h - 0.2])
    for alone in opposed:
        assert joint_room(alone[None]) > 0
    assert joint_room(opposed) == pytest.approx(-0.2, abs=1e-9)
    with pytest.raises(ConfigError):
        minimise_dual(reward, opposed, 0.1)


def test_constraints_on_separate_prompts_separate() -> None:
    reward, h = _problem(2, 2)
    members = torch.zeros(2, 8, 1).double()
    members[0, :4] = members[1, 4:] = 1.0
    h = (h - 0.5) * members
    solution = minimise_dual(reward, h, 0.1)
    for j, part in enumerate((slice(0, 4), slice(4, 8))):
        alone = minimise_dual(reward[part], h[j : j + 1, part], 0.1)
        assert float(solution.multipliers[j]) == pytest.approx(float(alone.multipliers[0]), abs=1e-6)
    assert float(solution.multipliers.min()) > 0


def test_effective_sample_size_runs_from_one_to_all() -> None:
    reward, h = _problem(1, 1)
    even = dual_at(torch.zeros(1).double(), torch.zeros(8, 10).double(), h, 0.1)
    assert even.effective_sample_size.tolist() == pytest.approx([10.0] * 8)
    sharp = dual_at(torch.zeros(1).double(), reward, h, 1e-4)
    assert sharp.effective_sample_size.tolist() == pytest.approx([1.0] * 8)


def test_scores_that_are_not_finite_are_refused() -> None:
    reward, h = _problem(1, 1)
    reward[0, 0] = torch.nan
    with pytest.raises(NumericalError, match="NaN"):
        minimise_dual(reward, h, 0.1)
