"""From settings to prompts: what an edit is fitted on, and what is audited. The two never share a seed."""

from __future__ import annotations

from dataclasses import dataclass

from lingualign.config import RunConfig
from lingualign.data.benchmarks.overlaps import overlap_warnings
from lingualign.data.loaders import mix, parse_source, read_source
from lingualign.data.schema import PromptSet, Split
from lingualign.data.similarity import normalised
from lingualign.data.splits import split_by_seed
from lingualign.errors import DataError
from lingualign.methods.anchors import Anchors, build_anchors
from lingualign.runs import content_hash


@dataclass(frozen=True)
class RunPrompts:
    """The prompts of a run.

    Attributes:
        fit: prompts of the fit split, in every language that is needed.
        select: prompts of the select split in the audited languages; they may choose settings.
        report: prompts that are audited, the reference language first.
        reference: tag of the reference language.
        anchor_languages: languages the edit is fitted on, the reference left out.
        keep_languages: languages of the keep set, or None for the anchors' and the reference.
        languages_per_seed: in how many of these languages each seed is fitted on, in turns; None for all.
        warnings: one line for each known or found overlap between sources, or between what is fitted on and reported.
    """

    fit: PromptSet
    select: PromptSet
    report: PromptSet
    reference: str
    anchor_languages: tuple[str, ...]
    keep_languages: tuple[str, ...] | None
    languages_per_seed: int | None = None
    warnings: tuple[str, ...] = ()

    def anchors(self) -> Anchors:
        """Pairs and keep set.

        Raises:
            DataError: there is no pair or no keep prompt, or a pair is incomplete.
        """
        return build_anchors(
            *(self.fit, self.reference, self.anchor_languages, self.keep_languages, self.languages_per_seed)
        )


def prompts_hash(prompts: PromptSet) -> str:
    """Identifies prompts by their keys and texts."""
    return content_hash([[*prompt.key, prompt.text] for prompt in prompts])


def resolve_prompts(config: RunConfig) -> RunPrompts:
    """Loads, splits and mixes the sources of a configuration.

    Prompts without a split are split by seed. A language must be in at least one source.

    Raises:
        DataError: a source cannot be loaded, or a language is in none of them.
    """
    settings, reference = config.prompts, config.reference
    needed = (
        reference,
        *(settings.languages or ()),
        *(settings.anchor_languages or ()),
        *(settings.keep_languages or ()),
    )
    # One source must have every language asked for; of several, one may be the user's own traffic in a single language.
    asked = tuple(dict.fromkeys(needed)) if settings.languages and len(settings.sources) == 1 else None
    loaded = [parse_source(spec, asked) for spec in settings.sources]
    prompts = mix([_divided(part, config.seed) for part in loaded])
    if missing := [language for language in dict.fromkeys(needed) if language not in prompts.languages]:
        raise DataError(
            f"no prompts in {', '.join(missing)}, only in {', '.join(prompts.languages)}; "
            "add a source with --prompts or leave the language out"
        )
    audited = tuple(dict.fromkeys((reference, *(settings.languages or prompts.languages))))
    anchor_languages = settings.anchor_languages or audited
    fit = _part(prompts, "fit", tuple(dict.fromkeys((*audited, *needed))), settings.fit_seeds_per_kind)
    report = _part(prompts, "report", audited, settings.seeds_per_kind)
    names = [read_source(spec).name for spec in settings.sources]
    return RunPrompts(
        fit=fit,
        select=_part(prompts, "select", audited, settings.select_seeds_per_kind),
        report=report,
        reference=reference,
        anchor_languages=tuple(language for language in anchor_languages if language != reference),
        keep_languages=settings.keep_languages,
        languages_per_seed=settings.languages_per_seed,
        warnings=(*overlap_warnings(names), *_leaks(fit, report)),
    )


def _leaks(fit: PromptSet, report: PromptSet) -> list[str]:
    """A warning where prompts that are reported have the text of prompts that are fitted on."""
    fitted = {(prompt.language, normalised(prompt.text)) for prompt in fit}
    shared = [prompt for prompt in report if (prompt.language, normalised(prompt.text)) in fitted]
    if not shared:
        return []
    first = shared[0]
    return [
        f"{len(shared)} of {len(report)} reported prompts have the text of a prompt the edit is fitted on "
        f"(first: {first.seed_id} in {first.language}); give them one split"
    ]


def _divided(prompts: PromptSet, seed: int) -> PromptSet:
    return split_by_seed(prompts, seed=seed) if any(prompt.split is None for prompt in prompts) else prompts


def _part(prompts: PromptSet, split: Split, languages: tuple[str, ...], seeds_per_kind: int | None) -> PromptSet:
    chosen = prompts.where(splits=[split])
    ordered = PromptSet(prompt for language in languages for prompt in chosen if prompt.language == language)
    return ordered.limited(seeds_per_kind)
