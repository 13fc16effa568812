"""Whose settings win: the model's file, the base's blocks, the method's file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from method_comparison.adapters import Anchored, SafePrompt, Sham, SparseEdit, SparseEditOfFewSeeds
from method_comparison.registry import load_model_file
from method_comparison.treatment import Context, Method

from lingualign.edit import Edit
from lingualign.errors import ConfigError
from lingualign.evaluate.judge import OfflineJudge
from lingualign.models.load import load_model
from lingualign.prompts import resolve_prompts


def context(model: Path, base: Edit | None = None) -> Context:
    unused: Any = None
    return Context(load_model_file(str(model)).config, unused, unused, unused, 7, model.parent, base)


def test_the_models_settings_hold_where_a_method_has_none(model_file: Path) -> None:
    settings = SparseEdit(rank=4).settings(context(model_file))
    assert (settings.layers, settings.rank, settings.ridge, settings.seed) == ((1, 2), 4, 0.1, 7)


def test_a_control_is_in_the_blocks_of_its_base(model_file: Path) -> None:
    settings = SparseEdit(selection="random", fraction=0.25).settings(
        context(model_file, Edit({}, {}, {"layers": [3]}))
    )
    assert (settings.layers, settings.selection) == ((3,), "random")


def test_a_base_without_chosen_blocks_is_one_line(model_file: Path) -> None:
    base = Edit({}, {}, {"method": "mpo"})
    with pytest.raises(ConfigError, match="an edit by mpo names no blocks") as caught:
        SparseEdit(selection="random").settings(context(model_file, base))
    assert "\n" not in str(caught.value)


def test_a_methods_own_blocks_win(model_file: Path) -> None:
    assert SparseEdit(layers="auto").settings(context(model_file)).layers == "auto"


def test_a_method_of_the_package_gets_what_it_takes(model_file: Path, tmp_path: Path) -> None:
    config = load_model_file(str(model_file)).config
    loaded = load_model(config.model, precision="float32", device="cpu")
    prompts = resolve_prompts(config)

    def fitted(method: Method, base: Edit | None = None) -> Edit:
        given = Context(config, loaded, prompts, OfflineJudge(), 7, tmp_path / "features", base)
        change = method.fit(given).change
        assert isinstance(change, Edit)
        return change

    path = "lingualign.methods.sparse_weight_edit:SparseWeightEdit"
    settings: dict[str, Any] = {"rank": 4, "ridge": 0.1, "selection": "random", "fraction": 0.5}
    by_path = fitted(Anchored(path, **settings), Edit({}, {}, {"layers": [3]}))
    assert by_path.manifest["layers"] == [3]
    assert by_path.manifest["settings"]["seed"] == 7
    assert by_path.fingerprint == fitted(SparseEdit(**settings, layers=[3])).fingerprint
    few = fitted(SparseEditOfFewSeeds(every=2, languages_per_seed=1, **settings, layers=[3]))
    assert few.manifest["anchor_pairs"] == -(-len(prompts.fit.seeds("harmful")) // 2)
    early = fitted(Anchored(path, **settings, layers=[0], positions={"template_tokens": 1, "reply_tokens": 0}))
    assert early.manifest["layers"] == [0]
    assert early.manifest["settings"]["positions"]["template_tokens"] == 1


def test_a_sham_needs_a_base(model_file: Path) -> None:
    with pytest.raises(ConfigError, match="name that as `base`"):
        Sham().fit(context(model_file))


def test_a_system_line_is_no_change_of_weights_and_not_nothing(model_file: Path) -> None:
    treatment = SafePrompt().fit(context(model_file))
    assert treatment.system is not None
    assert isinstance(treatment.change, Edit)
    assert not treatment.change.deltas
    assert not treatment.is_nothing
