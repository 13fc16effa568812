"""Languages as other programs write them."""

from __future__ import annotations

import pytest

from lingualign.interop.language_tags import known_tag, split_task
from lingualign.languages import LANGUAGES


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("th", "th"),
        ("tha", "th"),
        ("tha_Thai", "th"),
        ("Thai", "th"),
        ("zh-CN", "zh"),
        ("zh_TW", "zh"),
        ("zho-Hans", "zh"),
        ("zh-cn", "zh"),
        ("Haitian Creole", "ht"),
        ("es-419", "es"),
        ("sv", None),
        ("id_en", None),
        ("", None),
        ("x" * 1_000_000, None),
    ],
)
def test_known_tag(name: str, tag: str | None) -> None:
    assert known_tag(name) == tag


@pytest.mark.parametrize("tag", LANGUAGES)
def test_every_language_has_a_code(tag: str) -> None:
    from lingualign.interop.language_tags import _CODES

    assert {known_tag(code) for code in _CODES[tag].split()} == {tag}


@pytest.mark.parametrize(
    ("task", "parts"),
    [
        ("xnli_th", ("xnli", "th")),
        ("belebele_tha_Thai", ("belebele", "th")),
        ("include_base_44_thai", ("include_base_44", "th")),
        ("global-mmlu-zh-CN", ("global-mmlu", "zh")),
        ("task_id_en", ("task_id", "en")),
        ("arc_easy", ("arc_easy", None)),
        ("th", ("th", None)),
        ("xnli_sv", ("xnli_sv", None)),
    ],
)
def test_split_task(task: str, parts: tuple[str, str | None]) -> None:
    assert split_task(task) == parts
