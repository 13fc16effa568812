"""`lingualign sweep`: scores, files, audits of a few settings, and what it refuses."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from cli.conftest import LANGUAGES, Command, write_settings
from lingualign.config import build_config, load_config
from lingualign.edit import Edit
from lingualign.errors import ConfigError
from lingualign.evaluate.engine import TransformersEngine
from lingualign.grid import DEFAULT_GRID, SWEPT, configured, read_grid, settings_of
from lingualign.sweep import spread

GRID = ("--set", "keep_weight=1,10", "--set", "rank=2,8,none", "--set", "layers=1-2,2-3")


@pytest.fixture(scope="module")
def settings_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings with prompts enough that every language has some held out, and no audit beyond a few tokens."""
    folder = tmp_path_factory.mktemp("sweep")
    prompts = folder / "prompts.csv"
    with prompts.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["seed_id", "kind", "split", *LANGUAGES])
        for kind in ("harmful", "look-alike", "harmless"):
            for seed in range(12):
                split = "fit" if seed < 8 else "select" if seed < 10 else "report"
                texts = [f"{language} {kind} {seed}" + " x" * seed for language in LANGUAGES]
                # The same ids in all kinds: a hash of the id holds out seeds 3 and 5.
                writer.writerow([seed, kind, split, *texts])
    return write_settings(folder / "settings.toml", prompts)


def test_sweep_scores_and_audits_a_few(
    command: Command, tiny_model_folder: Path, settings_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "swept"
    arguments = ("sweep", tiny_model_folder, "--config", settings_file, *GRID, "--out", out)
    outcome = command(*arguments, "--evaluate", 2)
    assert outcome.code == 0, outcome.stderr
    for part in ("of 12 settings", "12 settings from 2 solves of each matrix", "no edit", "setting-2"):
        assert part in outcome.stdout
    document = json.loads((out / "sweep.json").read_text())
    assert len(document["settings"]) == 12
    assert document["layers"] == [1, 2, 3]
    assert {(row["kind"], row["language"]): row["n"] for row in document["held_out"]}["harmful", "th"] == 2
    front = [document["settings"][place] for place in document["front"]]
    assert [row["leakage"] for row in front] == sorted(row["leakage"] for row in front)
    assert [row["explained"] for row in front] == sorted(row["explained"] for row in front)
    assert "<svg" in (out / "sweep.svg").read_text()

    # Both ends of the front were fitted, audited on the select split alone, and can be fitted again.
    audited = document["audited"]
    assert [audited[name]["setting"] for name in ("setting-1", "setting-2")] == [
        document["front"][0],
        document["front"][-1],
    ]
    assert {(cell["language"], cell["kind"]): cell["n"] for cell in audited["no edit"]} == {
        (language, kind): 2 for language in LANGUAGES for kind in ("harmful", "look-alike", "harmless")
    }
    asked = {
        json.loads(line)["seed_id"]
        for file in (out / "features").glob("select-*.jsonl")
        for line in file.read_text(encoding="utf-8").splitlines()
    }
    assert asked == {"8", "9"}
    chosen = load_config(out / "setting-2.toml").edit
    assert chosen.propagation == "none"
    assert list(chosen.layers) == front[-1]["layers"]
    assert (chosen.rank, chosen.keep_weight) == (front[-1]["rank"], front[-1]["keep_weight"])
    file = tmp_path / "edit.safetensors"
    assert command("edit", "--config", out / "setting-2.toml", "--out", file, "--quiet").code == 0
    assert Edit.load(file).fingerprint == audited["setting-2"]["edit"]


def test_a_second_sweep_generates_nothing_and_leaves_no_old_setting(
    command: Command, tiny_model_folder: Path, settings_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "swept"
    arguments = ("sweep", tiny_model_folder, "--config", settings_file, "--out", out, "--json")
    first = command(*arguments, "--set", "rank=2,4", "--evaluate", 2)
    assert first.code == 0, first.stderr
    assert sorted(path.name for path in out.glob("setting-*.toml")) == ["setting-1.toml", "setting-2.toml"]

    def no_generation(*_arguments: object, **_options: object) -> None:
        raise AssertionError("a reply was generated")

    monkeypatch.setattr(TransformersEngine, "generate", no_generation)
    again = command(*arguments, "--set", "rank=2,4", "--evaluate", 2)
    assert again.code == 0, again.stderr
    first_document, document = json.loads(first.stdout), json.loads(again.stdout)
    assert document["settings"] == first_document["settings"]
    assert document["audited"] == first_document["audited"]
    # Another grid needs no more features.
    other = command(*arguments, "--set", "keep_weight=2,3", "--set", "strength=0.5")
    assert json.loads(other.stdout)["audited"] is None
    assert not list(out.glob("setting-*.toml"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "teacher=reference"), "a sweep cannot change 'teacher'; it takes keep_weight, "),
        (("--set", "rank"), "rank has no list of values; give some, such as --set rank=A,B"),
        (("--set", "keep_weight=1,-3"), r"edit.keep_weight: .*\(got -3\)"),
        (("--set", "ridge=low"), r"edit.ridge: .*\(got 'low'\)"),
        (("--set", "strength=1,-1"), "a sweep takes values above 0"),
        (("--set", "layers=5-3"), "give it as FIRST-LAST"),
        (("--set", "layers=2-9"), "it has blocks 0 to 3"),
        (("--grid", "absent.toml"), "cannot read absent.toml"),
    ],
)
def test_wrong_grids_are_one_line(
    command: Command,
    tiny_model_folder: Path,
    settings_file: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    outcome = command("sweep", tiny_model_folder, "--config", settings_file, "--out", tmp_path / "x", *arguments)
    assert outcome.code == 2
    (line,) = [line for line in outcome.error_lines if line.startswith("error: ")]
    assert re.search(message, line)


def test_audits_need_a_select_split(
    command: Command, tiny_model_folder: Path, prompts_file: Path, tmp_path: Path
) -> None:
    settings = write_settings(tmp_path / "settings.toml", prompts_file)
    out = tmp_path / "swept"
    outcome = command("sweep", tiny_model_folder, "--config", settings, "--out", out, "--evaluate", 1)
    assert outcome.code == 2
    assert outcome.error_lines == [
        "error: --evaluate needs harmful prompts in the select split; mark some in the split column, or leave it out"
    ]
    assert not out.exists()


def test_the_grid_is_the_files_then_the_command_lines(tmp_path: Path) -> None:
    file = tmp_path / "grid.toml"
    file.write_text('keep_weight = [3, 10]\nlayers = ["2-4", [1, 5], 6]\nrank = [8, "none"]\n', encoding="utf-8")
    assert read_grid(file, ["keep_weight= 1, 2.5", "null_space=none,0.1"]) == {
        "keep_weight": [1, 2.5],
        "layers": [(2, 3, 4), (1, 5), (6,)],
        "rank": [8, None],
        "null_space": [None, 0.1],
    }
    assert read_grid(None, []) == DEFAULT_GRID


def test_what_the_grid_does_not_name_is_the_configurations() -> None:
    config = build_config({"model": "small", "edit": {"ridge": 0.5, "layers": [3, 4], "propagation": "sequential"}})
    settings = settings_of(config, {"rank": [4, 4, None]})
    assert [(setting.rank, setting.ridge, setting.layers) for setting in settings] == [
        (4, 0.5, (3, 4)),
        (None, 0.5, (3, 4)),
    ]
    again = configured(config, settings[1]).edit
    assert (again.rank, again.propagation) == (None, "none")
    assert settings_of(build_config({"model": "small"}), {"rank": [4]})[0].layers is None
    assert len(settings_of(config, DEFAULT_GRID)) == 240
    assert set(DEFAULT_GRID) < set(SWEPT)
    with pytest.raises(ConfigError, match="name the blocks"):
        settings_of(build_config({"model": "small", "edit": {"layers": "select"}}), DEFAULT_GRID)


@pytest.mark.parametrize(("count", "expected"), [(1, [5]), (2, [0, 9]), (4, [0, 3, 6, 9]), (99, list(range(10)))])
def test_settings_are_spread_over_the_front(count: int, expected: list[int]) -> None:
    assert spread(list(range(10)), count) == expected
