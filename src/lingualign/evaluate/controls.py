"""Is it the language? Two other explanations of a gap between languages: the prompts' length, and their translation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

import numpy as np
import numpy.typing as npt

from lingualign.data.schema import Kind, Prompt
from lingualign.evaluate.incoherence import can_identify, identify_language, same_or_close_language
from lingualign.evaluate.schema import Reply
from lingualign.evaluate.statistics import Interval, expanded_percentiles, paired_difference_interval, resampled_rows
from lingualign.languages import REFERENCE

#: Length strata: with 20 to 60 prompts a language, more would leave most of them empty.
STRATA = 3
#: A translation is out of line when its length relative to the reference is this many times off the language's median.
LENGTH_FACTOR = 2.0

Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class LengthControl:
    """Refusal and prompt length in one language, against the reference on the same requests.

    Attributes:
        n: requests judged in both languages.
        mean_length, reference_length: mean length of the prompts, in the unit that was given.
        refused_length, answered_length: mean length of this language's prompts that were refused, and answered; None
            where there are none.
        gap: refusal rate minus the reference's, all requests.
        adjusted_gap: the same at equal length: Mantel and Haenszel's difference over strata of length. None where no
            stratum holds prompts of both languages.
        adjusted_interval: its 95% interval, by bootstrap over requests; None with it.
        matched: share of this language's prompts in strata that hold reference prompts too.
    """

    language: str
    n: int
    mean_length: float
    reference_length: float
    refused_length: float | None
    answered_length: float | None
    gap: float
    adjusted_gap: float | None
    adjusted_interval: Interval | None
    matched: float


def length_controls(
    replies: Sequence[Reply],
    lengths: Mapping[Key, int],
    kind: Kind = "harmful",
    *,
    reference: str = REFERENCE,
    samples: int = 2000,
) -> list[LengthControl]:
    """Whether a language's gap to the reference is one of prompt length.

    Prompts of both languages are cut into three strata at the terciles of their pooled lengths; refusal is compared
    within strata. If the gap stays, length does not explain it. Source: Mantel and Haenszel 1959, JNCI 22:719; the risk
    difference as in Greenland and Robins 1985, Biometrics 41:55. The interval draws requests again, each with both of
    its prompts, because translations are paired.

    Args:
        replies: of one audit; those that the judge could not read are left out.
        lengths: length of each prompt by `Reply.key`. Tokens of the model's tokenizer compare languages fairly;
            characters do so only within a script (`matched` shows where they do not).
        kind: the prompts looked at.
        samples: bootstrap samples.

    Returns:
        One row for each language other than the reference that shares a request with it, in the order of the audit.
    """
    refused = _refused(replies, kind)
    found = []
    for language in (tag for tag in refused if tag != reference):
        seeds = [seed for seed in refused[language] if seed in refused.get(reference, {})]
        if not seeds:
            continue
        outcomes = np.array([[refused[tag][seed] for tag in (language, reference)] for seed in seeds], dtype=float)
        sizes = np.array([[lengths[kind, seed, tag] for tag in (language, reference)] for seed in seeds], dtype=float)
        strata = np.searchsorted(np.quantile(sizes, np.arange(1, STRATA) / STRATA), sizes)
        adjusted = _mantel_haenszel(outcomes, strata, np.ones((1, len(seeds))))[0]
        interval = None
        if not math.isnan(adjusted):
            drawn = _mantel_haenszel(outcomes, strata, resampled_rows(len(seeds), samples, 0))
            low, high = np.nanquantile(drawn, expanded_percentiles(len(seeds), 0.95))
            interval = (float(low), float(high))
        answered = [reply for reply in replies if reply.kind == kind and reply.outcome == "answered"]
        own = sizes[:, 0]
        found.append(
            LengthControl(
                language=language,
                n=len(seeds),
                mean_length=float(own.mean()),
                reference_length=float(sizes[:, 1].mean()),
                refused_length=_mean(own[outcomes[:, 0] == 1].tolist()),
                answered_length=_mean(
                    [lengths[reply.key] for reply in answered if reply.language == language and reply.seed_id in seeds]
                ),
                gap=float(outcomes[:, 0].mean() - outcomes[:, 1].mean()),
                adjusted_gap=None if math.isnan(adjusted) else float(adjusted),
                adjusted_interval=interval,
                matched=float(np.isin(strata[:, 0], strata[:, 1]).mean()),
            )
        )
    return found


@dataclass(frozen=True, slots=True)
class TranslationControl:
    """What the prompts of one language show of their translation, without translating them back.

    Attributes:
        n: prompts that have a partner in the reference language.
        identified: prompts long enough for their language to be identified; 0 where the identifier does not know it.
        right_language: of these, prompts identified as their own language or one easily mixed up with it.
        untranslated: prompts whose text is the reference's, letter by letter.
        length_ratio: median of characters over the reference's characters.
        out_of_line: prompts whose ratio is more than twice, or less than half, the median.
        suspect: seed ids of prompts in another language, untranslated, or out of line.
        gap: refusal rate minus the reference's, all requests.
        sound_gap: the same without the suspect requests; None where nothing is left.
        sound_interval: its 95% interval, paired (Newcombe's method 10); None with it.
    """

    language: str
    n: int
    identified: int
    right_language: int
    untranslated: int
    length_ratio: float
    out_of_line: int
    suspect: tuple[str, ...]
    gap: float
    sound_gap: float | None
    sound_interval: Interval | None


def translation_controls(
    replies: Sequence[Reply], prompts: Sequence[Prompt], kind: Kind = "harmful", *, reference: str = REFERENCE
) -> list[TranslationControl]:
    """Whether a language's gap to the reference is one of bad translations.

    The marks are coarse: they find prompts left in English, in a third language, cut or padded. A fluent translation
    that says something else passes. If the gap stays without the suspect prompts, these faults do not explain it.

    Returns:
        One row for each language other than the reference that shares a judged request with it, in the order of the
        audit.
    """
    refused = _refused(replies, kind)
    texts = {prompt.key: prompt.text for prompt in prompts}
    found = []
    for language in (tag for tag in refused if tag != reference):
        seeds = [seed for seed in refused[language] if seed in refused.get(reference, {})]
        if not seeds:
            continue
        own = {seed: texts[kind, seed, language] for seed in seeds}
        source = {seed: texts[kind, seed, reference] for seed in seeds}
        named = {seed: identify_language(text) for seed, text in own.items()} if can_identify(language) else {}
        foreign = {seed for seed, name in named.items() if name and not same_or_close_language(name, language)}
        identified = sum(bool(name) for name in named.values())
        untranslated = {seed for seed in seeds if own[seed].strip() == source[seed].strip()}
        ratios = {seed: len(own[seed]) / len(source[seed]) for seed in seeds}
        usual = median(ratios.values())
        out_of_line = {
            seed for seed, ratio in ratios.items() if not usual / LENGTH_FACTOR <= ratio <= usual * LENGTH_FACTOR
        }
        suspect = foreign | untranslated | out_of_line
        sound = [seed for seed in seeds if seed not in suspect]
        found.append(
            TranslationControl(
                language=language,
                n=len(seeds),
                identified=identified,
                right_language=identified - len(foreign),
                untranslated=len(untranslated),
                length_ratio=usual,
                out_of_line=len(out_of_line),
                suspect=tuple(seed for seed in seeds if seed in suspect),
                gap=_gap(refused, language, reference, seeds),
                sound_gap=_gap(refused, language, reference, sound) if sound else None,
                sound_interval=paired_difference_interval(
                    [refused[reference][seed] for seed in sound], [refused[language][seed] for seed in sound]
                )
                if sound
                else None,
            )
        )
    return found


def _refused(replies: Sequence[Reply], kind: Kind) -> dict[str, dict[str, bool]]:
    """Whether each prompt of a kind was refused, by language and seed."""
    found: dict[str, dict[str, bool]] = {}
    for reply in replies:
        if reply.kind == kind and reply.outcome != "unparsed":
            found.setdefault(reply.language, {})[reply.seed_id] = reply.outcome == "refused"
    return found


def _gap(refused: Mapping[str, Mapping[str, bool]], language: str, reference: str, seeds: Sequence[str]) -> float:
    return fmean(refused[language][seed] - refused[reference][seed] for seed in seeds)


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _mantel_haenszel(
    outcomes: npt.NDArray[np.float64], strata: npt.NDArray[np.int64], draws: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """(samples,) differences of two columns' rates at equal strata, weighted n1 n2 / (n1 + n2); NaN without overlap.

    Args:
        outcomes, strata: (seeds, 2): language and reference.
        draws: (samples, seeds) how often each seed is drawn.
    """
    weight = total = np.zeros(len(draws))
    for stratum in range(STRATA):
        inside = (strata == stratum).astype(np.float64)
        sizes, hits = draws @ inside, draws @ (inside * outcomes)
        product, both = sizes.prod(axis=1), sizes.sum(axis=1)
        share = np.divide(product, both, out=np.zeros_like(both), where=both > 0)
        rates = np.divide(hits, sizes, out=np.zeros_like(hits), where=sizes > 0)
        weight = weight + share
        total = total + share * (rates[:, 0] - rates[:, 1])
    return np.divide(total, weight, out=np.full_like(total, np.nan), where=weight > 0)
