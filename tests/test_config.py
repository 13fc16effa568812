"""Settings: round trip through TOML, errors that name the setting, the same defaults as the method."""

from __future__ import annotations

import inspect
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lingualign.config import NONE, EditSettings, PositionSettings, RunConfig, build_config, dump_config, load_config
from lingualign.errors import ConfigError
from lingualign.features.positions import Positions
from lingualign.methods.sparse_weight_edit import POSITIONS, SparseWeightEdit

TAGS = st.lists(st.sampled_from(["en", "zh", "th", "bn", "sw"]), min_size=1, unique=True)


@given(
    st.fixed_dictionaries(
        {
            "model": st.text(min_size=1),
            "prompts": st.fixed_dictionaries({}, optional={"languages": TAGS, "seeds_per_kind": st.integers(1, 99)}),
            "audit": st.fixed_dictionaries({}, optional={"system": st.text(), "batch_size": st.integers(1, 512)}),
            "edit": st.fixed_dictionaries(
                {},
                optional={
                    "rank": st.one_of(st.just(NONE), st.integers(1, 512)),
                    "layers": st.one_of(st.just("auto"), st.lists(st.integers(0, 80))),
                    "fraction": st.floats(0.01, 1),
                    "ridge": st.floats(0, 1),
                    "positions": st.just({"template_tokens": 2, "prompt_mean": True}),
                },
            ),
            "seed": st.integers(0, 2**31),
        }
    )
)
def test_toml_round_trip(values: dict[str, Any]) -> None:
    config = build_config(values)
    assert build_config(tomllib.loads(dump_config(config))) == config


def test_load_config_reads_what_was_dumped(tmp_path: Path) -> None:
    config = build_config({"model": "small", "edit": {"rank": None}})
    (tmp_path / "c.toml").write_text(dump_config(config), encoding="utf-8")
    assert load_config(tmp_path / "c.toml") == config
    assert config.edit.rank is None


def test_edit_settings_mirror_the_method() -> None:
    parameters = inspect.signature(SparseWeightEdit.__init__).parameters
    method = {name: parameter.default for name, parameter in parameters.items() if name not in ("self", "positions")}
    settings = {name: field.default for name, field in EditSettings.model_fields.items() if name != "positions"}
    assert settings == method
    assert PositionSettings().model_dump() == vars(POSITIONS)


def test_method_gets_every_parameter() -> None:
    values = {"rank": 3, "layers": [1, 2], "ridge": 0.5, "positions": {"template_tokens": 1, "reply_tokens": 2}}
    method = build_config({"model": "m", "edit": values}).edit.method()
    assert (method.rank, tuple(method.layers), method.ridge) == (3, (1, 2), 0.5)
    assert method.positions == Positions(1, False, 2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": "m", "edit": {"rnak": 3}}, "unknown setting edit.rnak; did you mean edit.rank?"),
        ({"model": "m", "sede": 3}, "unknown setting sede; did you mean seed?"),
        ({"model": "m", "edit": {"positions": {"template": 3}}}, "did you mean edit.positions.template_tokens?"),
        ({}, "model is missing; set it"),
        ({"model": "m", "edit": {"rank": 0}}, "edit.rank: Input should be greater than or equal to 1 (got 0)"),
        ({"model": "m", "prompts": {"languages": ["xx"]}}, "prompts.languages: unknown language 'xx'"),
        ({"model": "m", "reference": "qq"}, "reference: unknown language 'qq'"),
        ({"model": "m", "prompts": 3}, "prompts: "),
    ],
)
def test_errors_name_the_setting_in_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_config(values, "c.toml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("c.toml: ")
    assert "\n" not in str(caught.value)


def test_one_line_for_each_wrong_setting() -> None:
    with pytest.raises(ConfigError) as caught:
        build_config({"model": "m", "seed": "x", "edit": {"layers": "foo", "ridge": -1}})
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[1] for line in lines] == ["edit.layers", "edit.ridge", "seed"]


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        load_config(tmp_path / "absent.toml")
    (tmp_path / "bad.toml").write_text("model = ")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_config(tmp_path / "bad.toml")


def test_settings_are_frozen() -> None:
    config = RunConfig(model="m")
    with pytest.raises(ValidationError):
        config.seed = 3  # type: ignore[misc]  # that it fails is the point
