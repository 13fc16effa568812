"""Tasks for lm-evaluation-harness that read the user's own copies of public sets; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lingualign.data.benchmarks import BENCHMARKS
from lingualign.errors import ConfigError
from lingualign.evaluate.utility.tasks.sib200 import sib200_documents
from lingualign.evaluate.utility.tasks.xcopa import xcopa_documents

PREFIX = "lingualign_"
#: Raised whenever a document changes, so that figures of different versions are not compared.
VERSION = 1.0
_DOCUMENTS: dict[str, Callable[[str, str], list[dict[str, Any]]]] = {
    "xcopa": xcopa_documents,
    "sib200": sib200_documents,
}
#: Task names, by set and language.
LOCAL_TASKS: dict[str, tuple[str, str]] = {
    f"{PREFIX}{name}_{language}": (name, language) for name in _DOCUMENTS for language in BENCHMARKS[name].languages
}


def local_task(name: str, data: str | None) -> dict[str, Any]:
    """The configuration of one of `LOCAL_TASKS`, as lm-evaluation-harness takes it.

    Args:
        name: the task.
        data: folder that holds the set's folder.

    Raises:
        ConfigError: no data folder is given.
        DataError: a file is missing or damaged.
    """
    set_name, language = LOCAL_TASKS[name]
    if data is None:
        raise ConfigError(f"task {name} reads local files; set utility.data to the folder that holds {set_name}/")
    documents = _DOCUMENTS[set_name](data, language)

    def dataset(**_: Any) -> dict[str, Any]:
        from datasets import Dataset

        return {"test": Dataset.from_list(documents)}

    return {
        "task": name,
        "custom_dataset": dataset,
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "query",
        "doc_to_choice": "choices",
        "doc_to_target": "label",
        "num_fewshot": 0,
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": VERSION},
    }
