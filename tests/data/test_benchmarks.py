"""Public sets: each part's rows, languages and joins; runs where the folder with the downloads is there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lingualign.data.benchmarks import BENCHMARKS, load_benchmark
from lingualign.data.loaders import parse_source
from lingualign.errors import DataError
from lingualign.languages import LANGUAGES

ROOT = Path(os.environ.get("LINGUALIGN_SHARED_DATA", Path(__file__).resolve().parents[2].parent / "shared" / "data"))
downloaded = pytest.mark.skipif(not ROOT.is_dir(), reason="set LINGUALIGN_SHARED_DATA to the folder of public sets")
PARTS = [(name, part) for name, public in BENCHMARKS.items() for part in public.parts]
#: Seeds in all languages, where fewer than rows: a blank Russian cell; Dutch and Polish gaps; untranslated rows.
COMPLETE = {("xsafety", "all"): 2799, ("jailbreakbench", "harmful"): 97, ("mpo-preference", "train"): 80}


def test_registry_is_consistent() -> None:
    for name, public in BENCHMARKS.items():
        assert name == public.name
        assert public.licence
        assert public.citation
        assert public.non_commercial == ("NC" in public.licence)
        assert set(public.languages) == {tag for part in public.parts.values() for tag in part.languages}
        assert set(public.languages) <= set(LANGUAGES)


@downloaded
@pytest.mark.parametrize(("name", "part"), PARTS)
def test_every_part_loads_parallel(name: str, part: str) -> None:
    public = BENCHMARKS[name]
    described = public.parts[part]
    prompts = load_benchmark(name, ROOT, part=part)
    seeds = prompts.seeds(described.kind)
    assert len(seeds) == COMPLETE.get((name, part), described.rows)
    assert prompts.languages == described.languages
    assert len(prompts) == len(seeds) * len(described.languages)
    assert {(prompt.source, prompt.licence, prompt.split) for prompt in prompts} == {
        (name, public.licence, described.split)
    }


@downloaded
def test_gaps_of_languages_not_asked_for_do_not_cost_rows() -> None:
    assert len(load_benchmark("jailbreakbench", ROOT, languages=["en", "th"])) == 200
    assert len(load_benchmark("jailbreakbench", ROOT, languages=["en", "nl"])) == 196
    assert len(load_benchmark("xsafety", ROOT, languages=["en", "zh"])) == 5600


@downloaded
def test_jailbreakbench_joins_on_the_instruction() -> None:
    items = json.loads(
        (ROOT / "jailbreakbench/multilingual/jailbreakbench_test_translated_nl.json").read_text(encoding="utf-8")
    )
    expected = {item["instruction"]: item["instruction_translated"] for item in items}
    pairs = load_benchmark("jailbreakbench", ROOT, languages=["en", "nl"]).paired("harmful", "en", "nl")
    assert {english.text: dutch.text for english, dutch in pairs} == expected


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
def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    whole = (ROOT / "mlc" / "harmful_train.csv").read_text(encoding="utf-8")
    (tmp_path / "mlc").mkdir()
    (tmp_path / "mlc" / "harmful_train.csv").write_text(whole[: whole.rindex("\n156,") + 1], encoding="utf-8")
    with pytest.raises(DataError, match=r"harmful_train\.csv: 156 rows instead of 157; download the file again"):
        load_benchmark("mlc", tmp_path)


def test_faults(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"unknown benchmark 'x'; use one of polyrefuse"):
        load_benchmark("x", tmp_path)
    with pytest.raises(DataError, match=r"mlc has no part 'test'; use one of harmful_train"):
        load_benchmark("mlc", tmp_path, part="test")
    with pytest.raises(DataError, match=r"mlc: no such folder; give the folder that holds mlc/"):
        load_benchmark("mlc", tmp_path)
    (tmp_path / "mlc").mkdir()
    with pytest.raises(DataError, match=r"harmful_train\.csv: no such file; download the set again"):
        load_benchmark("mlc", tmp_path)
    with pytest.raises(DataError, match=r"mlc has no prompts in th; it has en, zh"):
        load_benchmark("mlc", tmp_path, languages=["th"])
