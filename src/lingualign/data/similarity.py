"""Which prompts of two sets say the same: equal or nearly equal texts of one language."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from math import ceil

from lingualign.data.schema import Prompt, PromptSet

#: Share of words in common (Jaccard) from which two texts count as the same request.
SIMILAR = 0.75


def normalised(text: str) -> str:
    """The text without case, punctuation and spacing: what a reprint of the same prompt keeps."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def repeated(prompts: Iterable[Prompt]) -> list[tuple[Prompt, Prompt]]:
    """Prompts whose normalised text an earlier prompt of the same kind and language has, with that earlier prompt."""
    first: dict[tuple[str, str, str], Prompt] = {}
    pairs = []
    for prompt in prompts:
        # A text of signs alone has no words to compare.
        key = (prompt.kind, prompt.language, normalised(prompt.text) or prompt.text)
        if (earlier := first.setdefault(key, prompt)) is not prompt:
            pairs.append((earlier, prompt))
    return pairs


def similar(first: PromptSet, second: PromptSet, threshold: float = SIMILAR) -> list[tuple[Prompt, Prompt]]:
    """For each prompt of `second`, the prompt of `first` most like it, where they share `threshold` of their words.

    One language is compared, English if both have it: translations of one request count once. Languages without
    spaces are compared by whole phrases, so only reprints are found. Prefix filtering (Chaudhuri et al. 2006): two sets
    of words with Jaccard >= t share one of the rarest |x| - ceil(t |x|) + 1 words of each.

    Returns:
        Pairs (prompt of first, prompt of second); empty if the sets have no language in common.
    """
    common = [tag for tag in first.languages if tag in second.languages]
    if not common:
        return []
    language = "en" if "en" in common else common[0]
    mine, others = first.where(languages=[language]), second.where(languages=[language])
    rarity = Counter(word for prompt in (*mine, *others) for word in _words(prompt))

    def prefix(words: frozenset[str]) -> list[str]:
        ordered = sorted(words, key=lambda word: (rarity[word], word))
        return ordered[: len(ordered) - ceil(threshold * len(ordered)) + 1]

    index: defaultdict[str, set[int]] = defaultdict(set)
    words_of = [_words(prompt) for prompt in mine]
    for place, words in enumerate(words_of):
        for word in prefix(words):
            index[word].add(place)
    pairs = []
    for prompt in others:
        words = _words(prompt)
        candidates = sorted({place for word in prefix(words) for place in index[word]})
        best = max(candidates, key=lambda place: _jaccard(words_of[place], words), default=None)
        if best is not None and _jaccard(words_of[best], words) >= threshold:
            pairs.append((mine[best], prompt))
    return pairs


def _words(prompt: Prompt) -> frozenset[str]:
    return frozenset(normalised(prompt.text).split())


def _jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    return len(first & second) / len(first | second)
