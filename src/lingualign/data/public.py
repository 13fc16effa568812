"""Public parallel benchmarks, read from folders the user downloaded; nothing of them ships with lingualign.

Each set lies in a folder of its name below one root. Rows whose text is missing in a language that is asked for are
left out, so that what comes back is parallel; the rows of every file are counted, so a cut download is an error.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lingualign.data.schema import Kind, Prompt, PromptSet, Split
from lingualign.data.tables import read_csv, read_json_lines
from lingualign.errors import DataError
from lingualign.languages import check_languages


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a set: its kind, the rows of its file, its languages and the split its publishers meant it for."""

    kind: Kind
    rows: int
    languages: tuple[str, ...]
    split: Split | None = None


@dataclass(frozen=True, slots=True)
class PublicSet:
    """What a public set is and under which terms.

    Attributes:
        name: folder name below the root.
        parts: parts by name.
        languages: languages of any part.
        licence: SPDX identifier or a short statement, with that of the upstream source.
        citation: paper or repository.
        non_commercial: some text derives from a source whose licence excludes commercial use.
    """

    name: str
    parts: Mapping[str, Part]
    languages: tuple[str, ...]
    licence: str
    citation: str
    non_commercial: bool


@dataclass(frozen=True, slots=True)
class _Entry:
    """A request in the languages it was read in."""

    seed_id: str
    category: str
    texts: dict[str, str]


@dataclass(frozen=True, slots=True)
class XcopaItem:
    """One XCOPA item: which of two sentences is the cause or the effect of the premise.

    Attributes:
        item_id: the same in all languages.
        premise: a sentence.
        question: what is asked for.
        choices: the two sentences.
        label: index of the right one.
    """

    item_id: str
    premise: str
    question: Literal["cause", "effect"]
    choices: tuple[str, str]
    label: int


# folder of the set, name of the part, its description, languages -> entries
_Reader = Callable[[Path, str, Part, tuple[str, ...]], list[_Entry]]

_POLYREFUSE = ("en", "ar", "de", "es", "fr", "it", "ja", "ko", "nl", "pl", "ru", "th", "yi", "yo", "zh")
#: The Chinese harmless rows do not match the English ones; the merged files leave them out.
_POLYREFUSE_HARMLESS = _POLYREFUSE[:-1]
_MLC = ("en", "zh", "ar", "ru", "ja", "bn", "sw", "ur", "ps", "ku")
_XSAFETY = ("en", "zh", "ar", "bn", "de", "es", "fr", "hi", "ja", "ru")
_JAILBREAKBENCH = ("en", "ar", "de", "es", "fr", "it", "ja", "ko", "nl", "pl", "ru", "th", "yo", "zh")
_XCOPA = ("et", "ht", "id", "it", "qu", "sw", "ta", "th", "tr", "vi", "zh")
_MPO = ("en", "zh", "ko", "ar", "bn", "sw", "ja")
_VICUNA_NAMES = {
    "en": "English", "ar": "Arabic", "zh": "Chinese", "de": "Deutsch", "fr": "French", "hi": "Hindi",
    "id": "Indonesian", "it": "Italian", "ja": "Japanese", "ko": "Korean", "pt": "Portuguese", "es": "Spanish",
}  # fmt: skip
_SIB200_NAMES = {
    "en": "eng_Latn", "ar": "arb_Arab", "bn": "ben_Beng", "de": "deu_Latn", "es": "spa_Latn", "fr": "fra_Latn",
    "he": "heb_Hebr", "hi": "hin_Deva", "id": "ind_Latn", "it": "ita_Latn", "ja": "jpn_Jpan", "jv": "jav_Latn",
    "ko": "kor_Hang", "nl": "nld_Latn", "pl": "pol_Latn", "ru": "rus_Cyrl", "sw": "swh_Latn", "th": "tha_Thai",
    "ur": "urd_Arab", "vi": "vie_Latn", "yo": "yor_Latn", "zh": "zho_Hans",
}  # fmt: skip
#: Rows of the JailbreakBench translations that the authors left out.
_JAILBREAKBENCH_SHORT = {"nl": 98, "pl": 99}
#: "Why?" and "What happened as a result?", written for this loader; XCOPA itself gives only `cause` and `effect`.
_XCOPA_QUESTIONS = {
    "et": {"cause": "Miks?", "effect": "Mis selle tagajärjel juhtus?"},
    "ht": {"cause": "Poukisa?", "effect": "Kisa ki te rive apre sa?"},
    "id": {"cause": "Mengapa?", "effect": "Apa akibatnya?"},
    "it": {"cause": "Perché?", "effect": "Che cosa è successo di conseguenza?"},
    "qu": {"cause": "Imarayku?", "effect": "Chaymanta imataq pasarqan?"},
    "sw": {"cause": "Kwa nini?", "effect": "Matokeo yake yalikuwa nini?"},
    "ta": {"cause": "ஏன்?", "effect": "அதன் விளைவு என்ன?"},
    "th": {"cause": "เพราะอะไร", "effect": "แล้วผลเป็นอย่างไร"},
    "tr": {"cause": "Neden?", "effect": "Bunun sonucunda ne oldu?"},
    "vi": {"cause": "Vì sao?", "effect": "Kết quả là gì?"},
    "zh": {"cause": "为什么？", "effect": "结果怎么样？"},
}


def load_public(
    name: str, folder: str | Path, *, part: str | None = None, languages: Sequence[str] | None = None
) -> PromptSet:
    """The prompts of a public set; seed ids start with the part's name.

    Args:
        name: a key of `PUBLIC_SETS`.
        folder: the root that holds a folder of this name.
        part: one part; all parts if None.
        languages: the languages to read; all of each part if None. Rows that lack one of them are left out. With `part`
            None a language that only some parts have is read from those.

    Raises:
        DataError: unknown set, part or language, a missing file, or a file with too few or too many rows.
    """
    if name not in PUBLIC_SETS:
        raise DataError(f"unknown public set {name!r}; use one of {', '.join(PUBLIC_SETS)}")
    public = PUBLIC_SETS[name]
    if part is not None and part not in public.parts:
        raise DataError(f"{name} has no part {part!r}; use one of {', '.join(public.parts)}")
    root = Path(folder) / name
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give the folder that holds {name}/ as downloaded ({public.citation})")
    parts = {part: public.parts[part]} if part is not None else public.parts
    available = tuple(tag for tag in public.languages if any(tag in found.languages for found in parts.values()))
    asked = available if languages is None else check_languages(tuple(languages))
    missing = [tag for tag in asked if tag not in available]
    if missing:
        raise DataError(f"{name} has no prompts in {', '.join(missing)}; it has {', '.join(available)}")
    return PromptSet(
        prompt
        for part_name, described in parts.items()
        for prompt in _prompts(
            public, root, part_name, described, tuple(tag for tag in asked if tag in described.languages)
        )
    )


def xcopa_items(folder: str | Path, part: str, language: str) -> list[XcopaItem]:
    """The items of XCOPA in one language, in the files' order.

    Cause or effect is read from the Estonian file for all languages: the flag is wrong in half of the Thai rows and in
    some Turkish, Swahili, Indonesian and Italian ones, while the other six files agree. The labels agree in all.

    Args:
        folder: the root that holds `xcopa`.
        part: val or test.
        language: one of the set's languages.

    Raises:
        DataError: a file is missing, or has too few or too many rows.
    """
    return _xcopa_items(Path(folder) / "xcopa", part, PUBLIC_SETS["xcopa"].parts[part].rows, language)


def _prompts(public: PublicSet, root: Path, part_name: str, part: Part, languages: tuple[str, ...]) -> list[Prompt]:
    """The prompts of one part, language after language, without the entries that lack one of the languages."""
    entries = _READERS[public.name](root, part_name, part, languages)
    complete = [entry for entry in entries if all(entry.texts.get(tag, "").strip() for tag in languages)]
    return [
        Prompt(
            seed_id=f"{part_name}:{entry.seed_id}",
            language=tag,
            kind=part.kind,
            text=entry.texts[tag],
            category=entry.category,
            source=public.name,
            licence=public.licence,
            split=part.split,
        )
        for tag in languages
        for entry in complete
    ]


def _polyrefuse(root: Path, part_name: str, part: Part, languages: tuple[str, ...]) -> list[_Entry]:
    return _merged_csv(root / "merged" / f"{part_name}.csv", part, languages)


def _mlc(root: Path, part_name: str, part: Part, languages: tuple[str, ...]) -> list[_Entry]:
    return _merged_csv(root / f"{part_name}.csv", part, languages)


def _xsafety(root: Path, _: str, part: Part, languages: tuple[str, ...]) -> list[_Entry]:
    """Rows are numbered within a category, so the category is part of the id."""
    entries = _merged_csv(root / "merged_xsafety.csv", part, languages)
    return [_Entry(f"{entry.category}:{entry.seed_id}", entry.category, entry.texts) for entry in entries]


def _merged_csv(path: Path, part: Part, languages: tuple[str, ...]) -> list[_Entry]:
    """A file with `row`, one column per language and perhaps `category`."""
    rows = [row.cells for row in read_csv(_present(path)).rows]
    _count(path, rows, part.rows)
    return [_Entry(row["row"], row.get("category", ""), {tag: row[tag] for tag in languages}) for row in rows]


def _jailbreakbench(root: Path, _: str, part: Part, languages: tuple[str, ...]) -> list[_Entry]:
    """Translations join on the English instruction: Dutch and Polish lack rows, so positions do not match."""
    path = root / "jailbreakbench.csv"
    rows = [row.cells for row in read_csv(_present(path)).rows]
    _count(path, rows, part.rows)
    translated: dict[str, dict[str, str]] = {}
    for tag in languages:
        path = root / "multilingual" / f"jailbreakbench_test_translated_{tag}.json"
        items = _json_list(path)
        _count(path, items, _JAILBREAKBENCH_SHORT.get(tag, part.rows))
        translated[tag] = {item["instruction"]: item["instruction_translated"] for item in items}
    return [
        _Entry(str(place), row["Category"], {tag: texts.get(row["Goal"], "") for tag, texts in translated.items()})
        for place, row in enumerate(rows)
    ]


def _vicuna(root: Path, _: str, part: Part, languages: tuple[str, ...]) -> list[_Entry]:
    by_language = {}
    for tag in languages:
        rows = _json_rows(root / f"questions_{_VICUNA_NAMES[tag]}.jsonl", part.rows)
        by_language[tag] = {str(row["question_id"]): (row["category"], row["text"]) for row in rows}
    return _joined(by_language)


def _xcopa(root: Path, part_name: str, part: Part, languages: tuple[str, ...]) -> list[_Entry]:
    """Premise, question and both choices as one prompt."""
    by_language: dict[str, dict[str, tuple[str, str]]] = {}
    for tag in languages:
        by_language[tag] = {}
        for item in _xcopa_items(root, part_name, part.rows, tag):
            first, second = item.choices
            text = f"{item.premise} {_XCOPA_QUESTIONS[tag][item.question]}\n1. {first}\n2. {second}"
            by_language[tag][item.item_id] = (item.question, text)
    return _joined(by_language)


def _xcopa_items(root: Path, part_name: str, rows: int, language: str) -> list[XcopaItem]:
    flags = {row["idx"]: row["question"] for row in _json_rows(root / "et" / f"{part_name}.et.jsonl", rows)}
    return [
        XcopaItem(
            item_id=str(row["idx"]),
            premise=row["premise"],
            question=flags[row["idx"]],
            choices=(row["choice1"], row["choice2"]),
            label=row["label"],
        )
        for row in _json_rows(root / language / f"{part_name}.{language}.jsonl", rows)
    ]


def _sib200(root: Path, part_name: str, part: Part, languages: tuple[str, ...]) -> list[_Entry]:
    by_language = {}
    for tag in languages:
        path = _present(root / _SIB200_NAMES[tag] / f"{part_name}.tsv")
        rows = [row.cells for row in read_csv(path, delimiter="\t", quoted=False).rows]
        _count(path, rows, part.rows)
        by_language[tag] = {row["index_id"]: (row["category"], row["text"]) for row in rows}
    return _joined(by_language)


def _mpo(root: Path, _: str, part: Part, languages: tuple[str, ...]) -> list[_Entry]:
    """Pairs of an English question and a translation whose language the file does not name."""
    path = root / "gemma_mpo_data.json"
    items = _json_list(path)
    _count(path, items, part.rows)
    texts: dict[str, dict[str, str]] = {}
    for item in items:
        english, translation = (item[f"{side}_conversations"][0]["value"] for side in ("source", "target"))
        found = texts.setdefault(english, {"en": english})
        # Some "translations" are the English text again.
        if translation != english:
            found[_mpo_language(translation)] = translation
    return [
        _Entry(str(place), "", {tag: text for tag, text in found.items() if tag in languages})
        for place, found in enumerate(texts.values())
    ]


def _mpo_language(text: str) -> str:
    """The language among MPO's six targets; each has a script of its own, Swahili the Latin one."""
    scripts = {unicodedata.name(character, "").split(" ")[0] for character in text if character.isalpha()}
    by_script = {"HANGUL": "ko", "HIRAGANA": "ja", "KATAKANA": "ja", "BENGALI": "bn", "ARABIC": "ar", "CJK": "zh"}
    return next((tag for script, tag in by_script.items() if script in scripts), "sw")


def _joined(by_language: Mapping[str, Mapping[str, tuple[str, str]]]) -> list[_Entry]:
    """Entries from category and text by id, per language; the first language gives order and category."""
    first = next(iter(by_language.values()), {})
    return [
        _Entry(seed_id, category, {tag: rows[seed_id][1] for tag, rows in by_language.items() if seed_id in rows})
        for seed_id, (category, _) in first.items()
    ]


def _json_rows(path: Path, expected: int) -> list[dict[str, Any]]:
    rows = [row for _, row in read_json_lines(_present(path))]
    _count(path, rows, expected)
    return rows


def _json_list(path: Path) -> list[dict[str, Any]]:
    try:
        return list(json.loads(_present(path).read_text(encoding="utf-8")))
    except json.JSONDecodeError:
        raise DataError(f"{path}: broken JSON; download the file again") from None


def _present(path: Path) -> Path:
    if not path.is_file():
        raise DataError(f"{path}: no such file; download the set again")
    return path


def _count(path: Path, rows: Sequence[object], expected: int) -> None:
    if len(rows) != expected:
        raise DataError(f"{path}: {len(rows)} rows instead of {expected}; download the file again")


_READERS: dict[str, _Reader] = {
    "polyrefuse": _polyrefuse,
    "mlc": _mlc,
    "xsafety": _xsafety,
    "jailbreakbench": _jailbreakbench,
    "vicuna80-multilingual": _vicuna,
    "xcopa": _xcopa,
    "sib200": _sib200,
    "mpo-preference": _mpo,
}

PUBLIC_SETS: dict[str, PublicSet] = {
    public.name: public
    for public in (
        PublicSet(
            "polyrefuse",
            {
                "harmful_train": Part("harmful", 260, _POLYREFUSE, "fit"),
                "harmful_val": Part("harmful", 39, _POLYREFUSE, "select"),
                "harmful_test": Part("harmful", 572, _POLYREFUSE, "report"),
                "harmless_train": Part("harmless", 200, _POLYREFUSE_HARMLESS, "fit"),
                "harmless_val": Part("harmless", 200, _POLYREFUSE_HARMLESS, "select"),
                "harmless_test": Part("harmless", 500, _POLYREFUSE_HARMLESS, "report"),
            },
            _POLYREFUSE,
            "Apache-2.0; the harmless parts derive from Stanford Alpaca (CC-BY-NC-4.0)",
            "Wang et al. Refusal Direction is Universal Across Safety-Aligned Languages. NeurIPS 2025",
            non_commercial=True,
        ),
        PublicSet(
            "mlc",
            {"harmful_train": Part("harmful", 157, _MLC)},
            _MLC,
            "Apache-2.0; derives from PKU-SafeRLHF (CC-BY-NC-4.0)",
            "Align Once, Benefit Multilingually (MLC). github.com/Yuyan-B/MLC; Ji et al. arXiv:2406.15513",
            non_commercial=True,
        ),
        PublicSet(
            "xsafety",
            {"all": Part("harmful", 2800, _XSAFETY)},
            _XSAFETY,
            "Apache-2.0",
            "Wang et al. All Languages Matter: On the Multilingual Safety of LLMs. arXiv:2310.00905",
            non_commercial=False,
        ),
        PublicSet(
            "jailbreakbench",
            {"harmful": Part("harmful", 100, _JAILBREAKBENCH)},
            _JAILBREAKBENCH,
            "MIT; translations Apache-2.0",
            "Chao et al. JailbreakBench. arXiv:2404.01318; translations: Wang et al. NeurIPS 2025",
            non_commercial=False,
        ),
        PublicSet(
            "vicuna80-multilingual",
            {"questions": Part("harmless", 80, tuple(_VICUNA_NAMES))},
            tuple(_VICUNA_NAMES),
            "Apache-2.0",
            "MultilingualSIFT (FreedomIntelligence, 2023); questions from Vicuna-bench (LMSYS)",
            non_commercial=False,
        ),
        PublicSet(
            "xcopa",
            {"val": Part("harmless", 100, _XCOPA), "test": Part("harmless", 500, _XCOPA)},
            _XCOPA,
            "CC-BY-4.0",
            "Ponti et al. XCOPA: A Multilingual Dataset for Causal Commonsense Reasoning. EMNLP 2020",
            non_commercial=False,
        ),
        PublicSet(
            "sib200",
            {"dev": Part("harmless", 99, tuple(_SIB200_NAMES)), "test": Part("harmless", 204, tuple(_SIB200_NAMES))},
            tuple(_SIB200_NAMES),
            "Apache-2.0; sentences from FLORES-200 (CC-BY-SA-4.0)",
            "Adelani et al. SIB-200. arXiv:2309.07445; NLLB Team 2022",
            non_commercial=False,
        ),
        PublicSet(
            "mpo-preference",
            {"train": Part("harmful", 600, _MPO)},
            _MPO,
            "Apache-2.0; some prompts match PKU-SafeRLHF (CC-BY-NC-4.0)",
            "Zhao et al. MPO: Multilingual Safety Alignment via Reward Gap Optimization. ACL 2025. arXiv:2505.16869",
            non_commercial=True,
        ),
    )
}
