"""What a prompt is: one text in one language, joined to its translations by `seed_id`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args, overload

from lingualign.errors import DataError

Kind = Literal["harmful", "look-alike", "harmless"]
Split = Literal["fit", "select", "report"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt in one language.

    Attributes:
        seed_id: joins translations of the same request; unique within a source, language and kind.
        language: BCP-47 tag.
        kind: harmful (should be refused), look-alike (harmless twin of a harmful prompt) or harmless.
        text: what the user types.
        category: harm category or topic.
        source: the data set it comes from.
        licence: SPDX identifier or a short statement.
        split: fit (anchors and keep set), select (chooses settings), report (reported figures), None if not yet split.
    """

    seed_id: str
    language: str
    kind: Kind
    text: str
    category: str = ""
    source: str = ""
    licence: str = ""
    split: Split | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """Identity of the prompt: (kind, seed_id, language)."""
        return (self.kind, self.seed_id, self.language)


class PromptSet(Sequence[Prompt]):
    """An ordered, immutable collection of prompts with unique keys.

    Raises:
        DataError: two prompts share kind, seed_id and language, or a text is empty.
    """

    def __init__(self, prompts: Iterable[Prompt]) -> None:
        self._prompts = tuple(prompts)
        seen: set[tuple[str, str, str]] = set()
        for prompt in self._prompts:
            if not prompt.text.strip():
                raise DataError(f"{_name(prompt)} is empty; fill it in or remove the row")
            if prompt.key in seen:
                raise DataError(f"{_name(prompt)} occurs twice; give each row its own seed_id")
            seen.add(prompt.key)

    def __len__(self) -> int:
        return len(self._prompts)

    def __iter__(self) -> Iterator[Prompt]:
        return iter(self._prompts)

    @overload
    def __getitem__(self, index: int) -> Prompt: ...

    @overload
    def __getitem__(self, index: slice) -> PromptSet: ...

    def __getitem__(self, index: int | slice) -> Prompt | PromptSet:
        return PromptSet(self._prompts[index]) if isinstance(index, slice) else self._prompts[index]

    def where(
        self,
        *,
        kinds: Iterable[Kind] | None = None,
        languages: Iterable[str] | None = None,
        splits: Iterable[Split] | None = None,
        keep: Callable[[Prompt], bool] | None = None,
    ) -> PromptSet:
        """The prompts that satisfy every given condition, in the same order."""
        kind_set, language_set, split_set = (
            None if values is None else set(values) for values in (kinds, languages, splits)
        )
        return PromptSet(
            prompt
            for prompt in self._prompts
            if (kind_set is None or prompt.kind in kind_set)
            and (language_set is None or prompt.language in language_set)
            and (split_set is None or prompt.split in split_set)
            and (keep is None or keep(prompt))
        )

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages in order of first appearance."""
        return tuple(dict.fromkeys(prompt.language for prompt in self._prompts))

    def seeds(self, kind: Kind) -> tuple[str, ...]:
        """Seed ids of one kind in order of first appearance."""
        return tuple(dict.fromkeys(prompt.seed_id for prompt in self._prompts if prompt.kind == kind))

    def limited(self, seeds_per_kind: int | None) -> PromptSet:
        """Only the first `seeds_per_kind` seeds of each kind, in every language."""
        if seeds_per_kind is None:
            return self
        return self._of({(kind, seed) for kind in KINDS for seed in self.seeds(kind)[:seeds_per_kind]})

    def every(self, step: int) -> PromptSet:
        """Only every `step`-th seed of each kind, in every language."""
        return self._of({(kind, seed) for kind in KINDS for seed in self.seeds(kind)[::step]})

    def _of(self, chosen: set[tuple[Kind, str]]) -> PromptSet:
        return self.where(keep=lambda prompt: (prompt.kind, prompt.seed_id) in chosen)

    def with_source(self, source: str) -> PromptSet:
        """The same prompts with seed ids prefixed by `source`, so that sets from several sources can be mixed."""
        return PromptSet(
            replace(prompt, seed_id=f"{source}:{prompt.seed_id}", source=source) for prompt in self._prompts
        )

    def __add__(self, other: PromptSet) -> PromptSet:
        return PromptSet((*self._prompts, *other))

    def paired(self, kind: Kind, reference: str, language: str) -> list[tuple[Prompt, Prompt]]:
        """Pairs (reference language, language) of prompts with the same seed, in seed order.

        Raises:
            DataError: a seed exists in only one of the two languages.
        """
        by_language = {
            name: {
                prompt.seed_id: prompt for prompt in self._prompts if prompt.kind == kind and prompt.language == name
            }
            for name in (reference, language)
        }
        lonely = set(by_language[reference]) ^ set(by_language[language])
        if lonely:
            raise DataError(
                f"{len(lonely)} {kind} rows have no partner between {reference} and {language} (first: {min(lonely)}); "
                "parallel rows need the same seed_id in both languages"
            )
        return [(prompt, by_language[language][seed]) for seed, prompt in by_language[reference].items()]


def _name(prompt: Prompt) -> str:
    """The prompt as error messages name it."""
    return f"prompt {prompt.seed_id} ({prompt.language}, {prompt.kind}) of {prompt.source or 'the prompt set'}"
