"""Benchmarks: the registry, and the real files of those in the shared folder, where it is there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lingualign.data.benchmarks import BENCHMARKS, load_benchmark
from lingualign.data.benchmarks.spec import Entry
from lingualign.data.benchmarks.xsafety import CATEGORIES, read_repository, read_xsafety
from lingualign.data.loaders import parse_source
from lingualign.errors import DataError
from lingualign.languages import LANGUAGES

from .conftest import ROOT, downloaded

#: What the shared folder holds; of JailbreakBench the harmful half.
SHARED = (
    "xsafety", "polyrefuse", "mlc", "mpo-preference", "strongreject", "advbench", "jailbreakbench", "harmbench",
    "do-not-answer", "overrefusal-en", "vicuna80-multilingual", "xcopa", "sib200",
)  # fmt: skip
PARTS = [(name, part) for name in SHARED for part in BENCHMARKS[name].parts if part != "benign"]
#: Seeds in all languages, where fewer than rows: a blank Russian cell; Dutch and Polish gaps; untranslated rows.
COMPLETE = {("xsafety", "all"): 2799, ("jailbreakbench", "harmful"): 97, ("mpo-preference", "train"): 80}


def test_registry_is_consistent() -> None:
    for name, benchmark in BENCHMARKS.items():
        assert name == benchmark.name
        for text in (benchmark.title, benchmark.layout, benchmark.licence, benchmark.citation):
            assert text
            assert text == text.strip()
        assert benchmark.homepage.startswith("https://")
        assert benchmark.non_commercial == ("NC" in benchmark.licence)
        assert set(benchmark.languages) <= set(LANGUAGES)
        assert benchmark.hub is None or benchmark.hub.repository.count("/") == 1
        for part in benchmark.parts.values():
            assert set(part.rows_by_language) <= set(part.languages)


def test_what_has_no_verified_size_says_so() -> None:
    for name, benchmark in BENCHMARKS.items():
        unknown = any(part.expected(tag) is None for part in benchmark.parts.values() for tag in part.languages)
        assert not unknown or "rows" in benchmark.unverified or "files" in benchmark.unverified, name


def test_rows_of_a_table() -> None:
    rows = {name: BENCHMARKS[name].rows for name in ("multijail", "or-bench", "xthreatbench", "aya-redteaming")}
    assert rows == {"multijail": "315", "or-bench": "1,974+", "xthreatbench": "?", "aya-redteaming": "5,404"}


@downloaded
@pytest.mark.parametrize(("name", "part"), PARTS)
def test_every_part_loads_parallel(name: str, part: str) -> None:
    benchmark = BENCHMARKS[name]
    described = benchmark.parts[part]
    prompts = load_benchmark(name, ROOT, part=part)
    seeds = prompts.seeds(described.kind)
    assert len(seeds) == COMPLETE.get((name, part), described.rows)
    assert prompts.languages == described.languages
    assert len(prompts) == len(seeds) * len(described.languages)
    assert {(prompt.source, prompt.licence, prompt.split) for prompt in prompts} == {
        (name, benchmark.licence, described.split)
    }


@downloaded
def test_xsafety_repository_says_what_the_merged_file_says() -> None:
    part = BENCHMARKS["xsafety"].parts["all"]
    raw = read_repository(ROOT / "xsafety", part, part.languages)
    merged = read_xsafety(ROOT / "xsafety", "all", part, part.languages)
    assert len(raw) == 14 * 200
    assert tuple(dict.fromkeys(entry.category for entry in raw)) == CATEGORIES

    def by_key(entries: list[Entry]) -> dict[tuple[str, str], str]:
        # The merged file lacks a comma at the end of Goal_Hijacking:26.
        return {
            (entry.seed_id, tag): text.strip().rstrip(",") for entry in entries for tag, text in entry.texts.items()
        }

    first, second = by_key(raw), by_key(merged)
    assert first.keys() == second.keys()
    # Ids only, so that a failure prints no prompt.
    assert [key for key, text in first.items() if text != second[key]] == []


@downloaded
def test_gaps_of_languages_not_asked_for_do_not_cost_rows() -> None:
    assert len(load_benchmark("jailbreakbench", ROOT, part="harmful", languages=["en", "th"])) == 200
    assert len(load_benchmark("jailbreakbench", ROOT, part="harmful", languages=["en", "nl"])) == 196
    assert len(load_benchmark("xsafety", ROOT, languages=["en", "zh"])) == 5600


@downloaded
def test_jailbreakbench_joins_on_the_instruction() -> None:
    items = json.loads(
        (ROOT / "jailbreakbench/multilingual/jailbreakbench_test_translated_nl.json").read_text(encoding="utf-8")
    )
    expected = {item["instruction"]: item["instruction_translated"] for item in items}
    pairs = load_benchmark("jailbreakbench", ROOT, part="harmful", languages=["en", "nl"]).paired("harmful", "en", "nl")
    assert {english.text: dutch.text for english, dutch in pairs} == expected


@downloaded
def test_categories_are_kept_where_the_file_has_them() -> None:
    assert {prompt.category for prompt in load_benchmark("polyrefuse", ROOT, part="harmful_train")} == {""}
    assert len({prompt.category for prompt in load_benchmark("polyrefuse", ROOT, part="harmful_test")} - {""}) > 5


@downloaded
def test_a_language_of_some_parts_only() -> None:
    chinese = load_benchmark("polyrefuse", ROOT, languages=["zh"])
    assert {prompt.kind for prompt in chinese} == {"harmful"}
    with pytest.raises(DataError, match=r"polyrefuse has no prompts in zh; it has en, ar"):
        load_benchmark("polyrefuse", ROOT, part="harmless_train", languages=["en", "zh"])


@downloaded
def test_mpo_languages_agree_with_their_script() -> None:
    import py3langid

    for language in BENCHMARKS["mpo-preference"].languages:
        texts = [prompt.text for prompt in load_benchmark("mpo-preference", ROOT, languages=[language])]
        right = sum(py3langid.classify(text)[0] == language for text in texts)
        assert right >= 0.95 * len(texts), language


@downloaded
def test_source_text_names_a_part() -> None:
    prompts = parse_source(f"mlc:{ROOT}", ["en", "sw"])
    assert len(prompts) == 2 * 157
    assert len(parse_source(f"polyrefuse/harmful_val:{ROOT}", ["th"])) == 39


@downloaded
def test_a_part_that_a_copy_lacks_is_named() -> None:
    with pytest.raises(DataError, match=r"benign-behaviors\.csv: no such file.* \(for jailbreakbench/benign; a part"):
        load_benchmark("jailbreakbench", ROOT, languages=["en"])


@downloaded
def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    whole = (ROOT / "mlc" / "harmful_train.csv").read_text(encoding="utf-8")
    (tmp_path / "mlc").mkdir()
    (tmp_path / "mlc" / "harmful_train.csv").write_text(whole[: whole.rindex("\n156,") + 1], encoding="utf-8")
    with pytest.raises(DataError, match=r"harmful_train\.csv: 156 rows instead of 157; download the file again"):
        load_benchmark("mlc", tmp_path)


def test_faults(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"unknown benchmark 'x'; use one of multijail, xsafety"):
        load_benchmark("x", tmp_path)
    with pytest.raises(DataError, match=r"mlc has no part 'test'; use one of harmful_train"):
        load_benchmark("mlc", tmp_path, part="test")
    with pytest.raises(
        DataError, match=r"mlc: no such folder; give the folder that holds mlc/ as downloaded from https://"
    ):
        load_benchmark("mlc", tmp_path)
    (tmp_path / "mlc").mkdir()
    with pytest.raises(DataError, match=r"harmful_train\.csv: no such file; download the set again"):
        load_benchmark("mlc", tmp_path)
    with pytest.raises(DataError, match=r"mlc has no prompts in th; it has en, zh"):
        load_benchmark("mlc", tmp_path, languages=["th"])
