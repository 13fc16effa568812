"""Objects by their import path, as the files of methods name them."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from lingualign.errors import ConfigError


def imported(path: str) -> Any:
    """What `MODULE:NAME` names.

    Raises:
        ConfigError: it cannot be imported.
    """
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"cannot import {path} ({error}); give MODULE:CLASS") from None


def made(path: str, parameters: Mapping[str, Any]) -> Any:
    """The object of the class at a path.

    Raises:
        ConfigError: it cannot be imported, or takes other parameters.
        UserError: it refuses a parameter's value.
    """
    kind = imported(path)
    try:
        inspect.signature(kind).bind(**parameters)
    except TypeError as error:
        raise ConfigError(f"{path} has other parameters ({error}); correct them") from None
    return kind(**parameters)


def keywords(function: Callable[..., Any]) -> set[str]:
    """Names that a function or class takes."""
    return set(inspect.signature(function).parameters)
