"""The sweep on a tiny model: scores are what the edits of the same settings do to held-out prompts."""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from plain_anchors import plain_anchors

from lingualign.edit import Edit
from lingualign.errors import ConfigError, DataError
from lingualign.features import store
from lingualign.features.collect import Site, collect_rows
from lingualign.features.positions import Positions
from lingualign.features.store import FeatureSource
from lingualign.methods.anchor_features import AnchorFeatures
from lingualign.methods.anchors import Anchors
from lingualign.methods.sparse_weight_edit import SparseWeightEdit
from lingualign.methods.sweep import HELD_OUT, Score, Setting, Sweep, is_held_out, pareto_front, sweep
from lingualign.models.chat import encode_chats
from lingualign.models.locate import locate_mlps

POSITIONS = Positions(template_tokens=2)
LAYERS = (1, 2)
BASE = Setting(
    keep_weight=3.0,
    look_alike_weight=2.0,
    reference_weight=4.0,
    ridge=1e-2,
    null_space=None,
    rank=5,
    strength=1.0,
    layers=LAYERS,
)


@pytest.fixture
def anchors() -> Anchors:
    return plain_anchors(("it", "de"))


def _features(tiny_model: Any, anchors: Anchors, method: SparseWeightEdit, cache: Path | None = None) -> AnchorFeatures:
    model, tokenizer = tiny_model
    source = FeatureSource(model, "", pad_id=tokenizer.pad_token_id, cache=cache)
    return AnchorFeatures(method, model, tokenizer, anchors, source, {}, {})


def _method(**changes: Any) -> SparseWeightEdit:
    options: dict[str, Any] = {"layers": LAYERS, "positions": POSITIONS, "propagation": "none", "solver": "primal"}
    return SparseWeightEdit(**{**options, **changes})


def _swept(tiny_model: Any, anchors: Anchors, settings: list[Setting], **changes: Any) -> Sweep:
    return sweep(_features(tiny_model, anchors, _method(**changes)), settings)


def _solved_from(anchors: Anchors) -> Anchors:
    return replace(
        anchors,
        pairs=tuple(pair for pair in anchors.pairs if not is_held_out(pair[1].seed_id)),
        keep=tuple(prompt for prompt in anchors.keep if not is_held_out(prompt.seed_id)),
    )


def _fit(tiny_model: Any, anchors: Anchors, setting: Setting, **changes: Any) -> Edit:
    """The edit of one setting from what the sweep solves from."""
    method = _method(**{**asdict(setting), **changes})
    return method.fit(*tiny_model, _solved_from(anchors))


def _score(tiny_model: Any, anchors: Anchors, edit: Edit, family: str) -> tuple[dict[str, float], dict[Any, float]]:
    """The definitions, written out on dense matrices, one prompt after the other."""
    model, tokenizer = tiny_model
    mlps = locate_mlps(model)

    def rows(text: str, site: Site) -> torch.Tensor:
        return collect_rows(model, encode_chats(tokenizer, [text]), [site], POSITIONS)[site][0].double()

    def matrices(layer: int) -> list[tuple[str, Site, Site]]:
        found = [mlps[layer].down_matrix] if family == "output" else list(mlps[layer].inner_matrices)
        return [(one.parameter, Site(one.module, "input"), Site(one.module, "output")) for one in found]

    pairs = [pair for pair in anchors.pairs if is_held_out(pair[1].seed_id)]
    keep = [prompt for prompt in anchors.keep if is_held_out(prompt.seed_id)]
    explained = dict.fromkeys(anchors.languages, 0.0)
    change = dict.fromkeys({(prompt.kind, prompt.language) for prompt in keep}, 0.0)
    for layer in LAYERS:
        for parameter, inputs, outputs in matrices(layer):
            if parameter not in edit.deltas:
                continue
            delta = edit.deltas[parameter].dense().double()
            index = edit.deltas[parameter].rows
            changed = slice(None) if index is None else index
            share = 1 / (len(LAYERS) * len(matrices(layer)))
            for language in explained:
                left = gap = 0.0
                for reference, low in pairs:
                    if low.language == language:
                        target = (rows(reference.text, outputs) - rows(low.text, outputs))[:, changed]
                        added = (rows(low.text, inputs) @ delta.T)[:, changed]
                        left, gap = left + float((added - target).square().sum()), gap + float(target.square().sum())
                explained[language] += share * (1 - left / gap)
            for kind, language in change:
                moved = energy = 0.0
                for prompt in keep:
                    if (prompt.kind, prompt.language) == (kind, language):
                        moved += float((rows(prompt.text, inputs) @ delta.T).square().sum())
                        energy += float(rows(prompt.text, outputs)[:, changed].square().sum())
                change[kind, language] += share * moved / energy
    return explained, change


@pytest.mark.parametrize(
    ("setting", "changes"),
    [
        (BASE, {}),
        (replace(BASE, rank=None, strength=0.6), {}),
        (replace(BASE, keep_weight=30.0, layers=(2,)), {}),
        (replace(BASE, null_space=0.2), {}),
        (replace(BASE, rank=2), {"solver": "dual"}),
        (BASE, {"family": "paper", "selection": "random", "fraction": 0.5}),
        (BASE, {"selection": "random", "fraction": 0.5}),
    ],
    ids=["plain", "no-rank", "one-block", "null-space", "dual", "paper", "columns"],
)
def test_scores_are_what_the_edit_does_to_held_out_prompts(
    tiny_model: Any, anchors: Anchors, setting: Setting, changes: dict[str, Any]
) -> None:
    # Beside others, from which it must not take anything.
    others = [
        replace(BASE, keep_weight=0.1, rank=1),
        replace(setting, rank=1),
        replace(setting, rank=None, strength=2.0),
        replace(setting, look_alike_weight=9.0),
    ]
    found = _swept(tiny_model, anchors, [others[0], setting, *others[1:]], **changes).scores[1]
    edit = _fit(tiny_model, anchors, setting, **changes)
    explained, change = _score(tiny_model, anchors, edit, changes.get("family", "output"))
    assert found.setting == setting
    assert found.explained_by_language == pytest.approx(explained, rel=1e-3, abs=1e-4)
    assert found.change_by_group == pytest.approx(change, rel=1e-3, abs=1e-6)
    assert found.explained == pytest.approx(sum(explained.values()) / 2, rel=1e-3, abs=1e-4)
    assert found.worst_explained == min(found.explained_by_language.values())
    leaks = [value for (kind, _), value in change.items() if kind != "harmful"]
    assert len(leaks) == 6
    assert found.leakage == pytest.approx(sum(leaks) / 6, rel=1e-3)
    assert found.worst_leakage == pytest.approx(max(leaks), rel=1e-3)
    assert found.reference_change == pytest.approx(change["harmful", "en"], rel=1e-3)


def test_held_out_prompts_are_not_solved_from(tiny_model: Any, anchors: Anchors) -> None:
    """What is scored on may change at will: with other held-out prompts of the keep set, explained stays."""
    other = replace(
        anchors,
        keep=tuple(
            replace(prompt, text=prompt.text + " and more") if is_held_out(prompt.seed_id) else prompt
            for prompt in anchors.keep
        ),
    )
    first, second = (_swept(tiny_model, kept, [BASE]).scores[0] for kept in (anchors, other))
    assert second.explained_by_language == pytest.approx(first.explained_by_language, rel=1e-4)
    assert second.leakage != pytest.approx(first.leakage, rel=1e-3)


def test_a_hash_of_the_seed_holds_out_a_fifth() -> None:
    held = sum(is_held_out(f"seed-{number}") for number in range(2000))
    assert held / 2000 == pytest.approx(HELD_OUT, abs=0.03)


def test_one_solve_serves_all_ranks_strengths_and_windows(
    tiny_model: Any, anchors: Anchors, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lingualign.methods.sweep as module

    calls = []
    solve = module.solve_primal
    monkeypatch.setattr(module, "solve_primal", lambda *given, **options: calls.append(1) or solve(*given, **options))
    settings = [
        replace(BASE, keep_weight=keep_weight, rank=rank, strength=strength, layers=layers)
        for keep_weight, rank, strength, layers in product(
            (1.0, 10.0), (1, 4, None), (0.5, 1.0), ((1,), (2,), (1, 2), None)
        )
    ]
    found = _swept(tiny_model, anchors, settings)
    assert len(found.scores) == 48
    assert found.solves == 2
    assert len(calls) == 2 * len(LAYERS)
    by_setting = {score.setting: score for score in found.scores}
    parts = [by_setting[replace(BASE, keep_weight=1.0, rank=4, layers=(layer,))] for layer in LAYERS]
    whole = by_setting[replace(BASE, keep_weight=1.0, rank=4)]
    assert whole.explained == pytest.approx(sum(part.explained for part in parts))
    assert whole.leakage == pytest.approx(sum(part.leakage for part in parts))


def test_stronger_keeping_leaks_less_and_explains_less(tiny_model: Any, anchors: Anchors) -> None:
    weights = (0.0, 1.0, 100.0)
    scores = _swept(tiny_model, anchors, [replace(BASE, keep_weight=weight) for weight in weights]).scores
    leaks = [score.leakage for score in scores]
    assert leaks == sorted(leaks, reverse=True)
    assert scores[2].explained < max(score.explained for score in scores)


def test_a_second_sweep_and_a_fit_of_all_anchors_read_no_model(
    tiny_model: Any, anchors: Anchors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = sweep(_features(tiny_model, anchors, _method(), tmp_path), [BASE])

    def no_pass(*_arguments: object, **_options: object) -> Any:
        raise AssertionError("a forward pass")

    monkeypatch.setattr(store, "collect_rows", no_pass)
    monkeypatch.setattr(store, "stream_features", no_pass)
    again = sweep(_features(tiny_model, anchors, _method(), tmp_path), [replace(BASE, rank=2), BASE])
    assert again.scores[1] == first.scores[0]
    edit = _method(**asdict(BASE)).fit(*tiny_model, anchors, cache=tmp_path)
    assert edit.manifest["anchor_pairs"] == len(anchors.pairs)


def _scored(explained: float, leakage: float) -> Score:
    return Score(BASE, {"it": explained}, {("harmless", "it"): leakage})


def test_the_front_holds_what_nothing_beats() -> None:
    good = [_scored(0.1, 0.0), _scored(0.4, 0.1), _scored(0.6, 0.3)]
    beaten = [_scored(0.1, 0.05), _scored(0.4, 0.2), _scored(0.3, 0.1), _scored(-1.0, 0.4)]
    assert pareto_front([beaten[0], good[2], beaten[1], good[0], beaten[2], good[1], beaten[3], good[1]]) == good


def test_too_few_prompts_are_named(tiny_model: Any) -> None:
    few = plain_anchors(("it",), count=1)
    with pytest.raises(DataError, match="none in it is held out"):
        _swept(tiny_model, few, [BASE])


def test_null_space_needs_second_moments(tiny_model: Any, anchors: Anchors) -> None:
    with pytest.raises(ConfigError, match="solver = 'primal'"):
        _swept(tiny_model, anchors, [replace(BASE, null_space=0.1)], solver="dual")
