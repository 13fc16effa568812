"""The operation counter agrees with PyTorch's own, and knows the factorisations that that one does not count."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from method_comparison.flops import FlopCounter
from torch.utils.flop_counter import FlopCounterMode


def test_forward_and_backward_of_a_model_are_what_pytorch_counts(tiny_model: tuple[Any, Any]) -> None:
    model, _ = tiny_model
    model.set_attn_implementation("eager")
    ids = torch.arange(24).reshape(2, 12)
    with FlopCounterMode(display=False) as theirs, torch.no_grad():
        model(ids)
    with FlopCounter() as forward, torch.no_grad():
        model(ids)
    assert forward.products == theirs.get_total_flops()
    assert forward.backward == 0
    with FlopCounterMode(display=False) as theirs:
        model(ids, labels=ids).loss.backward()
    with FlopCounter() as trained:
        model(ids, labels=ids).loss.backward()
    assert trained.products == forward.products
    assert trained.products + trained.backward == pytest.approx(theirs.get_total_flops(), rel=0.01)


def test_frozen_weights_cost_no_gradient_of_theirs(tiny_model: tuple[Any, Any]) -> None:
    model, _ = tiny_model
    model.requires_grad_(False)
    model.get_input_embeddings().weight.requires_grad_(True)
    with FlopCounter() as counter:
        model(torch.arange(8)[None], labels=torch.arange(8)[None])
    linear = sum(2 * 8 * part.weight.numel() for part in model.modules() if isinstance(part, torch.nn.Linear))
    assert linear <= counter.backward < 1.5 * linear


def test_attention_counts_both_products() -> None:
    query, key, value = torch.ones(2, 3, 5, 8), torch.ones(2, 3, 7, 8), torch.ones(2, 3, 7, 4)
    with FlopCounter() as counter:
        torch.nn.functional.scaled_dot_product_attention(query, key, value)
    assert counter.products == 2 * 2 * 3 * 5 * 7 * (8 + 4)


@pytest.mark.parametrize(
    ("work", "flops"),
    [
        (lambda a, b: a @ b, 2 * 6 * 6 * 4),
        (lambda a, b: torch.einsum("ij,jk->ik", a, b), 2 * 6 * 6 * 4),
        (lambda a, b: torch.addmm(b, a, b), 2 * 6 * 6 * 4),
        (lambda a, _b: torch.bmm(a[None], a[None]), 2 * 6**3),
    ],
)
def test_products(work: Any, flops: int) -> None:
    with FlopCounter() as counter:
        work(torch.eye(6), torch.ones(6, 4))
    assert (counter.products, counter.factorisations) == (flops, 0)


@pytest.mark.parametrize(
    ("work", "flops"),
    [
        (lambda a, _b: torch.linalg.cholesky_ex(a), 6**3 // 3),
        (lambda a, _b: torch.linalg.eigh(a), 9 * 6**3),
        (lambda a, b: torch.linalg.solve(a, b), 2 * 6**3 // 3 + 2 * 6 * 24),
        (lambda a, b: torch.linalg.solve_triangular(a, b, upper=True), 6 * 24),
        (lambda _a, b: torch.linalg.svd(b, full_matrices=False), 6 * 6 * 4**2 + 20 * 4**3),
        (lambda _a, b: torch.linalg.qr(b), 4 * 6 * 4**2 - 4 * 4**3 // 3),
        (lambda a, _b: torch.linalg.inv(torch.stack([a, a])), 2 * 2 * 6**3),
    ],
)
def test_factorisations(work: Any, flops: int) -> None:
    with FlopCounter() as counter:
        work(torch.eye(6), torch.ones(6, 4))
    assert (counter.products, counter.factorisations) == (0, flops)
