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
    prompts: PromptSet, reference: str, languages: Sequence[str], keep_languages: Sequence[str] | None = None
) -> Anchors:
    """Pairs the harmful prompts of each language with the reference language's, and gathers the keep set.

    Args:
        prompts: prompts of the fit split.
        reference: tag of the language whose refusals are the target.
        languages: languages of the anchors; the reference language is ignored.
        keep_languages: languages of the keep set; by default the anchors' and the reference.

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
    kept = {reference, *others} if keep_languages is None else {reference, *keep_languages}
    keep = [
        prompt
        for prompt in prompts
        if prompt.language in kept and (prompt.kind != "harmful" or prompt.language == reference)
    ]
    if not any(prompt.kind != "harmful" for prompt in keep):
        raise DataError(
            "the keep set is empty; add harmless prompts, or the edit will make the model refuse everything"
        )
    return Anchors(tuple(pairs), tuple(keep), reference)
