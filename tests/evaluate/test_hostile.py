"""Hostile replies on their whole way: judge, store, figures, page, terminal."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from lingualign.evaluate.judge import Exchange, OfflineJudge
from lingualign.evaluate.metrics import cells, language_fidelity
from lingualign.evaluate.schema import OUTCOMES, Reply
from lingualign.evaluate.store import ReplyStore
from lingualign.evaluate.verdict import compare, verdict_sentence
from lingualign.report.data import Arm, ReportData
from lingualign.report.html import render_report
from lingualign.report.tables import arms_table, audit_table, comparison_table

#: Invisible or destructive on a page or a terminal.
CONTROLS = {chr(code) for code in (*range(9), 11, 12, *range(14, 32), *range(127, 160))} | set(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)
HOSTILE = {
    "script": "<script>alert(document.domain)</script>",
    "closing style": "</style></head><body onload=alert(1)>",
    "attribute": '"\' onmouseover=alert(1) x="',
    "comment": "<!-- --><svg/onload=alert(1)>]]>",
    "template": "{{ 7 * 7 }}{% for x in range(10**9) %}{{ self.__class__ }}{# #}",
    "bidi": "abc \u202egnp.exe\u2066 \u2067\u200f\u061c def",
    "nul": "before\x00after\x08\x7f\x85",
    "surrogates": "\ud800 lone \udfff and \udc80",
    "escape codes": "\x1b[2J\x1b]0;title\x07\x1b[31mred\x9b31m",
    "rich markup": "[bold red]x[/bold red][/][link=file:///etc/passwd]y[/link] :skull:",
    "right to left": "מתכון למרק עדשים (4 מנות) وصفة حساء العدس <b>",
    "line ends": "one\r\ntwo\rthree\u2028four\u2029five\x0b\x0csix\x1cseven\x85eight",
    "combining": "z" + "\u0301" * 5000,
    "json": '"}\n{"seed_id": "forged", "outcome": "refused"}\n',
    "empty": "",
    "megabyte": "soup <b> " * 120_000,
}


@pytest.fixture(scope="module")
def judged() -> list[Reply]:
    """Each hostile text as the reply to a prompt in two languages, judged as an audit does."""
    exchanges = [Exchange(text, text, language, False) for language in ("en", "he") for text in HOSTILE.values()]
    judgements = OfflineJudge().judge(exchanges)
    keys = [(language, number) for language in ("en", "he") for number in range(len(HOSTILE))]
    return [
        Reply(
            f"h{number}",
            language,
            "harmful",
            exchange.reply,
            40,
            exchange.finished,
            judgement.outcome,
            judgement.score,
            judgement.reply_language,
            judgement.unsafe,
        )
        for (language, number), exchange, judgement in zip(keys, exchanges, judgements, strict=True)
    ]


def test_every_reply_gets_an_outcome_and_the_broken_ones_are_not_safe(judged: list[Reply]) -> None:
    assert all(reply.outcome in OUTCOMES and 0 <= reply.score <= 1 for reply in judged)
    outcomes = dict(zip(HOSTILE, (reply.outcome for reply in judged), strict=False))
    assert outcomes["empty"] == outcomes["megabyte"] == outcomes["combining"] == "incoherent"
    assert "refused" not in outcomes.values()


def test_a_store_gives_back_what_it_got(judged: list[Reply], tmp_path: Path) -> None:
    store = ReplyStore(tmp_path / "replies.jsonl")
    for reply in judged:
        store.append([reply])
    assert store.load() == judged
    content = store.path.read_bytes()
    assert content.isascii()
    assert content.count(b"\n") == len(judged)


@pytest.mark.parametrize("cut", [1, 30])
def test_a_cut_line_of_hostile_text_loses_that_reply_alone(judged: list[Reply], cut: int, tmp_path: Path) -> None:
    store = ReplyStore(tmp_path / "replies.jsonl")
    store.append(judged)
    store.path.write_bytes(store.path.read_bytes()[:-cut])
    assert store.load() == judged[:-1]
    store.append(judged[-1:])
    assert store.load() == judged


def test_figures_count_hostile_replies_like_any_other(judged: list[Reply]) -> None:
    refused = [replace(reply, outcome="refused") for reply in judged]
    assert [cell.n for cell in cells(judged)] == [len(HOSTILE)] * 2
    comparison = compare(judged, refused)
    assert comparison.harmful_refusal.changes[0].after == 1.0
    assert not set(verdict_sentence(comparison)) & CONTROLS
    assert set(language_fidelity(refused, "refused")) == {"en", "he"}


class Page(HTMLParser):
    """The elements of a page and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
        self.links += [value or "" for name, value in attrs if name in {"href", "xlink:href", "src"}]

    def handle_data(self, data: str) -> None:
        self.text += data


def report(before: list[Reply], after: list[Reply] | None) -> ReportData:
    prompts = {reply.key: reply.text for reply in before}
    return ReportData(
        "t", "m", "f", "cpu", tuple(before), after and tuple(after), "en", (), None, (), {}, {}, {}, {}, prompts=prompts
    )


@pytest.mark.parametrize("show_text", [True, False])
@pytest.mark.parametrize("name", HOSTILE)
def test_the_page_shows_hostile_text_as_text(judged: list[Reply], name: str, show_text: bool) -> None:
    place = list(HOSTILE).index(name)
    before = [reply for reply in judged if reply.seed_id == f"h{place}"]
    after = [replace(reply, outcome="refused") for reply in before]
    clean = render_report(report([replace(reply, text="soup") for reply in before], None), show_text=show_text)
    for page in (render_report(report(before, after), show_text=show_text), render_report(report(before, None))):
        page.encode("utf-8")  # no lone surrogate
        assert not set(page) & CONTROLS
        parsed = Page(page)
        assert not parsed.tags & {"script", "iframe", "object", "img", "link", "base", "form", "b"}
        assert not [attribute for attribute in parsed.attributes if attribute.startswith("on")]
        assert all(link.startswith("#") for link in parsed.links)
        assert len(page) < 4 * len(clean)
    if not show_text and len(name) and HOSTILE[name].strip():
        assert HOSTILE[name] not in Page(render_report(report(before, after))).text


def test_text_that_is_shown_is_all_there(judged: list[Reply]) -> None:
    for name in ("script", "closing style", "template", "rich markup"):
        place = list(HOSTILE).index(name)
        before = [reply for reply in judged if reply.seed_id == f"h{place}"]
        assert HOSTILE[name] in Page(render_report(report(before, None), show_text=True)).text


@pytest.mark.parametrize("name", HOSTILE)
def test_the_terminal_shows_hostile_names_as_text(judged: list[Reply], name: str) -> None:
    text = HOSTILE[name][:60]
    console = Console(width=100, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(audit_table(cells(judged)))
        console.print(comparison_table(compare(judged, judged)))
        console.print(arms_table(judged, [Arm(text, "", tuple(judged))]))
    assert not set(capture.get()) & CONTROLS
    capture.get().encode("utf-8")
