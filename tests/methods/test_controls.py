"""The sham edit: as large as the real one in every tensor, in the same places, in an unrelated direction."""

from __future__ import annotations

import pytest
import torch

from lingualign.edit import Edit, LowRankDelta
from lingualign.methods.controls import frobenius, sham_edit


def make_edit() -> Edit:
    generator = torch.Generator().manual_seed(3)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    deltas = {
        "a.weight": LowRankDelta(draw(20, 3) * 7, draw(30, 3), (20, 30)),
        "b.weight": LowRankDelta(draw(2, 2) * 0.01, draw(30, 2), (20, 30), rows=torch.tensor([4, 9])),
        "c.weight": LowRankDelta(draw(20, 1), draw(3, 1) * 5, (20, 30), columns=torch.tensor([0, 1, 29])),
    }
    return Edit(deltas, dict.fromkeys(deltas, "base"), {"method": "real"})


def test_frobenius_is_the_norm_of_the_product() -> None:
    for delta in make_edit().deltas.values():
        expected = float((delta.out_factor.double() @ delta.in_factor.double().T).norm())
        assert frobenius(delta.out_factor, delta.in_factor) == pytest.approx(expected, rel=1e-9)


def test_sham_has_the_norm_rank_and_places_of_every_tensor_and_another_direction() -> None:
    edit = make_edit()
    sham = sham_edit(edit, seed=0)
    assert sham.base == edit.base
    assert list(sham.deltas) == list(edit.deltas)
    for name, delta in edit.deltas.items():
        other = sham.deltas[name]
        assert float(other.dense().norm()) == pytest.approx(float(delta.dense().norm()), rel=1e-5)
        assert (other.shape, other.rank) == (delta.shape, delta.rank)
        assert torch.equal(other.dense().abs().sum(1) > 0, delta.dense().abs().sum(1) > 0)
        assert torch.equal(other.dense().abs().sum(0) > 0, delta.dense().abs().sum(0) > 0)
        cosine = float((other.dense() * delta.dense()).sum() / delta.dense().norm() ** 2)
        assert abs(cosine) < 0.5


def test_sham_repeats_by_seed_and_says_what_it_is() -> None:
    edit = make_edit()
    first, again, other = sham_edit(edit, 1), sham_edit(edit, 1), sham_edit(edit, 2)
    assert torch.equal(first.deltas["a.weight"].dense(), again.deltas["a.weight"].dense())
    assert not torch.equal(first.deltas["a.weight"].dense(), other.deltas["a.weight"].dense())
    assert first.manifest["method"] == "sham"
    assert first.manifest["norm_of"] == {"method": "real"}


def test_sham_of_an_empty_change_is_empty() -> None:
    empty = Edit({"a.weight": LowRankDelta(torch.zeros(4, 0), torch.zeros(5, 0), (4, 5))}, {"a.weight": "base"})
    zero = Edit({"a.weight": LowRankDelta(torch.zeros(4, 2), torch.zeros(5, 2), (4, 5))}, {"a.weight": "base"})
    for edit in (empty, zero):
        assert float(sham_edit(edit, 0).deltas["a.weight"].dense().abs().sum()) == 0
