"""The closed form against definitions: the objective written out, a numerical optimiser, ridge regression, limits."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lingualign.errors import NumericalError
from lingualign.solvers.low_rank import Solution, cholesky, solve_dual, solve_primal


@dataclass
class Problem:
    """Inputs X (n, d), targets D (n, m), keep inputs K (k, d) and the two weights."""

    inputs: Tensor
    targets: Tensor
    keep: Tensor
    keep_weight: float = 0.7
    ridge: float = 1e-2

    @classmethod
    def random(cls, n: int, d: int, m: int, k: int, seed: int = 0, **weights: float) -> Problem:
        generator = torch.Generator().manual_seed(seed)
        draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
        return cls(draw(n, d), draw(n, m), draw(k, d), **weights)

    def primal(self, rank: int | None = None) -> Solution:
        n, k = len(self.inputs), len(self.keep)
        return solve_primal(
            self.inputs.T @ self.inputs / n,
            self.inputs.T @ self.targets / n,
            float(self.targets.square().sum()) / n,
            self.keep.T @ self.keep / k,
            keep_weight=self.keep_weight,
            ridge=self.ridge,
            rank=rank,
        )

    def dual(self, rank: int | None = None) -> Solution:
        return solve_dual(
            self.inputs, self.targets, self.keep, keep_weight=self.keep_weight, ridge=self.ridge, rank=rank
        )

    @property
    def absolute_ridge(self) -> float:
        n, k, d = len(self.inputs), len(self.keep), self.inputs.shape[1]
        trace = self.inputs.square().sum() / n + self.keep_weight * self.keep.square().sum() / k
        return self.ridge * float(trace) / d

    def objective(self, delta_transposed: Tensor) -> Tensor:
        """‖XΔWᵀ − D‖²/n + γ‖KΔWᵀ‖²/k + μ‖ΔW‖², term by term as the module's text states it."""
        fit = (self.inputs @ delta_transposed - self.targets).square().sum() / len(self.inputs)
        kept = (self.keep @ delta_transposed).square().sum() / len(self.keep)
        return fit + self.keep_weight * kept + self.absolute_ridge * delta_transposed.square().sum()


def delta_transposed(solution: Solution) -> Tensor:
    return solution.in_factor @ solution.out_factor.T


def numerical_optimum(problem: Problem, rank: int, restarts: int = 4) -> float:
    """Best value L-BFGS finds on ΔWᵀ = A Bᵀ from several random starts."""
    best = float("inf")
    d, m = problem.inputs.shape[1], problem.targets.shape[1]
    for seed in range(restarts):
        generator = torch.Generator().manual_seed(100 + seed)
        factors = [
            torch.randn(size, rank, generator=generator, dtype=torch.float64).mul_(0.3).requires_grad_()
            for size in (d, m)
        ]
        optimiser = torch.optim.LBFGS(
            factors,
            max_iter=400,
            tolerance_grad=1e-11,
            tolerance_change=1e-14,
            history_size=20,
            line_search_fn="strong_wolfe",
        )

        def closure(optimiser: torch.optim.LBFGS = optimiser, factors: list[Tensor] = factors) -> Tensor:
            optimiser.zero_grad()
            value = problem.objective(factors[0] @ factors[1].T)
            value.backward()
            return value

        optimiser.step(closure)
        best = min(best, float(closure().detach()))
    return best


# Optimality


@pytest.mark.parametrize(
    ("n", "d", "m", "k", "rank"), [(30, 6, 5, 12, 2), (30, 6, 5, 12, 4), (5, 9, 7, 4, 1), (5, 9, 7, 4, 3)]
)
def test_closed_form_is_what_a_numerical_optimiser_finds(n: int, d: int, m: int, k: int, rank: int) -> None:
    problem = Problem.random(n, d, m, k, seed=n + rank)
    numerical = numerical_optimum(problem, rank)
    for solution in (problem.primal(rank), problem.dual(rank)):
        value = float(problem.objective(delta_transposed(solution)))
        assert value == pytest.approx(numerical, rel=1e-6)
        assert value <= numerical * (1 + 1e-9)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 24),
    d=st.integers(1, 16),
    m=st.integers(1, 12),
    k=st.integers(1, 20),
    rank=st.integers(1, 14),
    seed=st.integers(0, 1000),
    keep_weight=st.sampled_from([0.0, 0.1, 1.0, 30.0]),
    ridge=st.sampled_from([1e-3, 1e-1, 1.0]),
)
def test_value_formula_primal_equals_dual_and_perturbations_never_win(
    n: int, d: int, m: int, k: int, rank: int, seed: int, keep_weight: float, ridge: float
) -> None:
    problem = Problem.random(n, d, m, k, seed=seed, keep_weight=keep_weight, ridge=ridge)
    primal, dual = problem.primal(rank), problem.dual(rank)
    for solution in (primal, dual):
        value = float(problem.objective(delta_transposed(solution)))
        # ‖D‖²/n − Σσ² is the objective evaluated directly.
        assert solution.objective == pytest.approx(value, rel=1e-8, abs=1e-10)
        assert solution.ridge == pytest.approx(problem.absolute_ridge, rel=1e-12)
        assert 0.0 <= solution.explained <= 1.0 + 1e-12
        assert solution.rank <= min(rank, n, d, m)
        identity = torch.eye(solution.rank, dtype=torch.float64)
        torch.testing.assert_close(solution.out_factor.T @ solution.out_factor, identity, rtol=0, atol=1e-10)
        generator = torch.Generator().manual_seed(seed)
        for size in (1e-3, 1e-1):
            moved = [
                f + size * torch.randn(f.shape, generator=generator, dtype=f.dtype)
                for f in (solution.in_factor, solution.out_factor)
            ]
            assert float(problem.objective(moved[0] @ moved[1].T)) >= value - 1e-10
    torch.testing.assert_close(delta_transposed(primal), delta_transposed(dual), rtol=1e-6, atol=1e-8)
    shared = min(len(primal.singular_values), len(dual.singular_values))
    torch.testing.assert_close(primal.singular_values[:shared], dual.singular_values[:shared], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("n", "d"), [(64, 16), (9, 40)])
def test_primal_equals_dual_to_a_millionth(n: int, d: int) -> None:
    problem = Problem.random(n, d, 12, 7, ridge=1e-3)
    first, second = delta_transposed(problem.primal(3)), delta_transposed(problem.dual(3))
    assert float((first - second).norm() / first.norm()) < 1e-6
    # The keep set takes part: without it the solution is another one.
    problem.keep_weight = 0.0
    assert float((delta_transposed(problem.dual(3)) - second).norm() / second.norm()) > 1e-2


# The rank


def test_without_rank_limit_it_is_ridge_regression() -> None:
    problem = Problem.random(20, 6, 8, 10)
    n, k = 20, 10
    system = problem.inputs.T @ problem.inputs / n + problem.keep_weight * problem.keep.T @ problem.keep / k
    system += problem.absolute_ridge * torch.eye(6, dtype=torch.float64)
    ridge = torch.linalg.solve(system, problem.inputs.T @ problem.targets / n)
    for rank in (None, 6, 50):
        for solution in (problem.primal(rank), problem.dual(rank)):
            torch.testing.assert_close(delta_transposed(solution), ridge, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("n", "d", "m"), [(3, 9, 7), (20, 4, 7), (20, 9, 2)])
def test_rank_never_exceeds_rows_inputs_or_outputs(n: int, d: int, m: int) -> None:
    problem = Problem.random(n, d, m, 5)
    for solution in (problem.primal(), problem.dual()):
        assert solution.rank == min(n, d, m)
        assert int(torch.linalg.matrix_rank(delta_transposed(solution))) == min(n, d, m)


@pytest.mark.parametrize("form", ["primal", "dual"])
@pytest.mark.parametrize("rank", [1, 3, 6])
def test_a_solution_begins_with_those_of_lower_rank(form: str, rank: int) -> None:
    problem = Problem.random(30, 8, 6, 10)
    whole, lower = getattr(problem, form)(None), getattr(problem, form)(rank)
    begun = whole.in_factor[:, :rank] @ whole.out_factor[:, :rank].T
    torch.testing.assert_close(begun, delta_transposed(lower), rtol=1e-9, atol=1e-12)


def test_each_further_rank_buys_its_squared_singular_value() -> None:
    problem = Problem.random(30, 8, 6, 10)
    values = [problem.primal(rank).objective for rank in range(1, 7)]
    sigma = problem.primal().singular_values
    gains = torch.tensor([before - after for before, after in pairwise(values)], dtype=torch.float64)
    torch.testing.assert_close(gains, sigma[1:6].square(), rtol=1e-8, atol=1e-12)
    assert (gains > 0).all()


def test_targets_of_zero_give_the_empty_edit() -> None:
    problem = Problem.random(6, 4, 3, 5)
    problem.targets.zero_()
    for solution in (problem.primal(2), problem.dual(2)):
        assert solution.rank == 0
        assert delta_transposed(solution).abs().max() == 0
        assert solution.explained == 0.0


# Limits


@pytest.mark.parametrize("form", ["primal", "dual"])
def test_heavy_keep_weight_silences_the_keep_set_and_still_fits(form: str) -> None:
    """K spans 3 of 10 directions; as γ grows with μ held, KΔWᵀ → 0 like 1/γ while the fit outside K's span stays."""
    leaks, explained = [], []
    for keep_weight in (1.0, 1e3, 1e6):
        problem = Problem.random(40, 10, 5, 3, keep_weight=keep_weight)
        # λ is relative to the trace, which grows with γ: hold μ itself.
        problem.ridge = 1e-3 / (problem.absolute_ridge / problem.ridge)
        solution = getattr(problem, form)(5)
        leaks.append(float((problem.keep @ delta_transposed(solution)).norm()))
        explained.append(solution.explained)
    assert leaks[1] < leaks[0] * 1e-2
    assert leaks[2] < leaks[1] * 1e-2
    assert explained[2] > 0.05
    assert explained[2] == pytest.approx(explained[1], rel=1e-2)


@pytest.mark.parametrize("form", ["primal", "dual"])
def test_heavy_ridge_gives_no_edit(form: str) -> None:
    norms = []
    for ridge in (1.0, 1e3, 1e6):
        problem = Problem.random(20, 6, 5, 8, ridge=ridge)
        norms.append(float(delta_transposed(getattr(problem, form)(5)).norm()))
    assert norms[2] < 1e-5
    assert norms[0] > norms[1] > norms[2]


@pytest.mark.parametrize("form", ["primal", "dual"])
def test_weights_do_not_depend_on_row_counts(form: str) -> None:
    problem = Problem.random(7, 10, 5, 4)
    repeated = Problem(problem.inputs.repeat(3, 1), problem.targets.repeat(3, 1), problem.keep.repeat(5, 1))
    first, second = (delta_transposed(getattr(p, form)(2)) for p in (problem, repeated))
    torch.testing.assert_close(first, second, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("form", ["primal", "dual"])
@pytest.mark.parametrize("scale", [1e-3, 50.0])
def test_weights_do_not_depend_on_the_scale_of_the_features(form: str, scale: float) -> None:
    problem = Problem.random(12, 8, 5, 9)
    scaled = Problem(problem.inputs * scale, problem.targets * scale, problem.keep * scale)
    first, second = (getattr(p, form)(2) for p in (problem, scaled))
    torch.testing.assert_close(delta_transposed(first), delta_transposed(second), rtol=1e-8, atol=1e-11)
    assert first.explained == pytest.approx(second.explained, rel=1e-9)


def test_arguments_are_not_changed() -> None:
    problem = Problem.random(6, 5, 4, 3)
    gram, cross = problem.inputs.T @ problem.inputs / 6, problem.inputs.T @ problem.targets / 6
    keep_gram = problem.keep.T @ problem.keep / 3
    before = [gram.clone(), cross.clone(), keep_gram.clone()]
    solve_primal(gram, cross, 1.0, keep_gram, keep_weight=1.0, ridge=0.1, rank=2)
    for left, right in zip((gram, cross, keep_gram), before, strict=True):
        assert torch.equal(left, right)


# Bad input


@pytest.mark.parametrize("form", ["primal", "dual"])
@pytest.mark.parametrize("part", ["inputs", "targets", "keep"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_named(form: str, part: str, value: float) -> None:
    problem = Problem.random(6, 5, 4, 3)
    getattr(problem, part)[1, 2] = value
    with pytest.raises(NumericalError, match="NaN or infinite"):
        getattr(problem, form)(2)


def test_singular_primal_system_without_ridge_is_refused() -> None:
    """A neuron that never fires leaves a zero row in the Gram matrix."""
    problem = Problem.random(20, 6, 4, 5, ridge=0.0)
    problem.inputs[:, 3] = 0.0
    problem.keep[:, 3] = 0.0
    with pytest.raises(NumericalError, match=r"size 6 is not positive definite.*raise `ridge`"):
        problem.primal(2)


@pytest.mark.parametrize("seed", range(8))
def test_singular_kernel_without_ridge_is_refused(seed: int) -> None:
    """Repeated rows, or more rows than inputs: rounding makes a zero eigenvalue positive as often as not and must not
    hide it."""
    problem = Problem.random(3, 12, 4, 2, seed=seed, ridge=0.0)
    repeated = Problem(problem.inputs.repeat(3, 1), problem.targets.repeat(3, 1), problem.keep, ridge=0.0)
    for singular in (repeated, Problem.random(9, 6, 4, 2, seed=seed, ridge=0.0)):
        with pytest.raises(NumericalError, match="kernel is singular"):
            singular.dual(2)


def test_cholesky_factor_and_its_refusals() -> None:
    matrix = torch.tensor([[4.0, 2.0], [2.0, 3.0]], dtype=torch.float64)
    upper = cholesky(matrix)
    torch.testing.assert_close(upper.T @ upper, matrix)
    with pytest.raises(NumericalError, match="size 2 is not positive definite"):
        cholesky(torch.tensor([[1.0, 2.0], [2.0, 1.0]], dtype=torch.float64))
