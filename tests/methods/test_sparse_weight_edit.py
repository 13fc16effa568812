"""The whole fit on a tiny model: what it aims at, what it may touch, and that both solvers mean the same."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from plain_anchors import plain_anchors

from lingualign.errors import ConfigError
from lingualign.features.collect import Site, collect_rows
from lingualign.features.positions import Positions
from lingualign.methods.anchors import Anchors
from lingualign.methods.sparse_weight_edit import SparseWeightEdit
from lingualign.models.chat import encode_chats
from lingualign.models.locate import locate_mlps

POSITIONS = Positions(template_tokens=2)


@pytest.fixture
def anchors() -> Anchors:
    return plain_anchors()


def _rows(tiny_model: Any, texts: list[str], site: Site) -> torch.Tensor:
    return collect_rows(tiny_model[0], encode_chats(tiny_model[1], texts), [site], POSITIONS)[site]


def test_output_moves_to_the_reference_and_the_model_is_left_alone(tiny_model: Any, anchors: Anchors) -> None:
    model, tokenizer = tiny_model
    before = copy.deepcopy(model.state_dict())
    edit = SparseWeightEdit(layers=[1], keep_weight=0.0, ridge=1e-6, rank=None, positions=POSITIONS).fit(
        model, tokenizer, anchors
    )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    site = Site(locate_mlps(model)[1].down, "output")
    reference = _rows(tiny_model, [pair[0].text for pair in anchors.pairs], site)
    texts = [pair[1].text for pair in anchors.pairs]
    gap = (_rows(tiny_model, texts, site) - reference).norm()
    with edit.applied(model):
        assert (_rows(tiny_model, texts, site) - reference).norm() < 0.05 * gap
    assert edit.manifest["diagnostics"][0]["explained"] > 0.99


@pytest.mark.parametrize("family", ["paper", "output"])
@pytest.mark.parametrize("selection", ["paper", "random"])
def test_only_declared_rows_or_columns_change(tiny_model: Any, anchors: Anchors, selection: Any, family: Any) -> None:
    axis = 0 if family == "paper" else 1
    method = SparseWeightEdit(family=family, selection=selection, fraction=0.25, layers=[0], positions=POSITIONS)
    edit = method.fit(*tiny_model, anchors)
    assert len(edit.deltas) == (2 if family == "paper" else 1)
    for delta in edit.deltas.values():
        index = delta.rows if axis == 0 else delta.columns
        assert index is not None
        changed = delta.dense().abs().sum(1 - axis).nonzero().flatten()
        assert set(changed.tolist()) <= set(index.tolist())
        assert len(index) == round(0.25 * delta.shape[axis])


@pytest.mark.parametrize("weights", [{}, {"reference_weight": 5.0}, {"look_alike_weight": 4.0}], ids=str)
def test_primal_and_dual_fit_the_same_edit(tiny_model: Any, anchors: Anchors, weights: dict[str, Any]) -> None:
    solvers: tuple[Any, Any] = ("primal", "dual")
    edits = [
        SparseWeightEdit(layers=[2], rank=3, positions=POSITIONS, solver=solver, **weights).fit(*tiny_model, anchors)
        for solver in solvers
    ]
    for name, delta in edits[0].deltas.items():
        other = edits[1].deltas[name].dense()
        assert (delta.dense() - other).norm() < 1e-3 * other.norm()


@pytest.mark.parametrize(("name", "kind"), [("reference_weight", "harmful"), ("look_alike_weight", "look-alike")])
def test_a_group_counted_more_often_changes_less(tiny_model: Any, anchors: Anchors, name: str, kind: str) -> None:
    site = Site(locate_mlps(tiny_model[0])[1].down, "input")
    texts = [prompt.text for prompt in anchors.keep if prompt.kind == kind]
    rows = _rows(tiny_model, texts, site).flatten(0, 1)

    def leak(weight: float) -> float:
        options: dict[str, Any] = {name: weight}
        method = SparseWeightEdit(layers=[1], positions=POSITIONS, **options)
        delta = next(iter(method.fit(*tiny_model, anchors).deltas.values()))
        return float((rows @ delta.dense().T).norm())

    assert leak(100.0) < 0.5 * leak(1.0)


@pytest.mark.parametrize("propagation", ["sequential", "split"])
def test_propagation_changes_later_layers_only(tiny_model: Any, anchors: Anchors, propagation: Any) -> None:
    def fit(how: Any) -> Any:
        return SparseWeightEdit(layers=[1, 2], propagation=how, positions=POSITIONS).fit(*tiny_model, anchors)

    plain, carried = fit("none"), fit(propagation)
    first, second = plain.deltas
    share = 2 if propagation == "split" else 1
    assert torch.allclose(plain.deltas[first].dense(), share * carried.deltas[first].dense(), atol=1e-5)
    assert not torch.allclose(plain.deltas[second].dense(), carried.deltas[second].dense(), atol=1e-6)


def test_sequential_layers_all_reach_the_unedited_reference(tiny_model: Any, anchors: Anchors) -> None:
    mlps = locate_mlps(tiny_model[0])
    sites = [Site(mlps[layer].down, "output") for layer in (1, 2, 3)]
    reference = [_rows(tiny_model, [pair[0].text for pair in anchors.pairs], site) for site in sites]
    texts = [pair[1].text for pair in anchors.pairs]

    def gaps(how: Any) -> list[float]:
        method = SparseWeightEdit(
            layers=[1, 2, 3], keep_weight=0.0, ridge=1e-6, rank=None, propagation=how, positions=POSITIONS
        )
        with method.fit(*tiny_model, anchors).applied(tiny_model[0]):
            found = [_rows(tiny_model, texts, site) for site in sites]
        return [float((row - wanted).norm() / wanted.norm()) for row, wanted in zip(found, reference, strict=True)]

    assert max(gaps("sequential")) < 0.02
    # Without propagation the later layers answer to inputs that the earlier ones no longer give.
    assert max(gaps("none")) > 0.1


def test_settings_that_cannot_work_are_named(tiny_model: Any, anchors: Anchors) -> None:
    with pytest.raises(ConfigError, match="it has blocks 0 to 3"):
        SparseWeightEdit(layers=[9], positions=POSITIONS).fit(*tiny_model, anchors)
    with pytest.raises(ConfigError, match="set reply_tokens to 0"):
        SparseWeightEdit(layers=[1], positions=Positions(1, reply_tokens=2)).fit(*tiny_model, anchors)
    with pytest.raises(ConfigError, match="solver='primal'"):
        SparseWeightEdit(solver="dual", null_space=0.1)


def test_layers_are_chosen_without_labels(tiny_model: Any, anchors: Anchors) -> None:
    edit = SparseWeightEdit(layer_count=2, positions=POSITIONS).fit(*tiny_model, anchors)
    layers = edit.manifest["layers"]
    assert len(layers) == 2
    assert layers[1] == layers[0] + 1
    assert len(edit.manifest["layer_scores"]) == 4
