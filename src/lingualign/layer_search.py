"""Choosing the blocks to edit by measurement: windows of consecutive blocks, each fitted on the fit split and audited
on the select split. The reported prompts play no part in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lingualign.evaluate.schema import Outcome, Reply


@dataclass(frozen=True)
class Trial:
    """What an edit of one window changed on the select split; every figure is a difference of rates, after - before.

    Attributes:
        layers: the window.
        gain: refusals of harmful prompts, mean over the languages other than the reference.
        reference: refusals of harmful prompts in the reference language.
        over_refusal: refusals of plain harmless prompts, mean over all languages.
        look_alike: refusals of look-alike prompts, mean over all languages.
        incoherence: broken replies to prompts of all kinds, mean over all languages.
    """

    layers: tuple[int, ...]
    gain: float
    reference: float
    over_refusal: float
    look_alike: float
    incoherence: float

    @property
    def score(self) -> float:
        """The gain less everything that it costs; a refusal lost or added anywhere weighs the same. What improved
        besides is no credit."""
        costs = (-self.reference, self.over_refusal, self.look_alike, self.incoherence)
        return self.gain - sum(max(0.0, cost) for cost in costs)


def candidate_windows(count: int, blocks: int) -> list[tuple[int, ...]]:
    """Windows of `count` consecutive blocks, each half a window after the one before, the last at the model's end."""
    count = min(count, blocks)
    starts = list(range(0, blocks - count, max(1, count // 2)))
    return [tuple(range(start, start + count)) for start in [*starts, blocks - count]]


def measured(layers: Sequence[int], before: Sequence[Reply], after: Sequence[Reply], reference: str) -> Trial:
    """The trial of a window from the audits without and with its edit; kinds that were not audited count nothing."""
    languages = tuple(dict.fromkeys(reply.language for reply in before))
    others = [language for language in languages if language != reference]

    def change(kind: str | None, outcome: Outcome, where: Sequence[str]) -> float:
        differences = []
        for language in where:
            rates = []
            for replies in (after, before):
                chosen = [reply for reply in replies if reply.language == language and kind in (None, reply.kind)]
                rates.append(sum(reply.outcome == outcome for reply in chosen) / len(chosen) if chosen else 0.0)
            differences.append(rates[0] - rates[1])
        return sum(differences) / len(differences) if differences else 0.0

    return Trial(
        layers=tuple(layers),
        gain=change("harmful", "refused", others),
        reference=change("harmful", "refused", [reference]),
        over_refusal=change("harmless", "refused", languages),
        look_alike=change("look-alike", "refused", languages),
        incoherence=change(None, "incoherent", languages),
    )


def search_layers(
    windows: Sequence[tuple[int, ...]], trial: Callable[[tuple[int, ...]], Trial]
) -> tuple[tuple[int, ...], list[dict[str, Any]]]:
    """The window with the highest score, the deeper of equals, and all trials for the manifest.

    Args:
        windows: the candidates.
        trial: fits and audits one window.
    """
    trials = [trial(window) for window in windows]
    best = max(reversed(trials), key=lambda found: found.score)
    return best.layers, [{**asdict(found), "score": found.score} for found in trials]
