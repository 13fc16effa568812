"""`lingualign data`: what it prints for people and machines, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lingualign.data.benchmarks import BENCHMARKS

from .conftest import Command


def test_list_has_every_benchmark(command: Command) -> None:
    shown = command("data", "list")
    assert shown.code == 0
    assert all(f" {name}" in shown.stdout for name in BENCHMARKS)
    listed = json.loads(command("data", "list", "--json").stdout)
    assert list(listed) == list(BENCHMARKS)
    assert listed["m-alert"]["non_commercial"] is True


@pytest.mark.parametrize("name", BENCHMARKS)
def test_show_says_all_of_an_entry(name: str, command: Command) -> None:
    benchmark = BENCHMARKS[name]
    shown = command("data", "show", name)
    assert shown.code == 0
    for text in (benchmark.licence, benchmark.citation, benchmark.layout, *benchmark.pitfalls, *benchmark.parts):
        assert text in shown.stdout
    assert ("Verified   yes" in shown.stdout) == (not benchmark.unverified)
    assert (f"{name}@hub" in shown.stdout) == (benchmark.hub is not None)
    document = json.loads(command("data", "show", name, "--json").stdout)
    assert [part["kind"] for part in document["parts"]] == [part.kind for part in benchmark.parts.values()]


def test_show_of_an_unknown_one(command: Command) -> None:
    shown = command("data", "show", "nothing")
    assert shown.code == 2
    assert shown.error_lines[0].startswith("error: unknown benchmark 'nothing'; use one of multijail")


def write(path: Path, *texts: str) -> Path:
    path.write_text("seed_id,en\n" + "".join(f'{n},"{text}"\n' for n, text in enumerate(texts)), encoding="utf-8")
    return path


def test_check_of_own_files(command: Command, tmp_path: Path) -> None:
    first = write(tmp_path / "first.csv", "How do I keep my tomatoes alive in a dry summer?", "Name three old bridges.")
    second = write(tmp_path / "second.csv", "how do I keep my tomatoes alive in a dry summer")
    shown = command("data", "check", f"{first}:harmless", f"{second}:harmless")
    assert shown.code == 0
    assert "1 of 1 en prompts of" in shown.stdout
    assert "tomatoes" not in shown.stdout
    document = json.loads(command("data", "check", f"{first}:harmless", f"{second}:harmless", "--json").stdout)
    assert [source["cells"][0]["prompts"] for source in document["sources"]] == [2, 1]
    assert len(document["overlaps"]) == 1


def test_check_fails_with_one_line(command: Command, tmp_path: Path) -> None:
    good = write(tmp_path / "good.csv", "Name three old bridges.")
    shown = command("data", "check", f"multijail:{tmp_path}", f"{good}:harmless")
    assert shown.code == 2
    assert "error    " in shown.stdout
    assert shown.error_lines == [f"error: 1 of 2 sources cannot be used as they are: multijail:{tmp_path}"]
    shown = command("data", "check", f"multijail:{tmp_path}", "--json")
    assert shown.code == 2
    assert json.loads(shown.stdout)["sources"][0]["findings"][0]["level"] == "error"


def test_check_of_unknown_languages(command: Command) -> None:
    shown = command("data", "check", "builtin", "--languages", "en,xx")
    assert shown.code == 2
    assert shown.error_lines[0].startswith("error: unknown language 'xx'")


def test_a_run_says_that_a_reported_prompt_is_fitted_on(
    command: Command, tiny_model_folder: Path, prompts_file: Path, tmp_path: Path
) -> None:
    lines = prompts_file.read_text(encoding="utf-8").splitlines()
    copied = next(line for line in lines if line.startswith("harmful-1,")).split(",")
    leak = ",".join(["harmful-0", "harmful", "report", *(f"{text}!" for text in copied[3:])])
    leaking = tmp_path / "leaking.csv"
    rows = [leak if line.startswith("harmful-0,") else line for line in lines]
    leaking.write_text("\n".join(rows), encoding="utf-8")
    message = "4 of 36 reported prompts have the text of a prompt the edit is fitted on (first: harmful-0 in en)"
    assert f"Warning   {message}" in command("run", tiny_model_folder, "--prompts", leaking, "--dry-run").stdout
    assert "Warning" not in command("run", tiny_model_folder, "--prompts", prompts_file, "--dry-run").stdout
