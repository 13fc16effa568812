"""Plain progress lines: few, with elapsed and remaining time."""

from __future__ import annotations

import pytest

from lingualign.cli import progress
from lingualign.cli.progress import LiveBar, PlainLines, duration, make_renderer


def test_plain_lines_are_few(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    show = PlainLines()
    for done in range(101):
        now[0] = 1000.0 + done / 10
        show("audit", done, 100)
    show("audit", 100, 100)
    now[0] += 1
    show("fit", 0, 3)
    assert capsys.readouterr().err.splitlines() == [
        "audit: 0/100, 0 s",
        "audit: 50/100, 5 s, 5 s left",
        "audit: 100/100, 10 s",
        "fit: 0/3, 0 s",
    ]


def test_resumed_stage_counts_only_its_own_speed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    show = PlainLines()
    show("audit", 80, 100)
    now[0] += 10
    show("audit", 90, 100)
    assert capsys.readouterr().err.splitlines()[-1] == "audit: 90/100, 10 s, 10 s left"


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    show = make_renderer(quiet=True)
    show("audit", 1, 2)
    show.close()
    assert capsys.readouterr() == ("", "")


def test_live_bar_goes_away_when_its_stage_ends() -> None:
    bar = LiveBar()
    bar("audit", 0, 2)
    assert bar._bar is not None
    bar("audit", 2, 2)
    assert bar._bar is None
    bar("fit", 0, 2)
    bar.close()
    bar.close()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
