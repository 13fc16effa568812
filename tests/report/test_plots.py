"""Charts: well-formed, labelled, deterministic, in the page's colours, safe for hostile names."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from lingualign.evaluate.metrics import cells
from lingualign.evaluate.verdict import compare
from lingualign.report.data import ReportData
from lingualign.report.plots import (
    MOST_SPECTRA,
    arms_chart,
    refusal_chart,
    side_effects_chart,
    spectrum_chart,
)

from .make_sample import ANCHORS

SVG = "{http://www.w3.org/2000/svg}"


def diagnostics(count: int = 3) -> list[dict[str, object]]:
    return [
        {
            "tensor": f"model.layers.{layer}.mlp.down_proj.weight",
            "layer": layer,
            "rank": 2,
            "singular_values": [3.0, 1.0, 0.0],
        }
        for layer in range(count)
    ]


@pytest.fixture(scope="module")
def charts(data: ReportData) -> dict[str, str]:
    assert data.after is not None
    before, after = cells(data.before), cells(data.after)
    return {
        "refusal": refusal_chart(before, after, reference="en", anchor_languages=ANCHORS),
        "side-effects": side_effects_chart(before, after, reference="en", anchor_languages=ANCHORS),
        "arms": arms_chart([("this edit", compare(data.before, data.after))]),
        "spectrum": spectrum_chart(diagnostics()),
    }


def texts(chart: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(chart).iter(f"{SVG}text")]


def test_charts_are_labelled_images_without_fixed_size(charts: dict[str, str]) -> None:
    for chart in charts.values():
        root = ElementTree.fromstring(chart)
        assert root.get("role") == "img"
        assert len(root.get("aria-label") or "") > 40
        assert root.get("width") is None
        assert re.fullmatch(r"0 0 [\d.]+ [\d.]+", root.get("viewBox") or "")


def test_ids_are_unique_over_the_page_and_references_hold(charts: dict[str, str]) -> None:
    page = "".join(charts.values())
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', page)) <= set(ids)


def test_same_data_same_bytes(charts: dict[str, str]) -> None:
    assert spectrum_chart(diagnostics()) == charts["spectrum"]


def test_colours_follow_the_page(charts: dict[str, str]) -> None:
    for chart in charts.values():
        assert "var(--ink, #1b1f24)" in chart
        bare = re.sub(r"var\([^)]*\)", "", chart)
        assert not re.findall(r"(?:fill|stroke): #[0-9a-f]{6}", bare)


def test_rows_reference_then_anchors_then_unseen(charts: dict[str, str]) -> None:
    shown = texts(charts["refusal"])
    order = ["Thai (th)", "Swahili (sw)", "Japanese (ja)", "German (de)"]
    assert [text for text in shown if text in order] == order
    assert shown.index("English (en)") < shown.index("Chinese (zh)")
    assert {"Reference", "Anchors (in the edit)", "Unseen by the edit"} <= set(shown)


def test_description_reads_the_figures_out(charts: dict[str, str], data: ReportData) -> None:
    cell = next(cell for cell in cells(data.before) if (cell.language, cell.kind) == ("th", "harmful"))
    assert f"Thai (th) {cell.refusal_rate:.2f} before" in charts["refusal"]


def test_audit_alone_has_no_legend(audit_only: ReportData) -> None:
    shown = texts(refusal_chart(cells(audit_only.before), None, reference="en"))
    assert not {"before", "after", "Reference"} & set(shown)


def test_spectra_are_limited_and_need_values() -> None:
    assert spectrum_chart([]) == ""
    assert spectrum_chart([{"tensor": "a.weight", "rank": 4}]) == ""
    titles = [text for text in texts(spectrum_chart(diagnostics(MOST_SPECTRA + 6))) if text.startswith("layer")]
    assert len(titles) == MOST_SPECTRA
    assert titles[0] == "layer 0 · down_proj"


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", "$\\frac{1}{0}$ $x$", "nul\x00", "\ud800", "x" * 1_000_000]
)
def test_hostile_names(data: ReportData, name: str) -> None:
    assert data.after is not None
    chart = arms_chart([(name, compare(data.before, data.after))])
    ElementTree.fromstring(chart)
    assert "<script" not in chart
    assert len(chart) < 200_000
    chart.encode("utf-8")
