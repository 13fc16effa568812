"""Runs commands in the test's own process, on a tiny model and made-up prompts."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

LANGUAGES = ("en", "th", "ja", "de")
KINDS = ("harmful", "look-alike", "harmless")
_WORDS = {"en": "please tell me about", "th": "โปรดบอกฉันเกี่ยวกับ", "ja": "教えてください", "de": "bitte erzähle mir von"}


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def error_lines(self) -> list[str]:
        return self.stderr.splitlines()


Command = Callable[..., Outcome]


def run_command(*arguments: object) -> int:
    """Runs a command in this process and gives its exit code."""
    from lingualign.cli.main import app

    try:
        app([str(argument) for argument in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Command:
    """Calls the program and catches what it prints."""

    def call(*arguments: object) -> Outcome:
        capfd.readouterr()
        code = run_command(*arguments)
        printed = capfd.readouterr()
        return Outcome(code, printed.out, printed.err)

    return call


def write_prompts(path: Path, seeds: int = 6) -> Path:
    """A wide CSV of made-up prompts: every second seed is for fitting, the others are reported."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["seed_id", "kind", "split", *LANGUAGES])
        for kind in KINDS:
            for seed in range(seeds):
                # Lengths differ, so that batches do too.
                texts = [f"{_WORDS[language]} {kind} {seed}" + " x" * seed for language in LANGUAGES]
                writer.writerow([f"{kind}-{seed}", kind, "fit" if seed % 2 else "report", *texts])
    return path


def write_settings(path: Path, prompts: Path, extra: str = "") -> Path:
    """A TOML file for quick runs."""
    path.write_text(
        f"""precision = "float32"
device = "cpu"
[prompts]
sources = ["{prompts}"]
anchor_languages = ["th", "ja"]
[audit]
max_new_tokens = 6
batch_size = 4
[edit]
layers = [1, 2]
rank = 8
ridge = 0.1
{extra}
""",
        encoding="utf-8",
    )
    return path


@pytest.fixture(scope="session")
def prompts_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 reported prompts and as many to fit on, in four languages."""
    return write_prompts(tmp_path_factory.mktemp("prompts") / "made-up.csv")


@pytest.fixture(scope="session")
def settings_file(tmp_path_factory: pytest.TempPathFactory, prompts_file: Path) -> Path:
    """Settings of a run that takes a second."""
    return write_settings(tmp_path_factory.mktemp("settings") / "quick.toml", prompts_file)


@pytest.fixture(scope="session")
def _finished(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path, settings_file: Path) -> Path:
    out = tmp_path_factory.mktemp("finished") / "run"
    assert run_command("run", tiny_model_folder, "--config", settings_file, "--out", out, "--quiet") == 0
    return out


@pytest.fixture
def finished_run(_finished: Path, tmp_path: Path) -> Path:
    """A copy of the folder of a finished run."""
    return Path(shutil.copytree(_finished, tmp_path / "finished"))


@pytest.fixture
def edit_file(_finished: Path) -> Path:
    """The edit of the finished run. Read-only."""
    return _finished / "edit.safetensors"
