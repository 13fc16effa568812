"""The grid of a sweep: values of settings from `--set` and a TOML file, checked as a configuration is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from itertools import product
from pathlib import Path
from typing import Any

from lingualign.config import NONE, RunConfig, build_config, read_toml
from lingualign.errors import ConfigError
from lingualign.methods.sweep import Setting

#: Values by setting.
Grid = Mapping[str, Sequence[Any]]
#: The settings that a sweep may change.
SWEPT = tuple(field.name for field in fields(Setting))
#: Ten solves for each matrix, 240 settings.
DEFAULT_GRID: Grid = {
    "keep_weight": (3.0, 5.0, 10.0, 20.0, 50.0),
    "look_alike_weight": (1.0, 3.0),
    "rank": (8, 16, 32, 64, 128, None),
    "strength": (0.5, 0.75, 1.0, 1.25),
}


def read_grid(file: Path | None, assignments: Sequence[str]) -> Grid:
    """The grid of a TOML file (`keep_weight = [3, 10]`) with assignments (`keep_weight=3,10`) in place of the file's,
    or the default one where neither is given.

    A value may be `none`; blocks are `9-15`, or a list of their indices in the file.

    Raises:
        ConfigError: the file cannot be read, or a line of either names no setting that can be swept or has no values.
    """
    if file and not file.is_file():
        raise ConfigError(f"cannot read {file}; give --grid a TOML file")
    given: dict[str, Any] = read_toml(file) if file else {}
    for assignment in assignments:
        name, _, words = assignment.partition("=")
        given[name.strip()] = [_number(word.strip()) for word in words.split(",") if word.strip()]
    for name, values in given.items():
        if name not in SWEPT:
            raise ConfigError(f"a sweep cannot change {name!r}; it takes {', '.join(SWEPT)}")
        if not isinstance(values, list) or not values:
            raise ConfigError(f"{name} has no list of values; give some, such as --set {name}=A,B")
    return {name: [_value(name, value) for value in values] for name, values in given.items()} or DEFAULT_GRID


def settings_of(config: RunConfig, grid: Grid) -> list[Setting]:
    """Every combination of the grid's values; what the grid does not name is the configuration's.

    Raises:
        ConfigError: a value is wrong, or layers are left to be chosen by audits.
    """
    checked = {
        name: [getattr(_with(config, {name: value}).edit, name) for value in values] for name, values in grid.items()
    }
    if weakest := [value for value in checked.get("strength", ()) if value <= 0]:
        raise ConfigError(f"strength: a sweep takes values above 0 (got {weakest[0]:g})")
    layers = config.edit.layers
    if layers == "select" and "layers" not in grid:
        raise ConfigError('layers = "select" audits many edits; name the blocks, such as --set layers=3-8,6-11')
    base = {
        **{name: getattr(config.edit, name) for name in SWEPT},
        # Blocks that the method chooses are known once it has read the model.
        "layers": None if isinstance(layers, str) else layers,
    }
    return [
        Setting(**{**base, **dict(zip(checked, values, strict=True))})
        for values in dict.fromkeys(product(*checked.values()))
    ]


def collecting(config: RunConfig, settings: Sequence[Setting]) -> RunConfig:
    """The configuration whose features serve all the settings: all their blocks, of the unedited model."""
    blocks = sorted({layer for setting in settings for layer in setting.layers or ()})
    null_spaces = [setting.null_space for setting in settings if setting.null_space is not None]
    return _with(
        config,
        {
            "propagation": "none",
            "layers": blocks or config.edit.layers,
            # With any of them, moments are collected rather than rows.
            "null_space": null_spaces[0] if null_spaces else None,
        },
    )


def configured(config: RunConfig, setting: Setting) -> RunConfig:
    """The configuration of one setting, from the unedited model's features as it was scored."""
    return _with(config, {**asdict(setting), "propagation": "none"})


def _with(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    values = config.model_dump()
    changed = build_config({**values, "edit": {**values["edit"], **changes}}, "sweep")
    # Whether the settings go together is the method's to say.
    if changed.edit.layers != "select":
        changed.edit.method()
    return changed


def _number(word: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word


def _value(name: str, value: Any) -> Any:
    if value == NONE:
        return None
    if name != "layers":
        return value
    if isinstance(value, int):
        return (value,)
    if isinstance(value, list):
        return tuple(value)
    first, _, last = str(value).partition("-")
    if not (first.isdigit() and last.isdigit() and int(first) <= int(last)):
        raise ConfigError(f"layers: {value!r} is no window of blocks; give it as FIRST-LAST, such as --set layers=3-8")
    return tuple(range(int(first), int(last) + 1))
