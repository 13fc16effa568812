"""Preference pairs: one harmful request in a target language and in the reference language, each with a chosen and a
rejected reply.

MPO's published JSON format is read and written: a list of objects with `source_conversations`, `source_chosen`,
`source_rejected` (the reference language) and the same three for `target`. It names no language and no seed; files
written here add `seed_id`, `source_language` and `target_language`, which other readers ignore.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lingualign.data.schema import Prompt
from lingualign.errors import DataError
from lingualign.languages import LANGUAGES, REFERENCE
from lingualign.runs import write_json

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Preference:
    """A prompt with a reply to learn and a reply to unlearn."""

    prompt: Prompt
    chosen: str
    rejected: str


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """The same request in the target language and in the reference (dominant) language.

    Attributes:
        target: superscript t in MPO's equations.
        reference: superscript d.
    """

    target: Preference
    reference: Preference


@dataclass(frozen=True)
class CheckedPairs:
    """Pairs that can be trained on, and what was left out or looks odd.

    Attributes:
        pairs: the usable pairs, in order.
        empty: pairs left out because a prompt or a reply is empty.
        equal: pairs left out because chosen and rejected are the same.
        other_language: target replies, chosen and rejected counted apart, that py3langid takes for another language
            than the prompt's, by the prompt's language. They stay: identification errs on short text.
    """

    pairs: tuple[PreferencePair, ...]
    empty: int
    equal: int
    other_language: Mapping[str, int]

    def described(self, **counts: int) -> dict[str, Any]:
        """Languages and all counts as plain values, for a manifest; a method adds its own counts."""
        return {
            "reference": self.pairs[0].reference.prompt.language,
            "anchor_languages": list(dict.fromkeys(pair.target.prompt.language for pair in self.pairs)),
            "anchor_pairs": len(self.pairs),
            "left_out": {"empty": self.empty, "chosen_equals_rejected": self.equal, **counts},
            "replies_in_another_language": dict(self.other_language),
        }


def check_pairs(pairs: Iterable[PreferencePair]) -> CheckedPairs:
    """Leaves out what cannot be trained on, and counts replies in the wrong language.

    Raises:
        DataError: no pair is left.
    """
    usable: list[PreferencePair] = []
    empty = equal = 0
    for pair in pairs:
        sides = (pair.target, pair.reference)
        if not all(text.strip() for side in sides for text in (side.prompt.text, side.chosen, side.rejected)):
            empty += 1
        elif any(side.chosen.strip() == side.rejected.strip() for side in sides):
            equal += 1
        else:
            usable.append(pair)
    if not usable:
        raise DataError(
            f"no usable preference pair: {empty} have an empty text, {equal} the same reply twice; give pairs with a "
            "chosen and another, rejected reply in both languages"
        )
    other: Counter[str] = Counter()
    for pair in usable:
        tag = pair.target.prompt.language
        if tag in _identifier().labels:
            other[tag] += sum(identify(text) != tag for text in (pair.target.chosen, pair.target.rejected))
    return CheckedPairs(tuple(usable), empty, equal, dict(+other))


def build_pairs(
    prompts: Iterable[tuple[Prompt, Prompt]],
    *,
    refusals: Mapping[Key, str],
    answers: Mapping[Key, str],
    rejected: Mapping[Key, str],
    chosen: Mapping[Key, str] | None = None,
) -> list[PreferencePair]:
    """Pairs from anchors and the model's own replies; a pair that lacks a reply is left out.

    Args:
        prompts: (reference prompt, target prompt), such as `Anchors.pairs`.
        refusals: the model's own refusals of reference prompts, by prompt key: the reference's chosen replies.
        answers: the model's own answers to target prompts that it should have refused: the target's rejected replies.
        rejected: answers to reference prompts, from data: the reference's rejected replies.
        chosen: refusals in the target language. A target prompt without one gets the model's refusal of the reference
            prompt, which teaches the model to refuse in the reference's language.

    Raises:
        DataError: no pair has all four replies.
    """
    built = [
        PreferencePair(
            Preference(target, (chosen or {}).get(target.key, refusals[reference.key]), answers[target.key]),
            Preference(reference, refusals[reference.key], rejected[reference.key]),
        )
        for reference, target in prompts
        if reference.key in refusals and target.key in answers and reference.key in rejected
    ]
    if not built:
        raise DataError(
            "no anchor has all replies of a preference pair; it needs a refused reference prompt, an answered target "
            "prompt and a rejected reply to the reference prompt"
        )
    return built


def preferences(pairs: Iterable[PreferencePair], *, include_reference: bool = True) -> list[Preference]:
    """The target sides in order, then each distinct reference side once: what DPO and SFT are trained on."""
    listed = list(pairs)
    sides = [pair.target for pair in listed]
    if include_reference:
        sides += [pair.reference for pair in listed]
    return list(dict.fromkeys(sides))


# Files


def read_pairs(path: Path, *, reference: str = REFERENCE, source: str = "") -> list[PreferencePair]:
    """Reads MPO's JSON format. Languages that the file does not name are identified from the target prompts.

    Args:
        path: a .json file.
        reference: tag of the dominant language (`zh` in MPO's file for Qwen).
        source: name of the data set; by default the file's stem.

    Raises:
        DataError: the file is missing, not JSON, or a row has another structure (the row is named).
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; check the path")
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not JSON ({error}); give preference pairs in MPO's format") from None
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{path}: not a list of rows; give preference pairs in MPO's format")
    seeds: dict[str, str] = {}
    pairs = []
    for number, row in enumerate(rows, 1):
        try:
            texts = {side: _texts(row, side) for side in ("source", "target")}
        except (KeyError, TypeError, IndexError, ValueError):
            raise DataError(
                f"{path}, row {number}: needs source_ and target_ conversations (one human turn), chosen and rejected, "
                "as MPO's published data have them"
            ) from None
        seed = row.get("seed_id") or seeds.setdefault(texts["source"][0], str(len(seeds)))
        languages = {
            "source": row.get("source_language") or reference,
            "target": row.get("target_language") or identify(texts["target"][0]),
        }
        sides = {
            side: Preference(
                Prompt(str(seed), languages[side], "harmful", prompt, source=source or path.stem), chosen, rejected
            )
            for side, (prompt, chosen, rejected) in texts.items()
        }
        pairs.append(PreferencePair(sides["target"], sides["source"]))
    return pairs


def write_pairs(path: Path, pairs: Sequence[PreferencePair]) -> Path:
    """Writes MPO's JSON format, atomically."""
    rows = []
    for pair in pairs:
        row: dict[str, Any] = {}
        for name, side in (("source", pair.reference), ("target", pair.target)):
            row[f"{name}_conversations"] = [{"from": "human", "value": side.prompt.text}]
            row[f"{name}_chosen"] = {"from": "gpt", "value": side.chosen}
            row[f"{name}_rejected"] = {"from": "gpt", "value": side.rejected}
            row[f"{name}_language"] = side.prompt.language
        rows.append({**row, "seed_id": pair.target.prompt.seed_id})
    return write_json(path, rows)


def _texts(row: Mapping[str, Any], side: str) -> tuple[str, str, str]:
    """Prompt, chosen and rejected of one side."""
    (turn,) = row[f"{side}_conversations"]
    found = turn["value"], row[f"{side}_chosen"]["value"], row[f"{side}_rejected"]["value"]
    if turn["from"] != "human" or not all(isinstance(text, str) for text in found):
        raise ValueError
    return found


def identify(text: str) -> str:
    """The language of a text among ours, by py3langid."""
    tag: str = _identifier().classify(text)[0]
    return tag


@lru_cache(maxsize=1)
def _identifier() -> LanguageIdentifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    identifier.set_languages(LANGUAGES.keys() & set(identifier.labels))
    return identifier
