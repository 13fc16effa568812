"""What `data check` finds in sources with known faults."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lingualign.data.benchmarks import BENCHMARKS
from lingualign.errors import DataError
from lingualign.prompt_check import Finding, check_overlaps, check_source

ENGLISH = (
    "Please explain how a bicycle stays upright while it is moving.",
    "What is a good way to learn the names of the stars in winter?",
    "Describe the smell of fresh bread in the early morning, please.",
    "Which vegetables can be planted in the garden before the frost?",
)
GERMAN = (
    "Bitte erkläre, warum ein Fahrrad beim Fahren nicht umfällt.",
    "Wie lernt man am besten die Namen der Sterne im Winter?",
    "Beschreibe bitte den Geruch von frischem Brot am frühen Morgen.",
    "Welches Gemüse kann man vor dem Frost in den Garten pflanzen?",
)


def mlc(folder: Path, german: tuple[str, ...] = GERMAN, english: tuple[str, ...] = ENGLISH) -> str:
    """A copy of the set of this name, and its spec."""
    (folder / "mlc").mkdir()
    lines = ["row,en,de", *(f'{n},"{en}","{de}"' for n, (en, de) in enumerate(zip(english, german, strict=True)))]
    (folder / "mlc" / "harmful_train.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"mlc:{folder}"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    part = replace(BENCHMARKS["mlc"].parts["harmful_train"], rows=4, languages=("en", "de"))
    benchmark = replace(BENCHMARKS["mlc"], parts={"harmful_train": part}, unverified="", non_commercial=False)
    monkeypatch.setitem(BENCHMARKS, "mlc", benchmark)


def test_a_sound_source(tmp_path: Path) -> None:
    check = check_source(mlc(tmp_path))
    assert check.findings == ()
    assert [
        (cell.language, cell.prompts, cell.missing, cell.repeated, cell.wrong_language) for cell in check.cells
    ] == [
        ("en", 4, 0, 0, 0),
        ("de", 4, 0, 0, 0),
    ]
    assert len(check.prompts) == 8
    assert not check.failed


def test_gaps_repetitions_and_wrong_languages_are_named_by_id(tmp_path: Path) -> None:
    check = check_source(mlc(tmp_path, (" ", GERMAN[1], ENGLISH[2], GERMAN[1].upper())))
    assert check.findings == (
        Finding(
            "warning",
            "harmful_train: rows have no text and are left out where the language is read: de 1 (in de: 0)",
        ),
        Finding("warning", "harmful_train: texts repeat an earlier one: de 1 (in de: harmful_train:3)"),
        Finding("warning", "harmful_train: texts look like another language: de 1 (in de: harmful_train:2)"),
    )
    assert not check.failed


def test_a_count_that_is_wrong_is_an_error_and_one_that_is_unknown_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = mlc(tmp_path, GERMAN[:3], ENGLISH[:3])
    check = check_source(spec)
    assert check.failed
    assert [finding.level for finding in check.findings] == ["error"]
    assert "3 rows instead of 4" in check.findings[0].text
    part = replace(BENCHMARKS["mlc"].parts["harmful_train"], rows=None)
    monkeypatch.setitem(BENCHMARKS, "mlc", replace(BENCHMARKS["mlc"], parts={"harmful_train": part}))
    check = check_source(spec)
    assert check.findings == (Finding("warning", "harmful_train: 3 rows; no number to compare is verified"),)
    assert not check.failed


def test_languages_that_are_not_asked_for_are_not_checked(tmp_path: Path) -> None:
    check = check_source(mlc(tmp_path, (" ", *GERMAN[1:])), ["en"])
    assert [cell.language for cell in check.cells] == ["en"]
    assert check.findings == ()


def test_terms_and_doubts_of_an_entry_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    doubtful = replace(BENCHMARKS["mlc"], unverified="the licence", non_commercial=True)
    monkeypatch.setitem(BENCHMARKS, "mlc", doubtful)
    check = check_source(mlc(tmp_path))
    assert [finding.text.partition(":")[2].strip()[:12] for finding in check.findings] == [
        "not verified",
        "Apache-2.0; ",
    ]


def test_missing_folder_and_file_faults_are_findings(tmp_path: Path) -> None:
    assert check_source(f"mlc:{tmp_path}").findings[0].text.startswith(f"{tmp_path / 'mlc'}: no such folder")
    file = tmp_path / "mine.csv"
    file.write_text("id,en\n1,one thing\n2,\n", encoding="utf-8")
    check = check_source(f"{file}:harmless")
    assert check.failed
    assert "row 3: empty prompt" in check.findings[0].text
    with pytest.raises(DataError, match="unknown prompt source"):
        check_source("nothing")
    with pytest.raises(DataError, match="mlc has no part 'x'"):
        check_source(f"mlc/x:{tmp_path}")


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    lines = [
        "seed_id,kind,en,de",
        f'a,harmful,"{ENGLISH[0]}","{GERMAN[0]}"',
        f'b,harmless,"{ENGLISH[1]}","{GERMAN[1]}"',
    ]
    file.write_text("\n".join(lines), encoding="utf-8")
    check = check_source(str(file))
    assert [(cell.part, cell.language, cell.prompts) for cell in check.cells] == [
        ("harmful", "en", 1),
        ("harmful", "de", 1),
        ("harmless", "en", 1),
        ("harmless", "de", 1),
    ]
    assert check.findings == ()


def test_overlaps_are_declared_or_found(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text(
        f'seed_id,en\nx,"{ENGLISH[2].upper()}"\ny,"Quite another thing, which no set has."\n', encoding="utf-8"
    )
    checks = [check_source(mlc(tmp_path)), check_source(f"{file}:harmful"), check_source(f"mpo-preference:{tmp_path}")]
    texts = [finding.text for finding in check_overlaps(checks)]
    assert texts == [
        "mpo-preference and mlc overlap: both draw on PKU-SafeRLHF; 2 prompts resemble each other (measured)",
        f"1 of 2 en prompts of {file}:harmful are in mlc:{tmp_path}, or nearly so (x)",
    ]
    for text in texts:
        assert "bread" not in text
