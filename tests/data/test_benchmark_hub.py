"""Benchmarks from the hub, with the download played: the same reader, and one line for each way it fails."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import errors

from lingualign.data.benchmarks import BENCHMARKS
from lingualign.data.benchmarks.hub import download
from lingualign.data.loaders import parse_source, read_source
from lingualign.errors import DataError

from .conftest import WORDS, write


class Hub:
    """Plays `snapshot_download`: answers with a folder, or fails."""

    def __init__(self, answer: Path | Exception) -> None:
        self.answer = answer
        self.calls: list[dict[str, Any]] = []

    def __call__(self, repository: str, **options: Any) -> str:
        self.calls.append({"repository": repository, **options})
        if isinstance(self.answer, Exception):
            raise self.answer
        return str(self.answer)


def play(monkeypatch: pytest.MonkeyPatch, answer: Path | Exception) -> Hub:
    hub = Hub(answer)
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub)
    return hub


def test_a_part_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: Any) -> None:
    small("or-bench", hard=4, toxic=4)
    hub = play(monkeypatch, tmp_path)
    write(tmp_path / "or-bench-toxic.csv", [{"prompt": text, "category": "c"} for text in WORDS])
    prompts = parse_source("or-bench/toxic@hub")
    assert [prompt.text for prompt in prompts] == list(WORDS)
    assert hub.calls == [
        {"repository": "bench-llm/or-bench", "repo_type": "dataset", "allow_patterns": ["or-bench-*.csv"]}
    ]


def test_the_hub_may_have_fewer_languages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: Any) -> None:
    small("jailbreakbench", harmful=4, benign=4)
    play(monkeypatch, tmp_path)
    for half in ("harmful", "benign"):
        write(tmp_path / "data" / f"{half}-behaviors.csv", [{"Goal": text, "Category": "c"} for text in WORDS])
    assert parse_source("jailbreakbench@hub").languages == ("en",)
    with pytest.raises(DataError, match="jailbreakbench has no prompts in th; it has en"):
        parse_source("jailbreakbench@hub", ["th"])


#: What the hub's errors look at.
RESPONSE: Any = SimpleNamespace(headers={}, request=None)


@pytest.mark.parametrize(
    ("failure", "offline", "message"),
    [
        (
            errors.GatedRepoError("no", response=RESPONSE),
            "0",
            r"gated; accept its terms at https://.*`hf auth login`, or",
        ),
        (errors.RepositoryNotFoundError("no", response=RESPONSE), "0", r"no data set walledai/AdvBench on the hub"),
        (
            errors.LocalEntryNotFoundError("no"),
            "0",
            r"cannot be reached and is not in the hub's cache; check the network",
        ),
        (errors.LocalEntryNotFoundError("no"), "1", r"unset HF_HUB_OFFLINE, or download it from https://"),
        (
            RuntimeError("connection refused"),
            "0",
            r"check the network, or download it from .* and give advbench:FOLDER",
        ),
    ],
)
def test_failures_are_one_line(failure: Exception, offline: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, failure)
    monkeypatch.setenv("HF_HUB_OFFLINE", offline)
    with pytest.raises(DataError, match=message) as caught:
        download(BENCHMARKS["advbench"])
    assert "\n" not in str(caught.value)


def test_a_set_that_is_not_on_the_hub() -> None:
    with pytest.raises(DataError, match=r"xsafety is not on the hub; download it from https://.* give xsafety:FOLDER"):
        parse_source("xsafety@hub")


@pytest.mark.parametrize(
    ("spec", "name", "part", "folder"),
    [
        ("polyrefuse/harmful_test:../shared/data", "polyrefuse/harmful_test", "harmful_test", "../shared/data"),
        ("xsafety:../shared/data", "xsafety", None, "../shared/data"),
        ("multijail@hub", "multijail", None, None),
        ("xstest/safe@hub", "xstest/safe", "safe", None),
        ("builtin", "builtin", None, None),
        ("a/b.csv:harmful", "a/b.csv", None, None),
    ],
)
def test_spec_texts(spec: str, name: str, part: str | None, folder: str | None) -> None:
    source = read_source(spec)
    assert (source.name, source.part, source.folder) == (name, part, folder)
