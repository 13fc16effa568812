"""Languages as other programs write them: `tha_Thai`, `zh-CN`, `Swahili`, or the end of a task's name."""

from __future__ import annotations

import re

from lingualign.languages import LANGUAGES

#: ISO 639-3 codes, bibliographic ISO 639-2 codes and those of usual macrolanguages, by our tag.
_CODES: dict[str, str] = {
    "en": "eng",
    "zh": "zho chi cmn",
    "vi": "vie",
    "ja": "jpn",
    "th": "tha",
    "id": "ind",
    "bn": "ben",
    "he": "heb",
    "ar": "ara arb",
    "ko": "kor",
    "sw": "swa swh",
    "it": "ita",
    "es": "spa",
    "de": "deu ger",
    "fr": "fra fre",
    "ru": "rus",
    "pt": "por",
    "nl": "nld dut",
    "pl": "pol",
    "tr": "tur",
    "hi": "hin",
    "fa": "fas per pes",
    "ur": "urd",
    "ta": "tam",
    "te": "tel",
    "jv": "jav",
    "yo": "yor",
    "yi": "yid",
    "ps": "pus pbt",
    "ku": "kur kmr",
    "ha": "hau",
    "ht": "hat",
    "et": "est ekk",
    "qu": "que",
}
_TAGS: dict[str, str] = {
    **{code: tag for tag, codes in _CODES.items() for code in codes.split()},
    **{entry.name.lower(): entry.tag for entry in LANGUAGES.values()},
    **{tag: tag for tag in LANGUAGES},
}
#: A script or a region. Two small letters after `_` are none: `task_id_en` ends in English, not in Indonesian.
_REGION = re.compile(r"[-_](?:[A-Z][a-z]{3}|[A-Z]{2}|\d{3})|-[a-z]{2}")


def known_tag(name: str) -> str | None:
    """Our tag of a language's tag, code or English name, script and region set aside; None where it is none of ours."""
    name = name.strip()
    head = re.split(r"[-_]", name, maxsplit=1)[0]
    if name.lower() in _TAGS:
        return _TAGS[name.lower()]
    return _TAGS.get(head.lower()) if _REGION.fullmatch(name, len(head)) else None


def split_task(task: str) -> tuple[str, str | None]:
    """The stem of a task's name and the language at its end: `xnli_th` gives `xnli` and `th`.

    The stem is the whole name where no language of ours is at the end.
    """
    parts = re.split(r"([-_])", task)
    # Names and separators alternate; three parts for `tha_Thai` and `zh-CN`, one for `th`.
    for length in (3, 1):
        if len(parts) > length + 1 and (tag := known_tag("".join(parts[-length:]))):
            return "".join(parts[: -length - 1]), tag
    return task, None
