"""The harness on the tiny model: its choices are those of a plain loop, it says nothing, and its troubles are named."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from statistics import stdev
from typing import Any

import pytest
import torch

from lingualign.config import UtilitySettings
from lingualign.errors import ConfigError, DataError
from lingualign.evaluate.utility import harness
from lingualign.evaluate.utility.accuracy import TaskResult, task_changes
from lingualign.evaluate.utility.harness import run_task
from lingualign.evaluate.utility.tasks import local_task
from lingualign.evaluate.utility.tasks.xcopa import xcopa_documents

pytest.importorskip("lm_eval")


def likelihood(model: Any, tokenizer: Any, query: str, choice: str) -> float:
    whole = tokenizer(f"{query} {choice}")["input_ids"]
    start = len(tokenizer(query)["input_ids"])
    with torch.no_grad():
        scores = model(torch.tensor([whole])).logits[0].log_softmax(-1)
    return sum(float(scores[place - 1, whole[place]]) for place in range(start, len(whole)))


def test_choices_are_those_of_a_plain_loop(
    tiny_model: tuple[Any, Any], xcopa_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model, tokenizer = tiny_model
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    seen: list[tuple[str, int, int]] = []
    result = run_task(
        model,
        tokenizer,
        "lingualign_xcopa_th",
        UtilitySettings(data=str(xcopa_folder), limit=30, batch_size=7),
        lambda *report: seen.append(report),
    )
    assert capfd.readouterr() == ("", "")
    assert seen[-1] == ("task lingualign_xcopa_th", 60, 60)
    assert (result.metric, result.version, result.few_shot, result.n) == ("acc", "1.0", 0, 30)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    for (key, right), row in zip(result.correct.items(), xcopa_documents(str(xcopa_folder), "th"), strict=False):
        scores = [likelihood(model, tokenizer, row["query"], choice) for choice in row["choices"]]
        assert right == (scores.index(max(scores)) == row["label"]), key
    assert 0 < result.value < 1
    assert result.stderr == pytest.approx(stdev(result.correct.values()) / math.sqrt(30))


def test_what_was_silenced_speaks_again(tiny_model: tuple[Any, Any], xcopa_folder: Path) -> None:
    from lm_eval.models import huggingface

    level, bar = logging.getLogger("lm_eval").level, huggingface.tqdm
    run_task(*tiny_model, "lingualign_xcopa_th", UtilitySettings(data=str(xcopa_folder), limit=2))
    assert logging.getLogger("lm_eval").level == level
    assert huggingface.tqdm is bar


def test_the_chat_template_changes_the_prompts(tiny_model: tuple[Any, Any], xcopa_folder: Path) -> None:
    settings = UtilitySettings(data=str(xcopa_folder), limit=2)
    plain = run_task(*tiny_model, "lingualign_xcopa_th", settings)
    templated = run_task(*tiny_model, "lingualign_xcopa_th", settings.model_copy(update={"chat_template": True}))
    assert plain.prompts != templated.prompts
    with pytest.raises(DataError, match="other prompts"):
        task_changes({"x": plain}, {"x": templated})


def test_documents_of_a_group_are_pooled(
    tiny_model: tuple[Any, Any], xcopa_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval.tasks import TaskManager

    leaves = [local_task(f"lingualign_xcopa_{language}", str(xcopa_folder)) for language in ("et", "th")]
    monkeypatch.setattr(harness, "_load", lambda *_: TaskManager(include_defaults=False).load(leaves))
    result = run_task(*tiny_model, "both", UtilitySettings(limit=3))
    assert list(result.correct) == [f"lingualign_xcopa_{tag}:{number}" for tag in ("et", "th") for number in range(3)]


def test_unreachable_data_is_one_line(tiny_model: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def offline(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach the Hub\nand more")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(DataError, match=r"task xcopa_th .*Couldn't reach the Hub.*lingualign_xcopa_\*") as caught:
        run_task(*tiny_model, "xcopa_th", UtilitySettings())
    assert "\n" not in str(caught.value)


def test_an_unknown_task_names_the_nearest(tiny_model: tuple[Any, Any]) -> None:
    with pytest.raises(ConfigError, match="did you mean lingualign_xcopa_th"):
        run_task(*tiny_model, "lingualign_xcopath", UtilitySettings())


def test_a_task_needs_a_yes_or_no_metric() -> None:
    rows = [{"filter": "none", "metrics": ["bleu"]}]
    with pytest.raises(ConfigError, match="measures bleu"):
        harness._chosen_metric("flores", {"flores": rows})
    filtered = [{"filter": name, "metrics": ["exact_match"]} for name in ("remove_whitespace", "flexible-extract")]
    assert harness._chosen_metric("mgsm", {"mgsm": filtered}) == ("exact_match", "flexible-extract")


def result(name: str, correct: str) -> TaskResult:
    outcomes = {f"{name}:{place}": int(letter) for place, letter in enumerate(correct)}
    return TaskResult(name, "acc", "1.0", 0, "0.4.13", "same", outcomes)


def test_changes_are_paired_and_adjusted() -> None:
    before = {"a": result("a", "1111111100"), "b": result("b", "1010")}
    after = {"a": result("a", "0000000010"), "b": result("b", "1010")}
    first, second = task_changes(before, after)
    assert (first.n, first.gained, first.lost) == (10, 1, 8)
    assert (first.before, first.after, first.difference) == (0.8, 0.1, -0.7)
    assert first.interval[0] < -0.7 < first.interval[1] < 0
    assert first.p_value == pytest.approx(2 * (1 + 9) / 2**9)
    assert first.p_adjusted == pytest.approx(2 * first.p_value)
    assert (second.difference, second.p_value) == (0, 1)


def test_tasks_of_one_side_are_refused() -> None:
    with pytest.raises(DataError, match="task b was run on one side only"):
        task_changes({"a": result("a", "1"), "b": result("b", "1")}, {"a": result("a", "1")})
