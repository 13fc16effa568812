"""The dual of KL-regularised alignment under constraints, minimised by a projected Newton method.

The problem max_π E[r] − β KL(π ‖ π_ref) subject to E_π[h_j] ≥ 0 has, by Donsker and Varadhan, the dual

    D(λ) = β E_x ln E_{y ~ π_ref(·|x)} exp((r(x, y) + Σ_j λ_j h_j(x, y)) / β),      λ* = argmin_{λ ≥ 0} D(λ)

and the optimal policy p(y|x) ∝ π_ref(y|x) exp((r + Σ_j λ*_j h_j) / β) (Huang et al. 2024, arXiv 2405.19544). With
responses sampled from π_ref the inner expectation is a log-mean-exp over them. D is convex and smooth:

    ∂D/∂λ_j = E_x E_p[h_j],      ∂²D/∂λ_j∂λ_k = E_x Cov_p(h_j, h_k) / β

Along a ray D(tμ)/t tends to E_x max_y Σ_j μ_j h_j(x, y), so a minimum exists exactly where that is positive for every
μ ≥ 0: the sampled responses can meet all constraints with room. All arithmetic is float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lingualign.errors import ConfigError, NumericalError

#: Steps of the Newton method; a dozen are usual.
_MOST_STEPS = 200


@dataclass(frozen=True)
class DualPoint:
    """The dual at one λ.

    Attributes:
        value: D(λ).
        gradient: (J,), the mean of each constraint under the tilted policy: ≥ 0 where it is met.
        hessian: (J, J), positive semi-definite.
        policy: (N, M), p(y|x) on the sampled responses; rows sum to one.
    """

    value: float
    gradient: Tensor
    hessian: Tensor
    policy: Tensor

    @property
    def effective_sample_size(self) -> Tensor:
        """(N,) 1/Σ_y p², how many of a prompt's M responses carry the estimate: near 1, one response decides."""
        return 1.0 / self.policy.square().sum(1)


@dataclass(frozen=True)
class DualSolution:
    """The minimiser.

    Attributes:
        multipliers: (J,) λ* ≥ 0; zero where a constraint is slack.
        point: the dual there.
        projected_gradient: largest absolute entry of λ − max(λ − ∇D, 0), zero at the optimum.
        steps: Newton steps taken.
    """

    multipliers: Tensor
    point: DualPoint
    projected_gradient: float
    steps: int


def dual_at(
    multipliers: Tensor, reward: Tensor, constraints: Tensor, beta: float, prompt_weights: Tensor | None = None
) -> DualPoint:
    """D, its derivatives and the tilted policy.

    Args:
        multipliers: λ, (J,).
        reward: r, (N, M): prompts by responses sampled from the reference policy.
        constraints: h, (J, N, M); zero for prompts that a constraint does not concern.
        beta: β > 0, the KL weight.
        prompt_weights: (N,) weights of the outer expectation that sum to one; by default equal.
    """
    count, samples = reward.shape
    weights = reward.new_full((count,), 1.0 / count) if prompt_weights is None else prompt_weights
    tilt = (reward + torch.tensordot(multipliers, constraints, 1)) / beta
    normaliser = torch.logsumexp(tilt, 1)
    policy = torch.exp(tilt - normaliser[:, None])
    means = (policy * constraints).sum(2)
    value = beta * float(weights @ (normaliser - math.log(samples)))
    # Centred first: the difference of second moments would lose a small variance.
    centred = (constraints - means[:, :, None]).flatten(1)
    hessian = (centred * (weights[:, None] * policy).flatten()) @ centred.T / beta
    return DualPoint(value, means @ weights, hessian, policy)


def attainable(constraints: Tensor, prompt_weights: Tensor | None = None) -> Tensor:
    """(J,) the largest mean each constraint can reach alone, E_x max_y h_j: with the best response everywhere."""
    best = constraints.amax(2)
    return best.mean(1) if prompt_weights is None else best @ prompt_weights


def joint_room(constraints: Tensor, prompt_weights: Tensor | None = None) -> float:
    """The largest t such that some policy over the sampled responses gives E[h_j] ≥ t for every j.

    Where each prompt takes part in one constraint only this is the least of `attainable`; else a linear programme.
    """
    alone = attainable(constraints, prompt_weights)
    if int((constraints != 0).any(2).sum(0).max()) <= 1:
        return float(alone.min())
    import numpy as np
    from scipy import sparse
    from scipy.optimize import linprog

    count, prompts, samples = constraints.shape
    weights = np.full(prompts, 1.0 / prompts) if prompt_weights is None else prompt_weights.numpy()
    values = (constraints.numpy() * weights[None, :, None]).reshape(count, -1)
    each_sums_to_one: Any = sparse.hstack(
        [sparse.kron(sparse.eye_array(prompts), np.ones((1, samples))), sparse.csr_array((prompts, 1))]
    )
    bounds: Any = [*[(0.0, None)] * (prompts * samples), (None, None)]
    result: Any = linprog(
        np.r_[np.zeros(prompts * samples), -1.0],
        A_ub=np.c_[-values, np.ones(count)],
        b_ub=np.zeros(count),
        A_eq=each_sums_to_one,
        b_eq=np.ones(prompts),
        bounds=bounds,
        method="highs",
    )
    return float(result.x[-1])


def minimise_dual(
    reward: Tensor,
    constraints: Tensor,
    beta: float,
    *,
    prompt_weights: Tensor | None = None,
    tolerance: float = 1e-9,
    start: Tensor | None = None,
) -> DualSolution:
    """λ* by Newton steps on the coordinates that may move, kept in λ ≥ 0, with backtracking (Bertsekas 1982, SIAM
    Journal on Control and Optimization 20:221).

    Args:
        reward, constraints, beta, prompt_weights: as in `dual_at`.
        tolerance: on the projected gradient, relative to the mean absolute constraint.
        start: λ to start from; by default zero.

    Raises:
        NumericalError: scores are not finite, or no convergence within 200 steps.
        ConfigError: no policy over the sampled responses meets the constraints with room.
    """
    reward, constraints = reward.double(), constraints.double()
    if not bool(torch.isfinite(reward).all() and torch.isfinite(constraints).all()):
        raise NumericalError("the scores hold NaN or infinite values; leave out the responses that could not be scored")
    scale = float(constraints.abs().mean())
    room = joint_room(constraints, prompt_weights)
    if room <= 1e-12 * scale:
        raise ConfigError(
            f"no re-weighting of the sampled responses meets the constraints (best margin {room:.3g}); "
            "lower the margin or sample more responses per prompt"
        )
    multipliers = constraints.new_zeros(len(constraints)) if start is None else start.double().clamp_min(0.0)
    point = dual_at(multipliers, reward, constraints, beta, prompt_weights)
    for step in range(_MOST_STEPS + 1):
        residual = float((multipliers - (multipliers - point.gradient).clamp_min(0.0)).abs().max())
        if residual <= tolerance * scale:
            return DualSolution(multipliers, point, residual, step)
        direction = _newton_direction(multipliers, point)
        multipliers, point = _backtrack(multipliers, point, direction, reward, constraints, beta, prompt_weights)
    raise NumericalError(
        f"the multipliers did not converge in {_MOST_STEPS} steps (projected gradient {residual:.2g}); raise beta"
    )


def _newton_direction(multipliers: Tensor, point: DualPoint) -> Tensor:
    """The step on free coordinates, −(H + δI)⁻¹∇D, at most four times as long as λ allows for.

    Where one response takes all the weight H vanishes and Newton's step would leave the range of numbers; there the
    length limit makes λ grow by a factor per step.
    """
    free = (multipliers > 0) | (point.gradient < 0)
    gradient = point.gradient[free]
    hessian = point.hessian[free][:, free]
    damping = 1e-12 * hessian.diagonal().mean() + 1e-300
    solved = torch.linalg.lstsq(hessian + damping * torch.eye(len(hessian), dtype=hessian.dtype), gradient).solution
    # A singular Hessian may give no descent: then the gradient itself.
    if not bool(torch.isfinite(solved).all()) or float(solved @ gradient) <= 0.0:
        solved = gradient
    longest = 4.0 * (1.0 + float(multipliers.norm()))
    length = float(solved.norm())
    direction = torch.zeros_like(multipliers)
    direction[free] = -solved * min(1.0, longest / length)
    return direction


def _backtrack(
    multipliers: Tensor,
    point: DualPoint,
    direction: Tensor,
    reward: Tensor,
    constraints: Tensor,
    beta: float,
    prompt_weights: Tensor | None,
) -> tuple[Tensor, DualPoint]:
    """The first of the steps 1, ½, ¼ … on the projected path that lowers D enough (Armijo)."""
    share = 1.0
    while True:
        trial = (multipliers + share * direction).clamp_min(0.0)
        found = dual_at(trial, reward, constraints, beta, prompt_weights)
        expected = min(0.0, float(point.gradient @ (trial - multipliers)))
        # Near the optimum the decrease is below rounding: a step that keeps D within it counts.
        rounding = 1e-14 * (1.0 + abs(point.value))
        if found.value <= point.value + 1e-4 * expected + rounding or share < 1e-12:
            return trial, found
        share /= 2
