"""Languages by BCP-47 tag: name, script, resource tier, direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lingualign.errors import DataError

Tier = Literal["high", "medium", "low"]


@dataclass(frozen=True, slots=True)
class Language:
    """A language we can measure.

    Attributes:
        tag: BCP-47 tag.
        name: English name.
        script: ISO 15924 code of its usual script.
        tier: share of CommonCrawl, after Deng et al. 2024 (MultiJail): high > 1%, medium > 0.1%, low below.
    """

    tag: str
    name: str
    script: str
    tier: Tier

    @property
    def right_to_left(self) -> bool:
        return self.script in {"Arab", "Hebr"}


_TABLE: tuple[tuple[str, str, str, Tier], ...] = (
    ("en", "English", "Latn", "high"),
    ("zh", "Chinese", "Hans", "high"),
    ("vi", "Vietnamese", "Latn", "high"),
    ("ja", "Japanese", "Jpan", "high"),
    ("th", "Thai", "Thai", "medium"),
    ("id", "Indonesian", "Latn", "medium"),
    ("bn", "Bengali", "Beng", "medium"),
    ("he", "Hebrew", "Hebr", "medium"),
    ("ar", "Arabic", "Arab", "medium"),
    ("ko", "Korean", "Kore", "medium"),
    ("sw", "Swahili", "Latn", "low"),
    ("it", "Italian", "Latn", "high"),
    ("es", "Spanish", "Latn", "high"),
    ("de", "German", "Latn", "high"),
    ("fr", "French", "Latn", "high"),
    ("ru", "Russian", "Cyrl", "high"),
    ("pt", "Portuguese", "Latn", "high"),
    ("nl", "Dutch", "Latn", "high"),
    ("pl", "Polish", "Latn", "high"),
    ("tr", "Turkish", "Latn", "medium"),
    ("hi", "Hindi", "Deva", "medium"),
    ("fa", "Persian", "Arab", "medium"),
    ("ur", "Urdu", "Arab", "low"),
    ("ta", "Tamil", "Taml", "low"),
    ("te", "Telugu", "Telu", "low"),
    ("jv", "Javanese", "Latn", "low"),
    ("yo", "Yoruba", "Latn", "low"),
    ("yi", "Yiddish", "Hebr", "low"),
    ("ps", "Pashto", "Arab", "low"),
    ("ku", "Kurdish", "Latn", "low"),
    ("ha", "Hausa", "Latn", "low"),
    ("ht", "Haitian Creole", "Latn", "low"),
    ("et", "Estonian", "Latn", "medium"),
    ("qu", "Quechua", "Latn", "low"),
)
LANGUAGES: dict[str, Language] = {row[0]: Language(*row) for row in _TABLE}
#: The language whose refusals are the target of the edit.
REFERENCE = "en"


def language(tag: str) -> Language:
    """The language of a tag.

    Raises:
        DataError: the tag is not in the table.
    """
    try:
        return LANGUAGES[tag]
    except KeyError:
        raise DataError(f"unknown language {tag!r}; known tags: {', '.join(LANGUAGES)}") from None


def check_languages(tags: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    """The tags, checked and without repetition."""
    return tuple(dict.fromkeys(language(tag).tag for tag in tags))
