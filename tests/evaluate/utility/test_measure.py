"""Measuring part by part: nothing is done twice, a kill loses one part, and the figures come back from the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from lingualign.config import UtilitySettings
from lingualign.data.schema import Prompt, PromptSet
from lingualign.edit import Edit
from lingualign.errors import DataError, FingerprintMismatch
from lingualign.evaluate.schema import Reply
from lingualign.evaluate.utility import measure
from lingualign.evaluate.utility.accuracy import TaskResult
from lingualign.evaluate.utility.measure import compare_utility, measure_utility, read_utility
from lingualign.models.load import LoadedModel

SETTINGS = UtilitySettings(tasks=("one", "two"), kl_tokens=3)


@pytest.fixture
def loaded(tiny_model: tuple[Any, Any]) -> LoadedModel:
    return LoadedModel("tiny", None, *tiny_model, fingerprint="")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was measured, in order; tasks are stood in for."""
    made: list[str] = []
    for name in ("score_texts", "prompt_divergences"):
        original = getattr(measure, name)

        def counted(*args: Any, original: Any = original, name: str = name, **options: Any) -> Any:
            made.append(f"{name} {args[-1][0].language}")
            return original(*args, **options)

        monkeypatch.setattr(measure, name, counted)

    def run_task(model: Any, _tokenizer: Any, name: str, *_: Any) -> TaskResult:
        made.append(name)
        weight = float(model.model.layers[2].mlp.down_proj.weight.detach().sum())
        return TaskResult(name, "acc", "1.0", 0, "0", "same", {"0": int(weight > 0), "1": 1})

    monkeypatch.setattr(measure, "run_task", run_task)
    return made


def test_nothing_is_done_twice(loaded: LoadedModel, texts: PromptSet, tmp_path: Path, calls: list[str]) -> None:
    path = tmp_path / "utility" / "before.json"
    seen: list[tuple[str, int, int]] = []
    first = measure_utility(loaded, SETTINGS, texts, path, progress=lambda *report: seen.append(report))
    assert calls == ["score_texts en", "score_texts th", "one", "two"]
    assert seen[-1] == ("perplexity", 7, 7)
    calls.clear()
    again = measure_utility(loaded, SETTINGS, texts, path)
    assert calls == []
    assert again == first == read_utility(path)
    more = SETTINGS.model_copy(update={"tasks": ("one", "two", "three")})
    measure_utility(loaded, more, texts, path)
    assert calls == ["three"]


def test_a_kill_loses_one_part(
    loaded: LoadedModel, texts: PromptSet, tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "before.json"
    stand_in = measure.run_task

    def killed(model: Any, tokenizer: Any, name: str, *rest: Any) -> TaskResult:
        if name == "two":
            raise KeyboardInterrupt
        return stand_in(model, tokenizer, name, *rest)

    monkeypatch.setattr(measure, "run_task", killed)
    with pytest.raises(KeyboardInterrupt):
        measure_utility(loaded, SETTINGS, texts, path)
    monkeypatch.setattr(measure, "run_task", stand_in)
    calls.clear()
    measure_utility(loaded, SETTINGS, texts, path)
    assert calls == ["two"]


def replies(texts: PromptSet) -> list[Reply]:
    return [
        Reply(text.seed_id, text.language, "harmless", text.text, 3, True, "answered", 0.0, text.language)
        for text in texts
    ]


def test_an_edit_is_measured_and_compared(
    loaded: LoadedModel,
    texts: PromptSet,
    tmp_path: Path,
    calls: list[str],
    edit_of: Callable[[Any, float], Edit],
) -> None:
    weights = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    before = measure_utility(loaded, SETTINGS, texts, tmp_path / "before.json")
    after = measure_utility(loaded, SETTINGS, texts, tmp_path / "after.json", treatment=edit_of(loaded.model, 0.3))
    assert all(torch.equal(value, weights[name]) for name, value in loaded.model.state_dict().items())
    assert calls[4:] == [*calls[:4], "prompt_divergences en", "prompt_divergences th"]
    assert before.divergence == {}
    comparison = compare_utility(before, after, replies(texts), replies(texts), loaded.tokenizer)
    assert json.loads(json.dumps(asdict(comparison), allow_nan=False))["mean_divergence"]["n"] == 7
    assert [change.language for change in comparison.perplexity] == ["en", "th"]
    assert all(change.ratio.value != 1 for change in comparison.perplexity)
    assert all(row.kl.value > 0 for row in comparison.divergence)
    assert [change.name for change in comparison.tasks] == ["one", "two"]
    assert [change.language for change in comparison.generation] == ["en", "th"]
    assert all(row.own == 1 for row in comparison.fidelity_after)


def test_parts_can_be_left_out(
    loaded: LoadedModel, texts: PromptSet, tmp_path: Path, calls: list[str], edit_of: Callable[[Any, float], Edit]
) -> None:
    settings = UtilitySettings(perplexity=False, kl_tokens=0)
    found = [
        measure_utility(loaded, settings, texts, tmp_path / name, treatment=edit)
        for name, edit in (("before.json", None), ("after.json", edit_of(loaded.model, 0.3)))
    ]
    assert calls == []
    comparison = compare_utility(*found, [], [], loaded.tokenizer)
    assert comparison.mean_perplexity_ratio is None
    assert comparison.mean_divergence is None


def test_only_harmless_prompts_are_texts(loaded: LoadedModel, tmp_path: Path, calls: list[str]) -> None:
    prompts = PromptSet([Prompt("1", "en", "harmful", "a"), Prompt("1", "th", "harmless", "bread")])
    assert list(measure_utility(loaded, UtilitySettings(), prompts, tmp_path / "a.json").perplexity) == ["th"]
    assert calls == ["score_texts th"]


def test_other_texts_are_refused(loaded: LoadedModel, texts: PromptSet, tmp_path: Path) -> None:
    measure_utility(loaded, UtilitySettings(), texts, tmp_path / "a.json")
    with pytest.raises(FingerprintMismatch, match="other en texts"):
        measure_utility(loaded, UtilitySettings(), texts.limited(2), tmp_path / "a.json")


@pytest.mark.parametrize("content", ["{", "[]", '{"tasks": {}}', '{"tasks": {"a": {}}, "perplexity": {}}'])
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "before.json"
    path.write_text(content)
    with pytest.raises(DataError, match="delete it"):
        read_utility(path)
