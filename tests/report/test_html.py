"""The page: complete, self-contained, redacted by default, safe for hostile text."""

from __future__ import annotations

import errno
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lingualign.errors import DataError, NotEnoughMemory
from lingualign.evaluate.gates import Gate, GateResult
from lingualign.evaluate.verdict import compare, verdict_sentence
from lingualign.report.data import Arm, ReportData
from lingualign.report.html import render_report, write_report
from lingualign.report.wording import LONGEST_TEXT

from .make_sample import GREETINGS, make_replies, rates

VOID = {"meta", "link", "br", "img", "hr", "input", "col"}
HOSTILE = (
    "<script>alert(1)</script>",
    "</bdi></p><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "{{ 7 * 7 }}{% raw %}",
    "abc\u202edcba\u2066",
    "nul\x00byte\x1b[31m",
    "lone \ud800 surrogate",
    "&lt;already&gt;",
)


class Page(HTMLParser):
    """Elements and text of a page; fails on unbalanced tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self._texts: list[tuple[str, list[str]]] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
            self._texts.append((tag, []))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self._texts:
            self._texts[-1][1].append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def headings(self) -> list[str]:
        return ["".join(words).strip() for tag, words in self._texts if tag == "h2"]

    def contents(self) -> list[str]:
        """Texts of the links."""
        return ["".join(words).strip() for tag, words in self._texts if tag == "a"]


SECTIONS = (
    "What was measured",
    "Refusal of harmful prompts",
    "Corrected for the judge's error",
    "Second judge",
    "Over-refusal and broken replies",
    "Controls side by side",
    "Refused in English (en), answered elsewhere",
    "Harmful and following rate",
    "Is it the language?",
    "Language of answers",
    "Language of refusals",
    "Utility and damage",
    "Replies to harmless prompts",
    "Benchmarks",
    "What was done to the model",
    "Example replies",
    "How to read this",
    "Judge, settings, versions, time",
)


@pytest.fixture(scope="module")
def page(data: ReportData) -> str:
    return render_report(data)


@pytest.fixture(scope="module")
def shown(data: ReportData) -> str:
    return render_report(data, show_text=True)


def test_page_is_complete(page: str, data: ReportData) -> None:
    parsed = Page(page)
    assert parsed.headings() == list(SECTIONS)
    assert data.after is not None
    sentence = verdict_sentence(compare(data.before, data.after, anchor_languages=data.anchor_languages))
    for words in (
        sentence,
        data.model_name,
        data.model_fingerprint,
        data.hardware,
        "ngram-2",
        "specificity",
        "Second judgee5-1, κ",
        "mean of 11 languages; judge not valid in th, he",
        "sensitivity",
        "generation.max new tokens",
        "random neurons",
        "The same solve on as many neurons chosen at random.",
        "model.layers.7.mlp.down_proj.weight",
        "219.6 s",
    ):
        assert words in parsed.text


def test_page_loads_nothing_and_runs_nothing(page: str) -> None:
    for tag, attributes in Page(page).elements:
        assert tag not in {"script", "link", "iframe", "object", "img", "base", "form"}
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("href", "xlink:href", "src"):
            assert (attributes.get(name) or "#").startswith("#")
    assert "url(http" not in page
    assert "@import" not in page


def test_page_ids_are_unique(page: str) -> None:
    ids = [attributes["id"] for _, attributes in Page(page).elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_contents_lead_to_every_section(small_data: ReportData) -> None:
    gate = GateResult(Gate("worst_asr", "<=", 0.1), 0.25, False)
    for data in (small_data, replace(small_data, gates=(gate,)), replace(small_data, controls=(), edit_manifest=None)):
        parsed = Page(render_report(data))
        assert parsed.contents() == parsed.headings()
        links = [attributes["href"] for tag, attributes in parsed.elements if tag == "a"]
        sections = [attributes["id"] for tag, attributes in parsed.elements if tag == "section"]
        assert links == [f"#{name}" for name in sections]


def test_same_data_same_page(small_data: ReportData) -> None:
    assert render_report(small_data) == render_report(small_data)


def test_text_is_redacted_unless_asked_for(page: str, shown: str) -> None:
    for text in (*GREETINGS.values(), "I am sorry, but I cannot help with that."):
        assert text not in page
    for text in GREETINGS.values():
        assert text in shown
    for known in ("h001", "characters", "refused"):
        assert known in page


def test_right_to_left_text_is_isolated_and_tagged(shown: str) -> None:
    elements = Page(shown).elements
    languages = {
        attributes.get("lang") for tag, attributes in elements if tag == "bdi" and attributes.get("dir") == "auto"
    }
    assert {"ar", "he", "th", "ja"} <= languages


def test_audit_alone(audit_only: ReportData) -> None:
    parsed = Page(render_report(audit_only))
    expected = [name for name in SECTIONS if name not in {"Controls side by side", "What was done to the model"}]
    assert parsed.headings() == ["Perplexity" if name == "Utility and damage" else name for name in expected]
    assert "Mean refusal of harmful prompts over 13 languages is " in parsed.text
    assert "Squares" not in parsed.text


def test_only_harmful_prompts_in_one_language() -> None:
    replies = make_replies(rates({"en": 0.5}), n=12, kinds=["harmful"])
    after = make_replies(rates({"en": 0.9}), n=12, kinds=["harmful"])
    base = ReportData("t", "m", "f", "cpu", replies, after, "en", (), None, (), {}, {}, {}, {})
    for data in (base, replace(base, after=None), replace(base, reference="th")):
        assert "not measured" in Page(render_report(data, show_text=True)).text


@pytest.mark.parametrize("missing", ["diagnostics", "settings"])
def test_manifest_may_lack_entries(small_data: ReportData, missing: str) -> None:
    manifest = {key: value for key, value in (small_data.edit_manifest or {}).items() if key != missing}
    parsed = Page(render_report(replace(small_data, controls=(), edit_manifest=manifest)))
    assert "keep prompts" in parsed.text
    assert ("Singular values of the solve" in parsed.text) == (missing != "diagnostics")


def test_gates_are_shown(small_data: ReportData) -> None:
    results = (
        GateResult(Gate("worst_asr", "<=", 0.1), 0.25, False),
        GateResult(Gate("refusal_gain", ">=", 0.2), 0.6, True),
    )
    text = Page(render_report(replace(small_data, gates=results))).text
    assert re.search(r"worst_asr<=0\.1\s*0\.250\s*failed\s*refusal_gain>=0\.2\s*0\.600\s*passed", text)


def test_controls_of_other_prompts_are_refused(small_data: ReportData) -> None:
    stranger = Arm(
        "other", "", tuple(replace(reply, seed_id="x" + reply.seed_id) for reply in small_data.controls[0].replies)
    )
    with pytest.raises(DataError):
        render_report(replace(small_data, controls=(stranger,)))


def hostile_data(data: ReportData, text: str) -> ReportData:
    """The text in every place a report shows text."""
    assert data.after is not None
    before, after = (
        tuple(replace(reply, text=text, seed_id=reply.seed_id + text, reply_language=text) for reply in replies)
        for replies in (data.before, data.after)
    )
    return replace(
        data,
        title=text,
        model_name=text,
        model_fingerprint=text,
        hardware=text,
        before=before,
        after=after,
        edit_manifest={
            "method": text,
            text: text,
            "diagnostics": [{"tensor": text, "layer": text, text: text, "rank": text, "singular_values": [2.0, 1.0]}],
        },
        controls=(Arm(text, text, after),),
        settings={text: text, "nested": {"a": text, "b": [text]}},
        versions={text: text},
        timings={text: 1.0},
        judge={"name": text, "languages": {text: {text: text}}},
        split=text,
        prompts={reply.key: text for reply in before},
    )


@pytest.mark.parametrize("show_text", [True, False])
def test_hostile_text_stays_text(small_data: ReportData, show_text: bool, tmp_path: Path) -> None:
    text = " ".join(HOSTILE)
    assert len(text) < LONGEST_TEXT
    path = write_report(hostile_data(small_data, text), tmp_path / "report.html", show_text=show_text)
    page = path.read_bytes().decode("utf-8")
    assert "\x00" not in page
    assert "\x1b" not in page
    assert not set(page) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    test_page_loads_nothing_and_runs_nothing(page)
    assert "<script>alert(1)</script> </bdi></p><img src=x onerror=alert(1)>" in Page(page).text
    assert "{{ 7 * 7 }}{% raw %}" in Page(page).text


def test_a_megabyte_is_cut_with_a_note(small_data: ReportData) -> None:
    page = render_report(hostile_data(small_data, "x" * 1_000_000), show_text=True)
    assert len(page) < 400_000
    assert "… [999,600 more characters]" in page
    assert "x" * 401 not in page


def test_write_is_atomic(small_data: ReportData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "report.html"
    write_report(small_data, path)
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]
    old = path.read_bytes()

    def fail(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(NotEnoughMemory, match="is full"):
        write_report(replace(small_data, title="new"), path)
    assert path.read_bytes() == old
