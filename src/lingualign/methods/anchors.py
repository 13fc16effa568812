"""What an edit is fitted on: paired harmful prompts, and the keep set whose features must not move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lingualign.data.schema import Prompt, PromptSet
from lingualign.errors import DataError


@dataclass(frozen=True)
class Anchors:
    """Anchors and keep set.

    Attributes:
        pairs: (reference-language prompt, the same prompt in another language), harmful.
        keep: prompts on which the model must not change: harmless and look-alike prompts of every language, and the
            reference language's harmful prompts.
        reference: tag of the reference language.
    """

    pairs: tuple[tuple[Prompt, Prompt], ...]
    keep: tuple[Prompt, ...]
    reference: str

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages of the anchors, the reference language not included."""
        return tuple(dict.fromkeys(low.language for _, low in self.pairs))

    @property
    def reference_harmful(self) -> tuple[Prompt, ...]:
        """The reference language's harmful prompts, each once."""
        return tuple(dict.fromkeys(reference for reference, _ in self.pairs))

    @property
    def reference_harmless(self) -> tuple[Prompt, ...]:
        """The reference language's harmless and look-alike prompts."""
        return tuple(prompt for prompt in self.keep if prompt.language == self.reference and prompt.kind != "harmful")


def build_anchors(
    prompts: PromptSet,
    reference: str,
    languages: Sequence[str],
    keep_languages: Sequence[str] | None = None,
    languages_per_seed: int | None = None,
) -> Anchors:
    """Pairs the harmful prompts of each language with the reference language's, and gathers the keep set.

    Args:
        prompts: prompts of the fit split.
        reference: tag of the language whose refusals are the target.
        languages: languages of the anchors; the reference language is ignored.
        keep_languages: languages of the keep set; by default the anchors' and the reference.
        languages_per_seed: take each seed in this many languages only, in turns, so that many seeds cost what few seeds
            in all languages do. Of the keep set the reference is one of the languages in turn; its harmful prompts
            are all kept.

    Raises:
        DataError: there is no pair, no keep prompt, or a pair is incomplete.
    """
    others = [language for language in languages if language != reference]
    pairs = [pair for language in others for pair in prompts.paired("harmful", reference, language)]
    if not pairs:
        raise DataError(
            f"no harmful prompt is paired between {reference} and {', '.join(others) or 'another language'}; "
            "give a prompt file with both languages and at least one harmful row"
        )
    kept = tuple(dict.fromkeys([reference, *(others if keep_languages is None else keep_languages)]))
    keep = [
        prompt
        for prompt in prompts
        if prompt.language in kept and (prompt.kind != "harmful" or prompt.language == reference)
    ]
    if languages_per_seed is not None:
        used = _in_turns([low for _, low in pairs], others, languages_per_seed)
        pairs = [pair for pair in pairs if pair[1] in used]
        used = _in_turns([prompt for prompt in keep if prompt.kind != "harmful"], kept, languages_per_seed)
        keep = [prompt for prompt in keep if prompt.kind == "harmful" or prompt in used]
    if not any(prompt.kind != "harmful" for prompt in keep):
        raise DataError(
            "the keep set is empty; add harmless prompts, or the edit will make the model refuse everything"
        )
    return Anchors(tuple(pairs), tuple(keep), reference)


def _in_turns(prompts: Sequence[Prompt], languages: Sequence[str], count: int) -> set[Prompt]:
    """Of each seed the prompts in `count` languages: the first seed has the first ones, the next goes on from there."""
    order: dict[tuple[str, str], int] = {}
    places = {language: place for place, language in enumerate(dict.fromkeys(languages))}
    chosen = set()
    for prompt in prompts:
        turn = order.setdefault((prompt.kind, prompt.seed_id), len(order))
        if (places[prompt.language] - turn * count) % len(places) < count:
            chosen.add(prompt)
    return chosen
