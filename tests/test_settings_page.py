"""docs/settings.md names every setting with its default."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from lingualign.config import RunConfig

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "settings.md").read_text(encoding="utf-8")
#: Defaults that the page tells in words.
IN_WORDS = {None, (), ("builtin",)}


def _settings(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _settings(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", None if field.is_required() else field.default


def _rows() -> dict[str, str]:
    """The default's column by setting."""
    rows: dict[str, str] = {}
    for line in PAGE.splitlines():
        if line.startswith("| `"):
            names, default, _ = (cell.strip() for cell in line.strip("|").split("|"))
            values = [part.strip() for part in default.split(", ")]
            found = re.findall(r"`([^`]+)`", names)
            rows |= dict(zip(found, values if len(found) > 1 else [default], strict=True))
    return rows


def test_every_setting_is_on_the_page_and_nothing_else() -> None:
    assert set(_rows()) == {name for name, _ in _settings(RunConfig)}


@pytest.mark.parametrize(("name", "default"), [item for item in _settings(RunConfig) if item[1] not in IN_WORDS])
def test_the_page_tells_the_default(name: str, default: Any) -> None:
    shown = _rows()[name].strip("`")
    assert shown == (str(default).lower() if isinstance(default, bool) else str(default))
