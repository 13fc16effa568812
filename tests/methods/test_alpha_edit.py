"""AlphaEdit and MEMIT on a tiny model: against a plain loop over the published equations, and our own method."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from plain_anchors import plain_anchors

from lingualign.edit import Edit
from lingualign.errors import ConfigError
from lingualign.features.collect import Site, collect_rows
from lingualign.features.positions import Positions
from lingualign.methods.alpha_edit import AlphaEdit, Memit
from lingualign.methods.sparse_weight_edit import SparseWeightEdit
from lingualign.models.chat import encode_chats

POSITIONS = Positions(template_tokens=2)
DOWN = "model.layers.{}.mlp.down_proj"


def _rows(tiny_model: Any, texts: list[str], layer: int, side: Any) -> torch.Tensor:
    model, tokenizer = tiny_model
    site = Site(DOWN.format(layer), side)
    return collect_rows(model, encode_chats(tokenizer, texts), [site], POSITIONS)[site].flatten(0, 1).double()


def test_alpha_edit_is_a_plain_loop_over_its_equation(tiny_model: Any) -> None:
    anchors, L2, layers = plain_anchors(("it", "sw"), count=4), 0.5, [1, 2]
    method = AlphaEdit(
        nullspace_threshold=0.1, threshold="relative", L2=L2, layers=layers, batches="language", positions=POSITIONS
    )
    edit = method.fit(*tiny_model, anchors)

    kept = [prompt.text for prompt in anchors.keep]
    projectors = {}
    for layer in layers:
        K0 = _rows(tiny_model, kept, layer, "input").T
        values, vectors = torch.linalg.eigh(K0 @ K0.T / K0.shape[1])
        U = vectors[:, values <= 0.1 * values.mean()]
        assert 0 < U.shape[1] < 96
        projectors[layer] = U @ U.T
    wanted = {
        (language, layer): _rows(
            tiny_model,
            [reference.text for reference, low in anchors.pairs if low.language == language],
            layer,
            "output",
        ).T
        for language in ("it", "sw")
        for layer in layers
    }
    model = copy.deepcopy(tiny_model[0])
    cache = {layer: torch.zeros(96, 96, dtype=torch.float64) for layer in layers}
    for language in ("it", "sw"):
        texts = [low.text for _, low in anchors.pairs if low.language == language]
        for index, layer in enumerate(layers):
            K1 = _rows((model, tiny_model[1]), texts, layer, "input").T
            R = (wanted[language, layer] - _rows((model, tiny_model[1]), texts, layer, "output").T) / (2 - index)
            P = projectors[layer]
            delta = R @ K1.T @ P @ torch.linalg.inv(cache[layer] @ P + K1 @ K1.T @ P + L2 * torch.eye(96).double())
            with torch.no_grad():
                model.get_parameter(DOWN.format(layer) + ".weight").add_(delta.float())
        for layer in layers:
            # As in the authors' code, after the whole batch.
            K1 = _rows((model, tiny_model[1]), texts, layer, "input").T
            cache[layer] += K1 @ K1.T
    for layer in layers:
        name = DOWN.format(layer) + ".weight"
        expected = model.get_parameter(name) - tiny_model[0].get_parameter(name)
        assert expected.norm() > 1e-3
        assert (edit.deltas[name].dense() - expected).norm() < 1e-3 * expected.norm()


def test_the_null_space_keeps_what_is_to_be_kept(tiny_model: Any) -> None:
    anchors = plain_anchors()
    edit = AlphaEdit(nullspace_threshold=1e-9, L2=1e-3, layers=[1], positions=POSITIONS).fit(*tiny_model, anchors)
    delta = edit.deltas[DOWN.format(1) + ".weight"].dense().double()
    kept = _rows(tiny_model, [prompt.text for prompt in anchors.keep], 1, "input")
    low = _rows(tiny_model, [prompt.text for _, prompt in anchors.pairs], 1, "input")
    assert float((low @ delta.T).abs().max()) > 1e-2
    assert float((kept @ delta.T).abs().max()) < 1e-4
    about = edit.manifest["diagnostics"][0]
    assert 0 < about["null_directions"] < 96
    assert about["rank"] <= len(low)


def test_the_change_of_the_keep_set_is_recorded(tiny_model: Any) -> None:
    anchors = plain_anchors()
    edit = Memit(mom2_update_weight=10.0, layers=[1], positions=POSITIONS).fit(*tiny_model, anchors)
    kept = _rows(tiny_model, [prompt.text for prompt in anchors.keep], 1, "input")
    moved = kept @ edit.deltas[DOWN.format(1) + ".weight"].dense().double().T
    expected = float(moved.square().sum(1).mean().sqrt())
    assert edit.manifest["diagnostics"][0]["keep_change"] == pytest.approx(expected, rel=0.02)


def test_memit_is_our_soft_keep_set_with_matched_weights(tiny_model: Any) -> None:
    # One layer, one batch, no rank limit, every keep prompt counted once, γ = mom2_update_weight / number of keys.
    anchors = plain_anchors()
    keys = len(anchors.pairs) * POSITIONS.rows
    memit = Memit(mom2_update_weight=300.0, ridge=1e-3, layers=[2], positions=POSITIONS).fit(*tiny_model, anchors)
    ours = SparseWeightEdit(
        layers=[2],
        rank=None,
        keep_weight=300.0 / keys,
        look_alike_weight=1.0,
        reference_weight=1.0,
        ridge=1e-3,
        solver="primal",
        positions=POSITIONS,
    ).fit(*tiny_model, anchors)
    for name, delta in ours.deltas.items():
        assert (memit.deltas[name].dense() - delta.dense()).norm() < 2e-4 * delta.dense().norm()


def test_past_keys_keep_the_languages_done(tiny_model: Any) -> None:
    anchors = plain_anchors(("it", "sw"))
    italian = [low.text for _, low in anchors.pairs if low.language == "it"]
    method = Memit(mom2_update_weight=1.0, layers=[1], batches="language", positions=POSITIONS)
    both = method.fit(*tiny_model, anchors)
    first = method.fit(*tiny_model, plain_anchors(("it",)))
    with first.applied(tiny_model[0]):
        done = _rows(tiny_model, italian, 1, "output")
    with both.applied(tiny_model[0]):
        after = _rows(tiny_model, italian, 1, "output")
    start = _rows(tiny_model, italian, 1, "output")
    assert (after - done).norm() < 0.5 * (done - start).norm()
    assert [row["languages"] for row in both.manifest["diagnostics"]] == [["it"], ["sw"]]


def test_a_cache_changes_nothing(tiny_model: Any, tmp_path: Any) -> None:
    anchors = plain_anchors(("it", "sw"))

    def fit(weight: float, **cache: Any) -> str:
        method = Memit(mom2_update_weight=weight, layers=[1, 2], batches="language", positions=POSITIONS)
        return method.fit(*tiny_model, anchors, **cache).fingerprint

    cache = {"cache": tmp_path, "fingerprint": "tiny"}
    # The second setting shares the unedited model's features with the first, and no other.
    assert [fit(5.0, **cache), fit(50.0, **cache), fit(5.0, **cache)] == [fit(5.0), fit(50.0), fit(5.0)]


def test_without_the_split_every_layer_takes_all_of_its_gap(tiny_model: Any) -> None:
    def change_of_the_first(split: bool) -> float:
        method = Memit(mom2_update_weight=1e-3, layers=[0, 1, 2], split=split, positions=POSITIONS)
        name = DOWN.format(0) + ".weight"
        return float(method.fit(*tiny_model, plain_anchors()).deltas[name].dense().norm())

    assert change_of_the_first(False) == pytest.approx(3 * change_of_the_first(True), rel=1e-4)


@pytest.mark.parametrize("method", [AlphaEdit(threshold="relative", layer_count=2), Memit(layer_count=2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_model_is_left_as_it_was_and_the_edit_survives_the_disk(
    tiny_model: Any, tmp_path: Any, method: Any, dtype: torch.dtype
) -> None:
    model, tokenizer = tiny_model[0].to(dtype), tiny_model[1]
    before = copy.deepcopy(model.state_dict())
    edit = method.fit(model, tokenizer, plain_anchors())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert len(edit.deltas) == 2
    assert all(bool(torch.isfinite(delta.dense()).all()) for delta in edit.deltas.values())
    again = Edit.load(edit.save(tmp_path / "edit.safetensors"))
    assert again.manifest == json.loads(json.dumps(edit.manifest))
    assert again.fingerprint == edit.fingerprint
    assert {"method", "citation", "faithfulness", "settings", "layer_silhouettes"} <= set(again.manifest)
    with again.applied(model):
        pass


def test_settings_that_cannot_work_are_named(tiny_model: Any) -> None:
    with pytest.raises(ConfigError, match="raise it, or give threshold='relative'"):
        AlphaEdit(nullspace_threshold=-1.0, layers=[1]).fit(*tiny_model, plain_anchors())
    with pytest.raises(ConfigError, match="it has blocks 0 to 3"):
        Memit(layers=[4]).fit(*tiny_model, plain_anchors())
    with pytest.raises(ConfigError, match="must be positive"):
        AlphaEdit(L2=0.0)
