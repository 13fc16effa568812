"""Start-up: help is quick and light, errors and interrupts end as they should."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from lingualign import __version__

COMMANDS = ("demo", "run", "audit", "edit", "sweep", "verify", "export", "report", "plan", "doctor", "judge")
HEAVY = ("torch", "transformers", "pydantic", "numpy", "scipy", "sklearn", "matplotlib", "rich")


def _seconds(*arguments: str) -> float:
    """Processor time of the whole process: the clock on the wall says more about the neighbours."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "lingualign", *arguments], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("--version",), *((name, "--help") for name in COMMANDS), ("judge", "evaluate", "--help")],
)
def test_help_takes_less_than_300_ms(arguments: tuple[str, ...]) -> None:
    assert min(_seconds(*arguments) for _ in range(3)) < 0.3


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from lingualign.cli.main import app\n"
        "try: app(['run', '--help'])\n"
        f"except SystemExit: print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_version() -> None:
    done = subprocess.run([sys.executable, "-m", "lingualign", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"lingualign {__version__}\n"


def test_interrupt_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from lingualign.cli import options
    from lingualign.cli.main import app

    def interrupt(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(options, "make_config", interrupt)
    with pytest.raises(SystemExit) as stop:
        app(["run", "small"])
    assert stop.value.code == 130
    assert capsys.readouterr().err == "interrupted: what is done is kept; give the same command again to go on\n"
