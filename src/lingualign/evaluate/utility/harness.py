"""Runs benchmarks on a model in memory, through the Python API of lm-evaluation-harness.

Every document's outcome is kept, so that two measurements of one task are compared document by document.
"""

from __future__ import annotations

import contextlib
import difflib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from importlib.util import find_spec
from typing import Any

from lingualign.config import UtilitySettings
from lingualign.errors import ConfigError, DataError, MissingDependency
from lingualign.evaluate.utility.accuracy import TaskResult
from lingualign.evaluate.utility.perplexity import LOGITS_PER_BATCH
from lingualign.evaluate.utility.tasks import LOCAL_TASKS, local_task
from lingualign.events import Progress, silent
from lingualign.runs import content_hash

#: Metrics that say yes or no to each document.
METRICS = ("acc", "exact_match")
#: Of a task's answer filters the one that looks hardest for the answer (MGSM has it); else the task's first.
FILTER = "flexible-extract"
#: Tokens that a request is reckoned with.
REQUEST_TOKENS = 128
#: Seed of the choice of few-shot examples; the harness's own.
FEW_SHOT_SEED = 1234


def run_task(
    model: Any, tokenizer: Any, name: str, settings: UtilitySettings, progress: Progress = silent
) -> TaskResult:
    """Runs one task on a model in memory.

    Args:
        model, tokenizer: as loaded; an applied edit counts.
        name: one of `LOCAL_TASKS`, or a task or group of the harness.
        settings: data folder, limit, chat template and batch size.
        progress: called with the number of requests answered.

    Raises:
        ConfigError: there is no such task, it lacks a data folder, or has no yes-or-no metric.
        DataError: the task's data cannot be read or reached.
        MissingDependency: lm-evaluation-harness is not installed.
    """
    with _quiet(progress, f"task {name}"):
        loaded = _load(name, settings.data)

        import lm_eval
        from lm_eval.models.huggingface import HFLM

        for task in loaded["tasks"].values():
            # As lm_eval.simple_evaluate does, which spends seconds a task on describing the machine.
            if task.get_config("num_fewshot") is None:
                task.set_config("num_fewshot", 0)
            task.set_fewshot_seed(FEW_SHOT_SEED)
        wrapped = HFLM(
            pretrained=model,
            tokenizer=tokenizer,
            batch_size=min(settings.batch_size, _most_requests(model)),
            # In bfloat16 the choices of one document can tie.
            softmax_dtype="float32",
        )
        found = lm_eval.evaluate(
            lm=wrapped,
            task_dict=loaded,
            limit=settings.limit,
            bootstrap_iters=0,
            apply_chat_template=settings.chat_template,
            fewshot_as_multiturn=settings.chat_template,
        )
    samples: dict[str, list[dict[str, Any]]] = found["samples"]
    metric, answer_filter = _chosen_metric(name, samples)
    chosen = {
        f"{leaf}:{row['doc_id']}": row
        for leaf, rows in sorted(samples.items())
        for row in rows
        if row["filter"] == answer_filter
    }
    return TaskResult(
        name=name,
        metric=metric if answer_filter == "none" else f"{metric},{answer_filter}",
        version=", ".join(sorted({str(found["versions"][leaf]) for leaf in samples})),
        few_shot=max(found["n-shot"][leaf] for leaf in samples),
        harness=lm_eval.__version__,
        prompts=content_hash([[key, row["prompt_hash"], row["target_hash"]] for key, row in chosen.items()]),
        correct={key: int(row[metric]) for key, row in chosen.items()},
    )


def check_tasks(settings: UtilitySettings) -> None:
    """Finds and loads every task, so that a wrong name or missing data costs no audit first.

    Raises:
        ConfigError, DataError, MissingDependency: as `run_task`.
    """
    for name in settings.tasks:
        with _quiet(silent, name):
            _load(name, settings.data)


def _most_requests(model: Any) -> int:
    """Requests whose logits fit the batch; the harness computes them at every position, in float32."""
    vocabulary: int = model.config.get_text_config().vocab_size
    return max(1, LOGITS_PER_BATCH // (vocabulary * REQUEST_TOKENS))


def _load(name: str, data: str | None) -> dict[str, Any]:
    """The task's leaves, with their documents, as `lm_eval.evaluate` takes them."""
    if name in LOCAL_TASKS:
        from lm_eval.tasks import TaskManager

        loaded: dict[str, Any] = TaskManager(include_defaults=False).load([local_task(name, data)])
        return loaded
    manager = _task_manager()
    if name not in manager.all_tasks:
        known = [*LOCAL_TASKS, *manager.all_tasks]
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise ConfigError(f"there is no task {name}; did you mean {nearest}?")
    try:
        loaded = manager.load([name])
    except (OSError, RuntimeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"the data of task {name} cannot be loaded ({reason}); run it once where the hub can be reached, "
            "or take lingualign_xcopa_* and lingualign_sib200_*, which read local files"
        ) from error
    return loaded


@cache
def _task_manager() -> Any:
    """The harness's own tasks; reading their index takes seconds."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _chosen_metric(name: str, samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> tuple[str, str]:
    """The metric and the answer filter that a task is judged by, the same for all its leaves."""
    rows = next(iter(samples.values()))
    filters = list(dict.fromkeys(row["filter"] for row in rows))
    metric = next((metric for metric in METRICS if metric in rows[0]["metrics"]), None)
    if metric is None:
        raise ConfigError(
            f"task {name} measures {', '.join(rows[0]['metrics'])}; only tasks with {' or '.join(METRICS)} "
            "can be compared document by document, leave it out"
        )
    return metric, FILTER if FILTER in filters else filters[0]


class _Bar:
    """What the harness uses of tqdm; counts and draws nothing."""

    def __init__(
        self, progress: Progress, stage: str, items: Iterable[Any] = (), *, total: int = 0, **_: object
    ) -> None:
        self.items = items
        self.report = partial(progress, stage)
        self.total = total
        self.done = 0

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)

    def update(self, amount: int) -> None:
        self.done += amount
        self.report(self.done, self.total)

    def close(self) -> None:
        """Nothing is on the screen."""


@contextlib.contextmanager
def _quiet(progress: Progress, stage: str) -> Iterator[None]:
    """Keeps the harness from logging and from drawing bars for the duration of a block; its requests go to `progress`.

    The harness has no setting for this: `tqdm` is a name in three of its modules.
    """
    if find_spec("lm_eval") is None:
        raise MissingDependency("lm-eval", "eval")
    import datasets
    from lm_eval.api import model as api_model
    from lm_eval.api import task as api_task
    from lm_eval.models import huggingface

    modules: list[Any] = [api_model, api_task, huggingface]
    loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets", "huggingface_hub")]
    originals = [module.tqdm for module in modules]
    levels = [logger.level for logger in loggers]
    bars = not datasets.are_progress_bars_disabled()
    try:
        for module in modules:
            module.tqdm = partial(_Bar, progress, stage)
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        datasets.disable_progress_bars()
        yield
    finally:
        for module, original in zip(modules, originals, strict=True):
            module.tqdm = original
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            datasets.enable_progress_bars()
