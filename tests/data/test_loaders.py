"""Prompt files: what is written is read back in every format and layout, and every fault has its one line."""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lingualign.data.loaders import load_prompts, mix, parse_source
from lingualign.data.schema import KINDS, SPLITS, Prompt, PromptSet
from lingualign.data.splits import split_by_seed
from lingualign.errors import ConfigError, DataError, UserError

Rows = Sequence[dict[str, Any]]


def write_csv(path: Path, rows: Rows) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_jsonl(path: Path, rows: Rows) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_parquet(path: Path, rows: Rows) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)


WRITERS: dict[str, Callable[[Path, Rows], None]] = {
    "csv": write_csv,
    "jsonl": write_jsonl,
    "parquet": write_parquet,
}
# NUL cannot stand in a CSV file and surrogates cannot stand in UTF-8.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40).filter(
    str.strip
)


@st.composite
def prompt_sets(draw: st.DrawFn) -> PromptSet:
    """Parallel prompts of all kinds in one to three languages, with texts that are unique within a language."""
    languages = draw(st.lists(st.sampled_from(["en", "th", "id", "ar"]), min_size=1, max_size=3, unique=True))
    count = draw(st.integers(1, 4))
    columns = {tag: draw(st.lists(texts, min_size=count, max_size=count, unique_by=str.strip)) for tag in languages}
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=count, max_size=count))
    splits = draw(st.lists(st.sampled_from([None, *SPLITS]), min_size=count, max_size=count))
    return PromptSet(
        Prompt(f"s{row}", tag, kinds[row], columns[tag][row], "topic, one", "prompts", "CC0-1.0", splits[row])
        for tag in languages
        for row in range(count)
    )


def shared(prompt: Prompt) -> dict[str, Any]:
    return {
        "seed_id": prompt.seed_id,
        "kind": prompt.kind,
        "category": prompt.category,
        "licence": prompt.licence,
        "split": prompt.split or "",
    }


@pytest.mark.parametrize("extension", WRITERS)
@settings(max_examples=25, deadline=None)
@given(prompts=prompt_sets())
def test_wide_round_trip(extension: str, prompts: PromptSet) -> None:
    rows = [
        shared(first) | {prompt.language: prompt.text for prompt in prompts if prompt.seed_id == first.seed_id}
        for first in prompts.where(languages=prompts.languages[:1])
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"prompts.{extension}"
        WRITERS[extension](path, rows)
        assert list(load_prompts(path)) == list(prompts)
        backwards = prompts.languages[::-1]
        assert load_prompts(path, languages=backwards).languages == backwards


@pytest.mark.parametrize("extension", WRITERS)
@settings(max_examples=25, deadline=None)
@given(prompts=prompt_sets())
def test_long_round_trip(extension: str, prompts: PromptSet) -> None:
    rows = [shared(prompt) | {"language": prompt.language, "text": prompt.text} for prompt in prompts]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"prompts.{extension}"
        WRITERS[extension](path, rows)
        assert list(load_prompts(path)) == list(prompts)


def test_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("\ufeffen,th\r\nhello,สวัสดี\r\n\r\nbye,ลาก่อน\r\n".encode())
    assert [prompt.text for prompt in load_prompts(path, kind="harmless")] == ["hello", "bye", "สวัสดี", "ลาก่อน"]
    path = tmp_path / "a.jsonl"
    path.write_bytes('\ufeff{"language": "en", "text": "one\u2028line"}\r\n\r\n'.encode())
    assert [prompt.text for prompt in load_prompts(path, kind="harmless")] == ["one\u2028line"]


def test_own_traffic_in_one_language(tmp_path: Path) -> None:
    path = tmp_path / "traffic.jsonl"
    write_jsonl(path, [{"text": "hujambo"}, {"text": "habari"}])
    prompts = load_prompts(path, languages=["sw"], kind="harmless")
    assert [(prompt.language, prompt.kind, prompt.source) for prompt in prompts] == [("sw", "harmless", "traffic")] * 2
    write_csv(tmp_path / "traffic.csv", [{"sw": "hujambo"}])
    assert len(parse_source(f"{tmp_path}/traffic.csv:harmless")) == 1


def test_id_is_indonesian_or_the_id_of_the_row(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write_csv(path, [{"id": "q7", "en": "a b"}])
    assert [prompt.key for prompt in load_prompts(path, kind="harmful")] == [("harmful", "q7", "en")]
    write_csv(path, [{"id": "apa kabar", "en": "a b"}])
    assert load_prompts(path, kind="harmful").languages == ("id", "en")
    write_csv(path, [{"row": 7, "id": "halo", "en": "a b"}])
    assert {prompt.key for prompt in load_prompts(path, kind="harmful")} == {
        ("harmful", "7", "id"),
        ("harmful", "7", "en"),
    }


def test_kind_names(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write_csv(
        path, [{"en": "a", "kind": "Harmful"}, {"en": "b", "kind": "lookalike"}, {"en": "c", "kind": "look-alike "}]
    )
    assert [prompt.kind for prompt in load_prompts(path)] == ["harmful", "look-alike", "look-alike"]


def test_rows_of_other_languages_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write_csv(path, [{"seed_id": 1, "en": "a", "th": ""}, {"seed_id": 2, "en": "b", "th": "ข"}])
    assert len(load_prompts(path, languages=["en"], kind="harmful")) == 2


FAULTS = {
    "unknown extension": ("a.txt", "en\nx\n", {}, r"cannot read \.txt; use \.csv, \.jsonl, \.parquet"),
    "no rows": ("a.csv", "en,th\n", {}, r"no rows; add prompts"),
    "no language column": ("a.csv", "prompt,goal\nx,y\n", {}, r"no language column among prompt, goal; name columns"),
    "asked language missing": (
        "a.csv",
        "en,th\nx,y\n",
        {"languages": ["en", "ko"]},
        r"no prompts in ko, only in en, th",
    ),
    "asked language unknown": ("a.csv", "en\nx\n", {"languages": ["xx"]}, r"unknown language 'xx'; known tags: en"),
    "language unknown": (
        "a.csv",
        "language,text\nen,x\nxx,y\n",
        {},
        r"row 3: unknown language tag 'xx'; use one of en",
    ),
    "empty prompt": ("a.csv", 'en,note\nx,\n" ",n\n', {}, r"row 3: empty prompt; fill it in or remove"),
    "empty prompt, long": ("a.csv", "language,text\nen,\n", {}, r"row 2: empty prompt"),
    "unpaired": ("a.csv", "en,th,ko\nx,y,z\nu,,w\n", {}, r"row 3: not paired, no text in th; fill it in or remove"),
    "unpaired, long": (
        "a.csv",
        "seed_id,language,text\n1,en,x\n1,th,y\n2,en,z\n",
        {},
        r"1 harmful seeds are not paired, they have no th row \(first: 2\)",
    ),
    "duplicate seed_id": (
        "a.csv",
        "seed_id,en\n1,x\n1,y\n",
        {},
        r"rows 2 and 3: both have seed_id '1'; give each its own",
    ),
    "duplicate text": ("a.csv", "en,th\nx,y\nz,y \n", {}, r"rows 2 and 3: the same th text twice; remove one row"),
    "no seed_id, long": (
        "a.csv",
        "language,text\nen,x\nth,y\n",
        {},
        r"2 languages without a `seed_id` column; add one",
    ),
    "text without language": ("a.csv", "text\nx\n", {}, r"`text` column without `language`; add a"),
    "unknown kind": ("a.csv", "en\nx\n", {"kind": "evil"}, r"unknown kind 'evil'; use harmful, look-alike, harmless"),
    "unknown kind in a row": ("a.csv", "en,kind\nx,evil\n", {"kind": None}, r"row 2: unknown kind 'evil'; use harmful"),
    "no kind": ("a.csv", "en\nx\n", {"kind": None}, r"no `kind` column; add one or say which kind"),
    "two kinds": ("a.csv", "en,kind\nx,harmful\n", {}, r"has a `kind` column already; leave out the kind 'harmful'"),
    "unknown split": ("a.csv", "en,split\nx,train\n", {}, r"row 2: unknown split 'train'; use fit, select, report"),
    "column twice": ("a.csv", "en,en\nx,y\n", {}, r"column 'en' occurs twice; rename"),
    "cells": ("a.csv", "en,th\nx,y,z\n", {}, r"row 2: 3 cells for 2 columns; quote cells"),
    "broken CSV": ("a.csv", 'en,th\n"x,y\n', {}, r"line \d: broken CSV .*check its quotation marks"),
    "invalid JSON": (
        "a.jsonl",
        '{"en": "x"}\n\n{"en": \n',
        {},
        r"line 3: invalid JSON \(.*\); write one object a line",
    ),
    "no object": ("a.jsonl", '["x"]\n', {}, r"line 1: not a JSON object"),
    "no text": ("a.jsonl", '{"en": "x"}\n{"en": ["x"]}\n', {}, r"row 2: column 'en' is not text; give a string"),
    "missing cell": ("a.jsonl", '{"en": "x", "th": "y"}\n{"en": "z"}\n', {}, r"row 2: not paired, no text in th"),
    "half a character": ("a.jsonl", '{"en": "\\ud83d"}\n', {}, r"row 1: column 'en' holds half a character"),
    "no Parquet": ("a.parquet", "PAR1", {}, r"not a readable Parquet file; write it again"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_has_one_line_that_names_the_fix(tmp_path: Path, fault: str) -> None:
    name, content, arguments, message = FAULTS[fault]
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        load_prompts(tmp_path / name, **({"kind": "harmful"} | arguments))
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv: no such file; check the path"):
        load_prompts(tmp_path / "none.csv", kind="harmful")


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_not_utf8(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes("en\nüber\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"not UTF-8 at byte 3; save the file as UTF-8"):
        load_prompts(tmp_path / name, kind="harmful")


def test_damaged_parquet_never_ends_in_a_traceback(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_parquet(path, [{"en": f"text {number}"} for number in range(20)])
    whole = path.read_bytes()
    refused = 0
    for place in range(4, len(whole), 23):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            load_prompts(path, kind="harmful")
        except DataError:
            refused += 1
    assert refused > 10


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"pyarrow is not installed; run `pip install 'lingualign\[eval\]'`"):
        load_prompts(tmp_path / "a.parquet", kind="harmful")


def test_parse_source(tmp_path: Path) -> None:
    assert parse_source("builtin", ["sw"]).languages == ("sw",)
    write_csv(tmp_path / "a.csv", [{"en": "x", "th": "y"}])
    prompts = parse_source(f"{tmp_path}/a.csv:look-alike", ["th"])
    assert [prompt.key for prompt in prompts] == [("look-alike", "1", "th")]


@pytest.mark.parametrize("spec", ["", "builtins", "a.txt:harmful", "unknown:/tmp", "a.csv/b"])
def test_unknown_source(spec: str) -> None:
    with pytest.raises(DataError, match=r"unknown prompt source .*; give builtin, a \.csv, .* polyrefuse"):
        parse_source(spec)


def numbered(source: str, *, seeds: int = 3, language: str = "en") -> PromptSet:
    return PromptSet(Prompt(str(seed), language, "harmful", f"{source} {seed}", source=source) for seed in range(seeds))


def test_mix_prefixes_only_what_clashes() -> None:
    other = PromptSet([Prompt("x", "en", "harmful", "other", source="c")])
    mixed = mix([numbered("a"), numbered("b", language="th"), other])
    assert mixed.seeds("harmful") == ("a:0", "a:1", "a:2", "b:0", "b:1", "b:2", "x")
    assert list(mix([numbered("a"), other])) == [*numbered("a"), *other]
    assert mix([numbered("a", seeds=1), numbered("a", seeds=1)]).seeds("harmful") == ("a:0", "a-2:0")
    assert len(mix([])) == 0


def test_split_by_seed_joins_languages_and_twins_and_is_stable() -> None:
    def prompts(seeds: int) -> PromptSet:
        return PromptSet(
            Prompt(str(seed), language, kind, "text")
            for kind in ("harmful", "look-alike")
            for language in ("en", "th")
            for seed in range(seeds)
        )

    divided = split_by_seed(prompts(1000))
    by_seed: dict[str, set[str | None]] = {}
    for prompt in divided:
        by_seed.setdefault(prompt.seed_id, set()).add(prompt.split)
    assert all(len(found) == 1 for found in by_seed.values())
    shares = [len(divided.where(splits=[split])) / len(divided) for split in SPLITS]
    assert shares == pytest.approx([0.5, 0.2, 0.3], abs=0.05)
    # Fewer rows, the same splits; another seed, other splits.
    assert {prompt.key: prompt.split for prompt in split_by_seed(prompts(100))}.items() <= {
        prompt.key: prompt.split for prompt in divided
    }.items()
    assert list(split_by_seed(prompts(1000), seed=1)) != list(divided)


def test_split_by_seed_keeps_what_is_split() -> None:
    ready = PromptSet(Prompt(str(place), "en", "harmful", "text", split=split) for place, split in enumerate(SPLITS))
    assert list(split_by_seed(ready)) == list(ready)


def test_split_by_seed_faults() -> None:
    with pytest.raises(DataError, match=r"1 harmful seeds leave the \w+ split empty; add prompts"):
        split_by_seed(numbered("a", seeds=1))
    with pytest.raises(ConfigError, match=r"must be non-negative and sum to 1"):
        split_by_seed(numbered("a"), fractions=(0.5, 0.5, 0.5))
    assert {prompt.split for prompt in split_by_seed(numbered("a"), fractions=(0, 0, 1))} == {"report"}
