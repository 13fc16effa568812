"""`result.json` against its JSON Schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from lingualign.result_schema import SCHEMA_FILE, ResultDocument, result_schema

DEMO = Path(__file__).parents[2] / "evidence" / "demo.json"


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.fixture
def result(finished_run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((finished_run / "result.json").read_text())
    return content


def test_shipped_schema_is_the_generated_one() -> None:
    assert json.loads(SCHEMA_FILE.read_text(encoding="utf-8")) == result_schema(), (
        "write it anew: python -m lingualign.result_schema"
    )


def test_run_writes_what_the_schema_says(validator: Draft202012Validator, result: dict[str, Any]) -> None:
    validator.validate(result)
    declared = {field.alias or name for name, field in ResultDocument.model_fields.items()}
    assert result.keys() <= declared, "a section of result.json is no field of ResultDocument"


def test_older_result_is_still_valid(validator: Draft202012Validator) -> None:
    # Written by `lingualign demo --controls`, before the schema had a name.
    validator.validate(json.loads(DEMO.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema",), "lingualign-result/2"),
        (("cells", 0, "n"), "many"),
        (("comparison", "harmful_refusal", "changes", 0, "interval"), [0.1]),
        (("comparison", "worst_after", "kind"), "unknown"),
        (("judge", "name"), None),
    ],
)
def test_wrong_values_are_found(
    validator: Draft202012Validator, result: dict[str, Any], path: tuple[str | int, ...], value: object
) -> None:
    place: Any = result
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(ValidationError):
        validator.validate(result)
