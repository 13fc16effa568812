"""Readers of sets whose languages are joined by something other than an id: PolyRefuse, JailbreakBench, MPO."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

from lingualign.data.benchmarks.files import check_count, column, find, read_rows
from lingualign.data.benchmarks.readers import joined, wide
from lingualign.data.benchmarks.spec import Entry, Part
from lingualign.errors import DataError

_polyrefuse_merged = wide("merged/{part}.csv", identifier="row", category="category")


def read_polyrefuse(root: Path, name: str, part: Part, languages: tuple[str, ...]) -> list[Entry]:
    """One merged table per part where there is a `merged` folder, else the repository's JSON lists, row by row."""
    if (root / "merged").is_dir():
        return _polyrefuse_merged(root, name, part, languages)
    by_language: dict[str, dict[str, tuple[str, str]]] = {}
    for tag in languages:
        file = f"{name}_translated_{tag}.json"
        english = (f"dataset/splits/{name}.json", f"dataset/splits/{name}_{part.rows}_sampled.json")
        path = find(root, f"PolyRefuse/{file}", f"dataset/splits_multi/{file}", *(english if tag == "en" else ()))
        rows = read_rows(path)
        # Some files keep the English text and add the translation, others hold the translation alone.
        text = column(path, rows, "instruction_translated", "instruction")
        check_count(path, rows, part.expected(tag))
        by_language[tag] = {str(place): (row.get("category", ""), row[text]) for place, row in enumerate(rows)}
    return joined(by_language)


def read_jailbreakbench(root: Path, name: str, part: Part, languages: tuple[str, ...]) -> list[Entry]:
    """English behaviours, and translations of the harmful ones joined on the English instruction.

    Dutch and Polish lack rows, so positions do not match.
    """
    path = find(root, f"data/{name}-behaviors.csv", f"{name}-behaviors.csv", *_harmful_copy(name))
    rows = read_rows(path)
    goal, category = column(path, rows, "Goal"), column(path, rows, "Category")
    check_count(path, rows, part.rows)
    translated: dict[str, dict[str, str]] = {"en": {row[goal]: row[goal] for row in rows}}
    for tag in languages:
        if tag == "en":
            continue
        file = f"jailbreakbench_test_translated_{tag}.json"
        path = find(root, f"multilingual/{file}", f"dataset/splits_multi/{file}")
        items = read_rows(path)
        source, target = column(path, items, "instruction"), column(path, items, "instruction_translated")
        check_count(path, items, part.expected(tag))
        translated[tag] = {item[source]: item[target] for item in items}
    return [
        Entry(str(place), row[category], {tag: translated[tag].get(row[goal], "") for tag in languages})
        for place, row in enumerate(rows)
    ]


def _harmful_copy(name: str) -> tuple[str, ...]:
    return ("jailbreakbench.csv",) if name == "harmful" else ()


def read_mpo(root: Path, _: str, part: Part, languages: tuple[str, ...]) -> list[Entry]:
    """Pairs of an English question and a translation whose language the file does not name."""
    path = find(root, "gemma_mpo_data.json")
    try:
        items = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        raise DataError(f"{path}: broken JSON; download the file again") from None
    check_count(path, items, part.rows)
    texts: dict[str, dict[str, str]] = {}
    for item in items:
        try:
            english, translation = (item[f"{side}_conversations"][0]["value"] for side in ("source", "target"))
        except (KeyError, IndexError, TypeError):
            raise DataError(f"{path}: not in MPO's training format; download the file again") from None
        found = texts.setdefault(english, {"en": english})
        # Some "translations" are the English text again.
        if translation != english:
            found[_mpo_language(translation)] = translation
    return [
        Entry(str(place), "", {tag: text for tag, text in found.items() if tag in languages})
        for place, found in enumerate(texts.values())
    ]


def _mpo_language(text: str) -> str:
    """The language among MPO's six targets; each has a script of its own, Swahili the Latin one."""
    scripts = {unicodedata.name(character, "").split(" ")[0] for character in text if character.isalpha()}
    by_script = {"HANGUL": "ko", "HIRAGANA": "ja", "KATAKANA": "ja", "BENGALI": "bn", "ARABIC": "ar", "CJK": "zh"}
    return next((tag for script, tag in by_script.items() if script in scripts), "sw")
