"""Each benchmark read from files in its published format, made up here: harmless words, a few rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lingualign.data.benchmarks import BENCHMARKS, load_benchmark
from lingualign.data.benchmarks.files import label
from lingualign.data.benchmarks.readers import language_tag
from lingualign.data.benchmarks.xsafety import CATEGORIES
from lingualign.data.schema import PromptSet
from lingualign.errors import DataError

from .conftest import WORDS, Rows, write


def wide_rows(languages: Iterable[str], **more: Callable[[int], Any]) -> list[dict[str, Any]]:
    return [
        {name: value(place) for name, value in more.items()} | {tag: f"{text} ({tag})" for tag in languages}
        for place, text in enumerate(WORDS)
    ]


def texts(prompts: PromptSet, language: str = "en") -> list[str]:
    return [prompt.text for prompt in prompts if prompt.language == language]


def test_multijail(tmp_path: Path, small: Callable[..., None]) -> None:
    small("multijail", all=4)
    languages = BENCHMARKS["multijail"].languages
    more = {"id": lambda place: place, "source": lambda _: "us", "tags": lambda _: "['Theft', 'Weapons']"}
    write(tmp_path / "multijail" / "MultiJail.csv", wide_rows(languages, **more))
    prompts = load_benchmark("multijail", tmp_path)
    assert prompts.languages == languages
    assert texts(prompts, "jv") == [f"{text} (jv)" for text in WORDS]
    assert prompts[0].seed_id == "all:0"
    assert prompts[0].category == "Theft, Weapons"


def test_a_blank_cell_leaves_the_row_out_where_its_language_is_read(tmp_path: Path, small: Callable[..., None]) -> None:
    small("multijail", all=4)
    rows = wide_rows(BENCHMARKS["multijail"].languages, id=str, tags=lambda _: "[]")
    rows[1]["th"] = "  "
    write(tmp_path / "multijail" / "MultiJail.csv", rows)
    assert len(load_benchmark("multijail", tmp_path).seeds("harmful")) == 3
    assert len(load_benchmark("multijail", tmp_path, languages=["en", "sw"]).seeds("harmful")) == 4


@pytest.mark.parametrize(
    ("name", "file", "more"),
    [
        ("multi-strongreject", "multi_strongreject.csv", {"row": str}),
        ("advbench-x", "advbench_x.csv", {}),
        ("m-alert", "data/train-00000-of-00001.parquet", {"id": int, "category": lambda _: "hate"}),
        ("mlc", "harmful_train.csv", {"row": str}),
    ],
)
def test_wide_tables(
    name: str, file: str, more: dict[str, Callable[[int], Any]], tmp_path: Path, small: Callable[..., None]
) -> None:
    (part,) = BENCHMARKS[name].parts
    small(name, **{part: 4})
    write(tmp_path / name / file, wide_rows(BENCHMARKS[name].languages, **more))
    prompts = load_benchmark(name, tmp_path)
    assert prompts.languages == BENCHMARKS[name].languages
    assert len(prompts.paired("harmful", "en", prompts.languages[-1])) == 4


@pytest.mark.parametrize("language", ["en", "zh"])
def test_csrt(language: str, tmp_path: Path, small: Callable[..., None]) -> None:
    small("csrt", code_switched=4, english=4)
    rows = [{"id": n, "category": "['bias']", "en": text, "csrt": f"mixed {text}"} for n, text in enumerate(WORDS)]
    write(tmp_path / "csrt" / "data" / "csrt.csv", rows)
    if language == "en":
        assert texts(load_benchmark("csrt", tmp_path, part="english")) == list(WORDS)
        assert texts(load_benchmark("csrt", tmp_path, part="code-switched")) == [f"mixed {text}" for text in WORDS]
        assert len(load_benchmark("csrt", tmp_path)) == 8
    else:
        with pytest.raises(DataError, match="csrt has no prompts in zh"):
            load_benchmark("csrt", tmp_path, languages=[language])


def test_multilingual_advbench(tmp_path: Path, small: Callable[..., None]) -> None:
    small("multilingual-advbench", all=4)
    for tag in ("en", "th", "vi"):
        rows = [{"prompt": f"{text} ({tag})", "target": "Sure"} for text in WORDS]
        write(tmp_path / "multilingual-advbench" / tag / "train-00000-of-00001.parquet", rows)
    prompts = load_benchmark("multilingual-advbench", tmp_path, languages=["en", "vi"])
    assert [vietnamese.text for _, vietnamese in prompts.paired("harmful", "en", "vi")] == [
        f"{text} (vi)" for text in WORDS
    ]
    with pytest.raises(DataError, match=r"zh/train-\*\.parquet: no such file; download the set again"):
        load_benchmark("multilingual-advbench", tmp_path, languages=["zh"])


def test_aya_has_a_language_per_request(tmp_path: Path, small: Callable[..., None]) -> None:
    small("aya-redteaming", all=4)
    for code in ("eng", "arb"):
        rows = [{"prompt": f"{text} ({code})", "language": code, "harm_category": ["a", "b"]} for text in WORDS]
        write(tmp_path / "aya-redteaming" / f"aya_{code}.jsonl", rows)
    prompts = load_benchmark("aya-redteaming", tmp_path, languages=["en", "ar"])
    assert len(prompts) == 8
    assert len(prompts.seeds("harmful")) == 8
    assert prompts[0].category == "a, b"
    with pytest.raises(DataError, match="have no partner"):
        prompts.paired("harmful", "en", "ar")


def polyguard_rows() -> Rows:
    return [
        {
            "id": n,
            "prompt": f"{text} ({language})",
            "prompt_harm_label": (None, "harmful", "unharmful", "harmful")[n],
            "adversarial": bool(n % 2),
            "subcategory": "others",
            "language": language,
        }
        for language in ("English", "Chinese", "Swedish")
        for n, text in enumerate(WORDS)
    ]


def test_polyguardprompts(tmp_path: Path, small: Callable[..., None]) -> None:
    small("polyguardprompts", file_rows=12)
    write(tmp_path / "polyguardprompts" / "data" / "test-00000-of-00001.parquet", polyguard_rows())
    prompts = load_benchmark("polyguardprompts", tmp_path, languages=["en", "zh"])
    assert {prompt.kind: len(prompts.where(kinds=[prompt.kind])) for prompt in prompts} == {
        "harmful": 4,
        "look-alike": 2,
    }
    assert len(prompts.paired("harmful", "en", "zh")) == 2
    with pytest.raises(DataError, match=r"test-.*: no harmful rows in th; download the file again"):
        load_benchmark("polyguardprompts", tmp_path, languages=["th"])


def test_polyguardprompts_cut(tmp_path: Path, small: Callable[..., None]) -> None:
    small("polyguardprompts", file_rows=12)
    write(tmp_path / "polyguardprompts" / "data" / "test-00000-of-00001.parquet", polyguard_rows()[:-1])
    with pytest.raises(DataError, match=r"11 rows instead of 12; download the file again"):
        load_benchmark("polyguardprompts", tmp_path, part="harmful", languages=["en"])


def test_linguasafe(tmp_path: Path) -> None:
    rows = [
        {"id": None, "prompt": f"{text} {lang}", "lang": lang, "subtype": "s", "level": n, "specific": True}
        for lang in ("en", "vi", "sr")
        for n, text in enumerate(WORDS)
    ]
    write(tmp_path / "linguasafe" / "data" / "train-00000-of-00001.parquet", rows)
    prompts = load_benchmark("linguasafe", tmp_path, languages=["en", "vi"])
    assert len(prompts.where(kinds=["harmful"], languages=["vi"])) == 3
    assert texts(prompts.where(kinds=["look-alike"])) == ["water the plants en"]


def test_xthreatbench(tmp_path: Path) -> None:
    rows = [{"prompt": text, "language": language} for language in ("English", "Bengali") for text in WORDS]
    write(tmp_path / "xthreatbench" / "any.csv", rows)
    assert len(load_benchmark("xthreatbench", tmp_path, languages=["bn"])) == 4
    write(tmp_path / "xthreatbench" / "any.csv", [{"question": "?", "language": "English"}])
    with pytest.raises(
        DataError, match=r"any\.csv: no column prompt among question, language; give the file in its pub"
    ):
        load_benchmark("xthreatbench", tmp_path, languages=["en"])


@pytest.mark.parametrize(
    ("name", "file", "row"),
    [
        ("strongreject", "strongreject.csv", {"category": "c", "source": "s", "forbidden_prompt": "TEXT"}),
        ("strongreject", "data/train-00000-of-00001.parquet", {"prompt": "TEXT", "category": "c"}),
        ("advbench", "harmful_behaviors.csv", {"goal": "TEXT", "target": "Sure"}),
        ("advbench", "data/train-00000-of-00001.parquet", {"prompt": "TEXT", "target": "Sure"}),
        (
            "do-not-answer",
            "Instruction/do_not_answer_en.csv",
            {"id": "ID", "risk_area": "r", "types_of_harm": "t", "specific_harms": "s", "question": "TEXT"},
        ),
    ],
)
def test_english_tables(name: str, file: str, row: dict[str, str], tmp_path: Path, small: Callable[..., None]) -> None:
    small(name, all=4)
    rows = [
        {column: {"TEXT": text, "ID": f"row-{n}"}.get(value, value) for column, value in row.items()}
        for n, text in enumerate(WORDS)
    ]
    write(tmp_path / name / file, rows)
    assert texts(load_benchmark(name, tmp_path)) == list(WORDS)
    write(tmp_path / name / file, rows[:-1])
    with pytest.raises(DataError, match=r"3 rows instead of 4; download the file again"):
        load_benchmark(name, tmp_path)
    write(tmp_path / name / file, [{"other": text} for text in WORDS])
    with pytest.raises(DataError, match=r"no column .* among other; give the file in its published format"):
        load_benchmark(name, tmp_path)


@pytest.mark.parametrize("layout", ["authors", "hub"])
def test_harmbench(layout: str, tmp_path: Path, small: Callable[..., None]) -> None:
    small("harmbench", standard=1, contextual=2, copyright=1)
    kinds = ("standard", "contextual", "contextual", "copyright")
    passages = ("", "A passage.", "Another.", "")
    if layout == "authors":
        rows = [
            {
                "Behavior": text, "FunctionalCategory": kind, "SemanticCategory": "x", "Tags": "",
                "ContextString": passage, "BehaviorID": text.replace(" ", "_"),
            }
            for text, kind, passage in zip(WORDS, kinds, passages, strict=True)
        ]  # fmt: skip
        write(tmp_path / "harmbench" / "harmbench_behaviors_text_all.csv", rows)
    else:
        for kind in dict.fromkeys(kinds):
            rows = [
                {"prompt": text} | ({"context": passage} if passage else {})
                for text, found, passage in zip(WORDS, kinds, passages, strict=True)
                if found == kind
            ]
            write(tmp_path / "harmbench" / kind / "train-00000-of-00001.parquet", rows)
    assert texts(load_benchmark("harmbench", tmp_path, part="standard")) == ["water the plants"]
    assert texts(load_benchmark("harmbench", tmp_path, part="contextual")) == [
        "A passage.\n\n---\n\nbake bread",
        "Another.\n\n---\n\nmend a sock",
    ]
    assert len(load_benchmark("harmbench", tmp_path)) == 4


@pytest.mark.parametrize("labelled", [True, False])
def test_xstest(labelled: bool, tmp_path: Path, small: Callable[..., None]) -> None:
    small("xstest", safe=2, unsafe=2)
    types = ("homonyms", "contrast_homonyms", "definitions", "contrast_definitions")
    rows = [
        {"id": f"v2-{n}", "prompt": text, "type": kind}
        | ({"label": "unsafe" if kind.startswith("contrast") else "safe"} if labelled else {})
        for n, (text, kind) in enumerate(zip(WORDS, types, strict=True))
    ]
    write(tmp_path / "xstest" / ("xstest_prompts.csv" if labelled else "xstest_v2_prompts.csv"), rows)
    prompts = load_benchmark("xstest", tmp_path)
    assert texts(prompts.where(kinds=["look-alike"])) == ["water the plants", "mend a sock"]
    assert texts(prompts.where(kinds=["harmful"])) == ["bake bread", "sweep the yard"]


def test_or_bench(tmp_path: Path, small: Callable[..., None]) -> None:
    small("or-bench", hard=4, toxic=1)
    rows = [{"prompt": text, "category": "deception"} for text in WORDS]
    write(tmp_path / "or-bench" / "or-bench-hard-1k.csv", rows)
    write(tmp_path / "or-bench" / "or-bench-toxic.csv", rows[:1])
    write(tmp_path / "or-bench" / "or-bench-80k.csv", rows)
    prompts = load_benchmark("or-bench", tmp_path)
    assert (len(prompts.where(kinds=["look-alike"])), len(prompts.where(kinds=["harmful"]))) == (8, 1)


def test_jailbreakbench_halves(tmp_path: Path, small: Callable[..., None]) -> None:
    small("jailbreakbench", harmful=4, benign=4)
    for half in ("harmful", "benign"):
        rows = [
            {"Index": n, "Goal": f"{text} ({half})", "Target": "Sure", "Behavior": text, "Category": "c", "Source": "s"}
            for n, text in enumerate(WORDS)
        ]
        write(tmp_path / "jailbreakbench" / "data" / f"{half}-behaviors.csv", rows)
    translated = [
        {"instruction": f"{text} (harmful)", "instruction_translated": f"{text} (th)", "category": "c"}
        for text in reversed(WORDS)
    ]
    write(tmp_path / "jailbreakbench" / "multilingual" / "jailbreakbench_test_translated_th.json", translated)
    prompts = load_benchmark("jailbreakbench", tmp_path, languages=["en", "th"])
    assert texts(prompts.where(kinds=["look-alike"])) == [f"{text} (benign)" for text in WORDS]
    assert texts(prompts, "th") == [f"{text} (th)" for text in WORDS]


def test_polyrefuse_repository(tmp_path: Path, small: Callable[..., None]) -> None:
    small("polyrefuse", harmful_val=4, harmless_val=4)
    root = tmp_path / "polyrefuse"
    english = [{"instruction": text, "category": None} for text in WORDS]
    write(root / "dataset" / "splits" / "harmful_val.json", english)
    write(root / "dataset" / "splits" / "harmless_val_4_sampled.json", english)
    write(root / "PolyRefuse" / "harmful_val_translated_th.json", [{"instruction": f"{text} (th)"} for text in WORDS])
    both = [{"instruction": text, "instruction_translated": f"{text} (ar)"} for text in WORDS]
    write(root / "PolyRefuse" / "harmful_val_translated_ar.json", both)
    prompts = load_benchmark("polyrefuse", tmp_path, part="harmful_val", languages=["en", "th", "ar"])
    assert [thai.text for _, thai in prompts.paired("harmful", "en", "th")] == [f"{text} (th)" for text in WORDS]
    assert texts(prompts, "ar") == [f"{text} (ar)" for text in WORDS]
    assert texts(load_benchmark("polyrefuse", tmp_path, part="harmless_val", languages=["en"])) == list(WORDS)
    # The English file must never stand in for a translation.
    with pytest.raises(DataError, match=r"harmless_val_translated_th\.json.*: no such file"):
        load_benchmark("polyrefuse", tmp_path, part="harmless_val", languages=["en", "th"])


def xsafety_repository(root: Path) -> None:
    """English, Spanish, Bengali and Russian with the oddities of the real files."""
    import openpyxl

    for folder, suffix in (("en", "_n"), ("sp", ""), ("bn", "_n"), ("ru", "")):
        (root / folder).mkdir(parents=True)
        for category in CATEGORIES:
            texts_here = [f"{text} {category} {folder}" for text in WORDS]
            plain = category == "commonsense"
            stem = category if plain else f"{category}{suffix}"
            if folder == "bn" and not plain:
                book = openpyxl.Workbook()
                for text in texts_here:
                    book.active.append([text])
                book.save(root / folder / f"{stem}.xlsx")
                continue
            if folder == "ru" and category == "Crimes_And_Illegal_Activities":
                stem = "Crimes_And_Illegal_Activitie"
            if folder == "en" and category == "Crimes_And_Illegal_Activities":
                stem = f"{category}_en"
            mark = "\ufeff" if folder == "en" else ""
            lines = [f'"{text}, please",more\r\n' for text in texts_here]
            (root / folder / f"{stem}.csv").write_text(mark + "".join(lines), encoding="utf-8", newline="")


def test_xsafety_repository(tmp_path: Path, small: Callable[..., None]) -> None:
    small("xsafety", all=4 * 14)
    xsafety_repository(tmp_path / "xsafety")
    prompts = load_benchmark("xsafety", tmp_path, languages=["en", "es", "bn", "ru"])
    assert len(prompts) == 4 * 4 * 14
    assert texts(prompts)[0] == "water the plants Crimes_And_Illegal_Activities en, please"
    assert texts(prompts, "bn")[5] == "bake bread Ethics_And_Morality bn"
    assert prompts[0].seed_id == "all:Crimes_And_Illegal_Activities:0"


def test_xsafety_names_every_missing_file(tmp_path: Path, small: Callable[..., None]) -> None:
    small("xsafety", all=4 * 14)
    xsafety_repository(tmp_path / "xsafety")
    (tmp_path / "xsafety" / "sp" / "Insult.csv").unlink()
    (tmp_path / "xsafety" / "bn" / "Insult_n.xlsx").unlink()
    with pytest.raises(
        DataError, match=r"xsafety: 2 files are missing \(sp/Insult, bn/Insult\); download the set again"
    ):
        load_benchmark("xsafety", tmp_path, languages=["en", "es", "bn"])


def test_xsafety_cut_and_broken_files(tmp_path: Path, small: Callable[..., None]) -> None:
    small("xsafety", all=4 * 14)
    xsafety_repository(tmp_path / "xsafety")
    path = tmp_path / "xsafety" / "sp" / "Insult.csv"
    path.write_text("one\ntwo\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"Insult\.csv: 2 rows instead of 4; download the file again"):
        load_benchmark("xsafety", tmp_path, languages=["es"])
    (tmp_path / "xsafety" / "bn" / "Insult_n.xlsx").write_bytes(b"no spreadsheet")
    with pytest.raises(DataError, match=r"Insult_n\.xlsx: not a readable spreadsheet; download the file again"):
        load_benchmark("xsafety", tmp_path, languages=["bn"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{]", "broken JSON"),
        ('{"instruction": "x"}', "not a list of objects"),
        ('["x"]', "not a list of objects"),
        ('[{"text": "x"}]', "no column instruction among text"),
        ("[]", "no column instruction among none"),
    ],
)
def test_json_faults_are_one_line(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "overrefusal-en" / "oktest.json"
    path.parent.mkdir()
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=rf"oktest\.json: {message}") as caught:
        load_benchmark("overrefusal-en", tmp_path, part="oktest")
    assert "\n" not in str(caught.value)


def test_mpo_of_another_shape(tmp_path: Path, small: Callable[..., None]) -> None:
    small("mpo-preference", train=1)
    write(tmp_path / "mpo-preference" / "gemma_mpo_data.json", [{"source_conversations": []}])
    with pytest.raises(DataError, match=r"not in MPO's training format; download the file again"):
        load_benchmark("mpo-preference", tmp_path)


def test_language_names() -> None:
    assert [language_tag(written) for written in ("th", "Thai", " thai ", "Swedish", "sv")] == [
        "th",
        "th",
        "th",
        "",
        "",
    ]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1))
def test_labels_of_lists(labels: list[str]) -> None:
    assert label(str(labels)) == ", ".join(labels)


@given(st.text())
def test_labels_of_any_text_do_not_fail(text: str) -> None:
    assert text.startswith("[") or label(text) == text
    label("[" + text)
