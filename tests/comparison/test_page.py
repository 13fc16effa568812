"""docs/method-comparison.md and its plots are those of the results in git."""

from __future__ import annotations

from method_comparison.page import DOCS, PAGE, render
from method_comparison.plots import described
from method_comparison.record import RESULTS, read_records
from method_comparison.registry import MODELS, load_methods, load_model_file, names


def test_the_page_is_that_of_the_results() -> None:
    models = {name: load_model_file(name) for name in names(MODELS)}
    text, charts = render(read_records(RESULTS, "report"), load_methods(), models, "report")
    assert (DOCS / PAGE).read_text(encoding="utf-8") == text
    drawn = {path.stem for path in (DOCS / "method-comparison").glob("*.svg")}
    assert drawn == charts.keys()
    for name, panels in charts.items():
        assert described(panels) in (DOCS / "method-comparison" / f"{name}.svg").read_text(encoding="utf-8")
