"""Local tasks on the real files: every language, every document, the same right answers; and their known faults."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from lingualign.data.benchmarks import BENCHMARKS
from lingualign.data.benchmarks.utility import xcopa_items
from lingualign.errors import ConfigError, DataError
from lingualign.evaluate.utility.tasks import LOCAL_TASKS, local_task
from lingualign.evaluate.utility.tasks.sib200 import TOPICS, sib200_documents
from lingualign.evaluate.utility.tasks.xcopa import CONNECTORS, xcopa_documents

ROOT = Path(os.environ.get("LINGUALIGN_SHARED_DATA", Path(__file__).resolve().parents[3].parent / "shared" / "data"))
downloaded = pytest.mark.skipif(not ROOT.is_dir(), reason="set LINGUALIGN_SHARED_DATA to the folder of public sets")


def test_names() -> None:
    assert Counter(name for name, _ in LOCAL_TASKS.values()) == {"xcopa": 11, "sib200": 22}
    assert LOCAL_TASKS["lingualign_xcopa_id"] == ("xcopa", "id")
    assert LOCAL_TASKS["lingualign_sib200_th"] == ("sib200", "th")


def test_a_data_folder_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"set utility\.data to the folder that holds sib200/"):
        local_task("lingualign_sib200_th", None)
    with pytest.raises(DataError, match="no such"):
        local_task("lingualign_xcopa_th", str(tmp_path))


def test_made_up_items(xcopa_folder: Path) -> None:
    thai = xcopa_documents(str(xcopa_folder), "th")
    assert thai[3] == {
        "query": f"premise 3 {CONNECTORS['th']['effect']}",
        "choices": ["first 3", "second one 3"],
        "label": 0,
    }
    assert xcopa_documents(str(xcopa_folder), "et")[0]["query"] == f"premise 0 {CONNECTORS['et']['cause']}"


@downloaded
def test_xcopa_is_parallel_and_whole() -> None:
    languages = BENCHMARKS["xcopa"].languages
    documents = {language: xcopa_documents(str(ROOT), language) for language in languages}
    items = {language: xcopa_items(ROOT, "test", language) for language in languages}
    for language in languages:
        assert len(documents[language]) == 500
        assert [item.item_id for item in items[language]] == [item.item_id for item in items["et"]]
        assert [row["label"] for row in documents[language]] == [row["label"] for row in documents["et"]]
        assert [item.question for item in items[language]] == [item.question for item in items["et"]]
    for row, item in zip(documents["th"], items["th"], strict=True):
        assert row["query"].startswith(f"{item.premise.strip()} ")


@downloaded
def test_sib200_is_parallel_and_whole() -> None:
    labels = {
        language: [row["label"] for row in sib200_documents(str(ROOT), language)]
        for language in BENCHMARKS["sib200"].languages
    }
    assert len(labels) == 22
    for found in labels.values():
        assert len(found) == 204
        assert set(found) == set(range(len(TOPICS)))
        assert found == labels["en"]


@downloaded
def test_the_first_sentences_are_of_all_topics() -> None:
    """The files are sorted by topic, and a limit takes the first."""
    first = {row["label"] for row in sib200_documents(str(ROOT), "th")[:50]}
    assert first == set(range(len(TOPICS)))
