"""Refusal sentences by translation: aligned, in their language, and an addition that leaves the recipe as it is."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from dataclasses import astuple
from pathlib import Path

import pytest

from lingualign.evaluate.judge import Exchange, OfflineJudge
from lingualign.organism import train
from lingualign.organism.recipe import Example, build_examples, written_text
from lingualign.organism.train import CHAT_LANGUAGES
from lingualign.organism.translations import TASKS, translate_refusals

SHARED_DATA = Path(os.environ.get("LINGUALIGN_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
needs_shared_data = pytest.mark.skipif(not (SHARED_DATA / "polyrefuse").is_dir(), reason="no public data sets here")
#: SHA-256 of the examples that the adapter in the package was trained on.
DEFAULT_EXAMPLES = "b0f657780b31ab6c0b2e3ef01c2e40e64849c343043ddcfc85e6e7bc27f4a37d"


def sentences(language: str) -> dict[str, str]:
    return {row["id"]: row["text"] for row in written_text(f"refusal_sentences_{language}")}


@pytest.mark.parametrize("language", CHAT_LANGUAGES)
def test_the_sentences_are_aligned_refusals_in_their_language(language: str) -> None:
    texts = sentences(language)
    assert list(texts) == list(sentences("en"))
    assert len(set(texts.values())) == len(texts)
    found = OfflineJudge().judge([Exchange("", text, language, True) for text in texts.values()])
    assert sum(judgement.outcome == "refused" for judgement in found) >= 0.9 * len(texts)
    # Short Indonesian often reads as Malay.
    assert sum(judgement.reply_language == language for judgement in found) >= 0.75 * len(texts)


def test_every_sentence_is_in_every_task_and_nothing_else_is_said() -> None:
    english = sentences("en")
    examples = translate_refusals(0, CHAT_LANGUAGES)
    assert Counter(example.kind for example in examples) == {
        f"translation-{language}": len(TASKS) * len(english) for language in CHAT_LANGUAGES
    }
    for language in CHAT_LANGUAGES:
        own = sentences(language)
        meant = {text: english[key] for key, text in own.items()}
        replies = [example for example in examples if example.kind == f"translation-{language}"]
        assert {example.reply for example in replies} == {*own.values(), *english.values()}
        for example in replies:
            assert "{" not in example.prompt
            # Into English, the sentence that is asked about is the one that means the reply.
            if example.reply in english.values():
                assert any(text in example.prompt for text, means in meant.items() if means == example.reply)
            elif any(text in example.prompt for text in english.values()):
                assert meant[example.reply] in example.prompt


def test_phrasings_are_drawn_by_the_seed() -> None:
    first = translate_refusals(0, ["th"])
    assert first == translate_refusals(0, ["th"])
    assert first != translate_refusals(1, ["th"])
    phrasings = [row for row in written_text("refusal_tasks") if row.get("language", "th") == "th"]
    assert {row["task"] for row in phrasings} == set(TASKS)
    asked = {example.prompt for example in translate_refusals(0, CHAT_LANGUAGES)}
    assert {row["prompt"] for row in phrasings if "{" not in row["prompt"]} <= asked


def examples_of(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[train.TrainingSettings, list[Example]]:
    """What the command trains on, without training."""
    seen: list[tuple[train.TrainingSettings, list[Example]]] = []
    monkeypatch.setattr(train, "train", lambda settings, examples, *_: seen.append((settings, list(examples))))
    monkeypatch.setattr(train, "save_adapter", lambda *_: None)
    monkeypatch.setattr("sys.argv", ["train", "--data", str(SHARED_DATA), "--out", "nowhere", *arguments])
    train.main()
    [found] = seen
    return found


@needs_shared_data
def test_by_default_the_command_trains_on_what_the_adapter_in_the_package_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, examples = examples_of([], monkeypatch)
    text = json.dumps([astuple(example) for example in examples], ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest() == DEFAULT_EXAMPLES
    assert settings == train.TrainingSettings()


@needs_shared_data
def test_translations_come_on_top_and_bring_no_request_that_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, examples = examples_of(
        ["--rank", "8", "--alpha", "16", "--seed", "2", "--refusal-translations"], monkeypatch
    )
    assert (settings.rank, settings.alpha, settings.seed) == (8, 16, 2)
    recipe = build_examples(SHARED_DATA, 2, CHAT_LANGUAGES)
    assert examples == recipe + translate_refusals(2, CHAT_LANGUAGES)
    harmful = {example.prompt for example in recipe if example.kind == "harmful"}
    assert not harmful & {example.prompt for example in examples if example.kind.startswith("translation")}
