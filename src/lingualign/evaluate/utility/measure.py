"""Measures a model's utility part by part, so that a killed measurement goes on, and compares two measurements."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from lingualign.config import UtilitySettings
from lingualign.data.schema import PromptSet
from lingualign.errors import DataError, FingerprintMismatch
from lingualign.evaluate.schema import Reply
from lingualign.evaluate.utility.accuracy import TaskChange, TaskResult, task_changes
from lingualign.evaluate.utility.divergence import (
    Divergence,
    PromptDivergence,
    divergences,
    mean_divergence,
    prompt_divergences,
)
from lingualign.evaluate.utility.fidelity import Fidelity, fidelity_figures
from lingualign.evaluate.utility.generation import GenerationChange, generation_changes
from lingualign.evaluate.utility.harness import run_task
from lingualign.evaluate.utility.perplexity import (
    PerplexityChange,
    TextScore,
    mean_perplexity_ratio,
    perplexity_changes,
    score_texts,
)
from lingualign.evaluate.utility.seeds import Estimate
from lingualign.events import Progress, silent
from lingualign.models.load import LoadedModel
from lingualign.runs import write_json
from lingualign.treatments import Treatment

#: One text's figures.
_Row = TypeVar("_Row", TextScore, PromptDivergence)


@dataclass(frozen=True, slots=True)
class Utility:
    """What was measured on one model, document by document and text by text.

    Attributes:
        tasks: by name.
        perplexity: of each harmless text, by language.
        divergence: from the base model on each harmless prompt, by language; empty for the base model itself.
    """

    tasks: Mapping[str, TaskResult]
    perplexity: Mapping[str, tuple[TextScore, ...]]
    divergence: Mapping[str, tuple[PromptDivergence, ...]]


@dataclass(frozen=True, slots=True)
class UtilityComparison:
    """What a treatment did beside safety.

    Attributes:
        tasks: accuracy by task.
        perplexity: of harmless prompts, by language; `mean_perplexity_ratio` is over the languages.
        divergence: of the edited model from its base, by language; `mean_divergence` is over the languages.
        generation: diversity and repetition of the replies to harmless prompts, by language.
        fidelity_before, fidelity_after: the language of answers and of refusals.
    """

    tasks: tuple[TaskChange, ...]
    perplexity: tuple[PerplexityChange, ...]
    mean_perplexity_ratio: Estimate | None
    divergence: tuple[Divergence, ...]
    mean_divergence: Divergence | None
    generation: tuple[GenerationChange, ...]
    fidelity_before: tuple[Fidelity, ...]
    fidelity_after: tuple[Fidelity, ...]


def measure_utility(
    loaded: LoadedModel,
    settings: UtilitySettings,
    prompts: PromptSet,
    path: Path,
    *,
    treatment: Treatment | None = None,
    progress: Progress = silent,
) -> Utility:
    """Measures a model, or with `treatment` its changed self and how far that is from it.

    Everything done is in `path` after each task and each language, and is not done again. The caller sees to it that
    the file belongs to this model, treatment and settings (`RunFolder.bind`).

    Args:
        loaded: the base model; left as it was found.
        settings: what is measured.
        prompts: the harmless ones among them are the texts.
        path: a JSON file; need not exist.
        treatment: applied while the changed model is measured.
        progress: called as work goes on.

    Raises:
        FingerprintMismatch: the file is of other texts, or the treatment of another model.
        ConfigError, DataError, MissingDependency: a task cannot be run; see `run_task`.
    """
    texts = prompts.where(kinds=["harmless"]).limited(settings.seeds)
    by_language = {language: texts.where(languages=[language]) for language in texts.languages}
    stored = read_utility(path)
    tasks, perplexity, divergence = dict(stored.tasks), dict(stored.perplexity), dict(stored.divergence)
    model, tokenizer = loaded.model, loaded.tokenizer

    def save() -> None:
        write_json(path, asdict(Utility(tasks, perplexity, divergence)))

    def report(stage: str, before: int, done: int) -> None:
        progress(stage, before + done, len(texts))

    def fill(
        stage: str,
        parts: dict[str, tuple[_Row, ...]],
        measure: Callable[[PromptSet, Callable[[int], None]], Sequence[_Row]],
    ) -> None:
        _check_same_texts(path, parts, by_language)
        for language, chosen in by_language.items():
            if language not in parts:
                on_batch = partial(report, stage, sum(map(len, parts.values())))
                parts[language] = tuple(measure(chosen, on_batch))
                save()

    with treatment.applied(model) if treatment else contextlib.nullcontext():
        if settings.perplexity:
            fill(
                "perplexity",
                perplexity,
                lambda chosen, on_batch: score_texts(model, tokenizer, chosen, on_batch=on_batch),
            )
        for name in settings.tasks:
            if name not in tasks:
                tasks[name] = run_task(model, tokenizer, name, settings, progress)
                save()
    if treatment and settings.kl_tokens:
        fill(
            "divergence",
            divergence,
            lambda chosen, on_batch: prompt_divergences(
                model,
                tokenizer,
                treatment,
                chosen,
                tokens=settings.kl_tokens,
                batch_size=settings.batch_size,
                on_batch=on_batch,
            ),
        )
    return Utility({name: tasks[name] for name in dict.fromkeys(settings.tasks)}, perplexity, divergence)


def read_utility(path: Path) -> Utility:
    """What a file holds; nothing where there is none.

    Raises:
        DataError: the file is damaged.
    """
    if not path.is_file():
        return Utility({}, {}, {})
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Utility(
            {name: TaskResult(**result) for name, result in content["tasks"].items()},
            {tag: tuple(TextScore(**row) for row in rows) for tag, rows in content["perplexity"].items()},
            {tag: tuple(PromptDivergence(**row) for row in rows) for tag, rows in content["divergence"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"{path} is damaged; delete it to have it measured again") from None


def compare_utility(
    before: Utility, after: Utility, replies_before: Sequence[Reply], replies_after: Sequence[Reply], tokenizer: Any
) -> UtilityComparison:
    """Compares two measurements and the two audits' replies.

    Args:
        before: of the base model.
        after: of the edited model.
        replies_before, replies_after: judged replies to the same prompts of all kinds, in the same order.
        tokenizer: the model's.

    Raises:
        DataError: the two sides are of different tasks, documents, texts or prompts.
    """
    scores_before, scores_after = (list(chain.from_iterable(side.perplexity.values())) for side in (before, after))
    drift = list(chain.from_iterable(after.divergence.values()))
    harmless_before, harmless_after = (
        [reply for reply in replies if reply.kind == "harmless"] for replies in (replies_before, replies_after)
    )
    return UtilityComparison(
        tasks=tuple(task_changes(before.tasks, after.tasks)),
        perplexity=tuple(perplexity_changes(scores_before, scores_after)),
        mean_perplexity_ratio=mean_perplexity_ratio(scores_before, scores_after) if scores_before else None,
        divergence=tuple(divergences(drift)),
        mean_divergence=mean_divergence(drift) if drift else None,
        generation=tuple(generation_changes(harmless_before, harmless_after, tokenizer)),
        fidelity_before=tuple(fidelity_figures(replies_before)),
        fidelity_after=tuple(fidelity_figures(replies_after)),
    )


def _check_same_texts(path: Path, parts: Mapping[str, Sequence[_Row]], by_language: Mapping[str, PromptSet]) -> None:
    for language, rows in parts.items():
        asked = [text.seed_id for text in by_language.get(language, ())]
        if [row.seed_id for row in rows] != asked:
            raise FingerprintMismatch(f"{path} is of other {language} texts; use another --out folder, or delete it")
