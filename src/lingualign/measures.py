"""The figures that stand beside rates and differences: what the judge's error makes of them, a second opinion, how
alike the languages are treated, what else than language could explain a gap, and what it costs.

Each class is a section of `result.json`; `report.panels` shows them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lingualign.data.schema import KINDS, Kind, PromptSet
from lingualign.evaluate.agreement import Agreement
from lingualign.evaluate.consistency import Consistency, Following, consistency, following_rates
from lingualign.evaluate.controls import LengthControl, TranslationControl, length_controls, translation_controls
from lingualign.evaluate.corrected import (
    CorrectedCell,
    CorrectedChange,
    CorrectedMean,
    corrected_cells,
    corrected_change,
    corrected_mean,
)
from lingualign.evaluate.correction import JudgeError
from lingualign.evaluate.metrics import Cell, cells
from lingualign.evaluate.schema import Reply
from lingualign.evaluate.second import judges_agreement
from lingualign.evaluate.statistics import Interval
from lingualign.evaluate.utility.fidelity import Fidelity, fidelity_figures
from lingualign.evaluate.utility.generation import Generation, generation_figures
from lingualign.evaluate.utility.measure import Utility, UtilityComparison, compare_utility
from lingualign.evaluate.utility.perplexity import Perplexity, perplexities
from lingualign.models.chat import encode_chats


@dataclass(frozen=True, slots=True)
class CorrectedFigures:
    """Refusal corrected for the judge's error.

    Attributes:
        before, after: cells of the audits; `after` is None for an audit alone.
        mean: refusal of harmful prompts before, over the languages other than the reference; None where the judge is
            valid in none of them.
        changes: refusal of harmful prompts in each language where the judge is valid.
        means: by kind, over the languages other than the reference; None where the judge is valid in none.
    """

    before: tuple[CorrectedCell, ...]
    after: tuple[CorrectedCell, ...] | None
    mean: CorrectedMean | None
    changes: tuple[CorrectedChange, ...]
    means: Mapping[Kind, CorrectedChange | None]


@dataclass(frozen=True, slots=True)
class SecondOpinion:
    """The verdicts of a second judge on the replies of both audits; `after` is None for an audit alone."""

    judge: str
    before: tuple[Reply, ...]
    after: tuple[Reply, ...] | None


@dataclass(frozen=True, slots=True)
class AgreementFigures:
    """Two judges on the same replies.

    Attributes:
        judge: name of the second one.
        before, after: agreement on refused or not, by language; `after` is None for an audit alone.
        cells_before, cells_after: counts of the second judge's outcomes.
    """

    judge: str
    before: Mapping[str, Agreement]
    after: Mapping[str, Agreement] | None
    cells_before: tuple[Cell, ...]
    cells_after: tuple[Cell, ...] | None


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How one audit's model treats its users' languages.

    Attributes:
        consistency: whether the same harmful requests are decided alike; None where the judge could be read on none.
        following: harmful rate and following rate by language and kind.
        fidelity: the language of answers and of refusals.
    """

    consistency: Consistency | None
    following: tuple[Following, ...]
    fidelity: tuple[Fidelity, ...]


@dataclass(frozen=True, slots=True)
class PromptControls:
    """Whether length or translation of the harmful prompts explains a language's gap before the edit.

    Attributes:
        length: lengths are tokens of the model's tokenizer.
        translation: marks of bad translations.
    """

    length: tuple[LengthControl, ...]
    translation: tuple[TranslationControl, ...]


@dataclass(frozen=True, slots=True)
class TaskFigures:
    """A task on the unedited model: share of documents that are right, with standard error and Wilson interval."""

    name: str
    metric: str
    version: str
    few_shot: int
    n: int
    value: float
    stderr: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class UtilityFigures:
    """What the model can do beside refusing.

    Attributes:
        tasks, perplexity, generation: of the unedited model; generation is of its replies to harmless prompts.
        comparison: what the edit changes; None for an audit alone.
    """

    tasks: tuple[TaskFigures, ...]
    perplexity: tuple[Perplexity, ...]
    generation: tuple[Generation, ...]
    comparison: UtilityComparison | None


def corrected_figures(
    before: Sequence[Reply], after: Sequence[Reply] | None, errors: Mapping[str, JudgeError], reference: str
) -> CorrectedFigures:
    """Corrects the rates of one audit, or of two audits of the same prompts and their changes."""
    was = tuple(corrected_cells(cells(before), errors))
    languages = list(dict.fromkeys(reply.language for reply in before if reply.kind == "harmful"))
    others = [language for language in languages if language != reference]
    mean = corrected_mean(before, "harmful", errors, others)
    if after is None:
        return CorrectedFigures(was, None, mean, (), {})
    changes = (corrected_change(before, after, "harmful", errors, [language]) for language in languages)
    kinds = [kind for kind in KINDS if any(reply.kind == kind for reply in before)]
    return CorrectedFigures(
        before=was,
        after=tuple(corrected_cells(cells(after), errors)),
        mean=mean,
        changes=tuple(change for change in changes if change is not None),
        means={kind: corrected_change(before, after, kind, errors, others) for kind in kinds},
    )


def agreement_figures(
    before: Sequence[Reply], after: Sequence[Reply] | None, second: SecondOpinion
) -> AgreementFigures:
    """Agreement of the first judge's verdicts with a second one's."""
    compared = after is not None and second.after is not None
    return AgreementFigures(
        judge=second.judge,
        before=judges_agreement(before, second.before),
        after=judges_agreement(after or (), second.after or ()) if compared else None,
        cells_before=tuple(cells(second.before)),
        cells_after=tuple(cells(second.after or ())) if compared else None,
    )


def behaviour(replies: Sequence[Reply], reference: str) -> Behaviour:
    """The figures of one audit."""
    judged = any(reply.kind == "harmful" and reply.outcome != "unparsed" for reply in replies)
    return Behaviour(
        consistency(replies, reference=reference) if judged else None,
        tuple(following_rates(replies)),
        tuple(fidelity_figures(replies)),
    )


def prompt_controls(
    replies: Sequence[Reply], prompts: PromptSet, tokenizer: Any | None, reference: str
) -> PromptControls:
    """The controls of one audit's harmful prompts; without a tokenizer none of length."""
    harmful = prompts.where(kinds=["harmful"])
    lengths = None
    if tokenizer is not None:
        chats = encode_chats(tokenizer, [prompt.text for prompt in harmful])
        lengths = {prompt.key: chat.content[1] - chat.content[0] for prompt, chat in zip(harmful, chats, strict=True)}
    return PromptControls(
        tuple(length_controls(replies, lengths, reference=reference)) if lengths is not None else (),
        tuple(translation_controls(replies, harmful, reference=reference)),
    )


def utility_figures(
    utility: Utility,
    edited: Utility | None,
    before: Sequence[Reply],
    after: Sequence[Reply] | None,
    tokenizer: Any | None,
) -> UtilityFigures:
    """The figures of what was measured, and the comparison where both sides were; without a tokenizer none of the
    replies."""
    harmless = [reply for reply in before if reply.kind == "harmless"]
    return UtilityFigures(
        tasks=tuple(
            TaskFigures(
                task.name,
                task.metric,
                task.version,
                task.few_shot,
                task.n,
                task.value,
                task.stderr,
                task.interval,
            )
            for task in utility.tasks.values()
        ),
        perplexity=tuple(perplexities(score for scores in utility.perplexity.values() for score in scores)),
        generation=tuple(generation_figures(harmless, tokenizer)) if tokenizer is not None else (),
        comparison=None
        if edited is None or after is None
        else compare_utility(utility, edited, before, after, tokenizer),
    )
