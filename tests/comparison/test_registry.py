"""The files of methods and models: those that ship are right, wrong ones are refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from method_comparison.registry import METHODS, MODELS, load_method, load_methods, load_model_file, names

from lingualign.cli.demo import DEMO_ANCHORS, DEMO_EDIT, DEMO_UTILITY_SEEDS
from lingualign.config import EditSettings
from lingualign.errors import ConfigError
from lingualign.pipeline import CONTROL_FRACTION, CONTROLS, PUBLISHED

RIGHT = 'description = "x"\nfit = "method_comparison.adapters:SparseEdit"\n'
EDIT = 'method = "lingualign.methods.sparse_weight_edit:SparseWeightEdit"\n'
ANCHORED = 'description = "x"\nfit = "method_comparison.adapters:Anchored"\n[parameters]\n'


def test_every_file_that_ships_is_right() -> None:
    assert set(load_methods()) == set(names(METHODS))
    assert [load_model_file(name).name for name in names(MODELS)] == names(MODELS)


def test_the_controls_are_those_of_the_package() -> None:
    methods = load_methods()
    assert {control.name for control in CONTROLS} <= methods.keys()
    for name, selection in (("random-neurons", "random"), ("selected-neurons", "paper")):
        assert methods[name].file.parameters == {"selection": selection, "fraction": CONTROL_FRACTION}
    published = {**EditSettings().model_dump(), **methods["paper-family"].file.parameters}
    assert published == {**EditSettings().model_dump(), **PUBLISHED}


def test_the_small_model_has_the_demos_settings() -> None:
    config = load_model_file("small").config
    assert config.prompts.anchor_languages == DEMO_ANCHORS
    assert config.edit == EditSettings.model_validate(DEMO_EDIT)
    assert config.utility.seeds == DEMO_UTILITY_SEEDS


def test_a_method_comes_after_the_one_that_it_is_made_from() -> None:
    assert list(load_methods(["sham", "random-neurons"])) == ["sparse-weight-edit", "sham", "random-neurons"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('description = "x"\n', "fit: Field required"),
        (RIGHT + "rank = 3\n", "rank: Extra inputs"),
        ("fit = [\n", "not valid TOML"),
        ('description = "x"\nfit = "nowhere:Nothing"\n', "cannot import nowhere:Nothing"),
        ('description = "x"\nfit = "method_comparison.adapters:Nothing"\n', "cannot import"),
        ('description = "x"\nfit = "lingualign.methods.sparse_weight_edit:SparseWeightEdit"\n', "is no Method"),
        (RIGHT + "[parameters]\nrnk = 3\n", "did you mean edit.rank?"),
        (RIGHT + '[parameters]\nrank = "many"\n', "edit.rank"),
        ('description = "x"\nfit = "method_comparison.adapters:NoEdit"\n[parameters]\nrank = 3\n', "other parameters"),
        (
            'description = "x"\nfit = "method_comparison.adapters:SafePrompt"\n[parameters]\nline = "x"\n',
            "no system line",
        ),
        (ANCHORED + 'method = "nowhere:Nothing"\n', "cannot import nowhere:Nothing"),
        (ANCHORED + 'method = "lingualign.methods.sparse_weight_edit:SparseWeightEdit"\nL2 = 3\n', "other parameters"),
        (ANCHORED + EDIT + "positions = {reply_token = 3}\n", "other parameters"),
        (RIGHT + 'base = "missing"\n', "there is no method missing"),
        (RIGHT + 'base = "mine"\n', "made from each other"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_it(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "mine.toml").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_methods(folder=tmp_path)
    message = str(caught.value)
    assert reason in message
    assert "mine" in message
    assert "\n" not in message


def test_an_unknown_method_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean sham"):
        load_method("shams")
