"""docs/method-comparison.md and its plots are those of the results in git."""

from __future__ import annotations

from method_comparison.page import DOCS, PAGE, difference_table, render, rows_of
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


def test_a_method_less_the_unedited_model_is_its_gain() -> None:
    records = [record for record in read_records(RESULTS, "report") if record["model"]["name"] == "small"]
    rows = rows_of(records, load_methods())
    edit, nothing = (next(row for row in rows if row.method.name == name) for name in ("sparse-weight-edit", "no-edit"))
    table = difference_table([edit, nothing, *(row for row in rows if not row.runs)], nothing)
    assert edit.gain is not None
    low, high = edit.gain.interval
    # Neither the method itself nor one that was not run has a row.
    (line,) = table.splitlines()[2:]
    assert line.startswith(
        f"| {edit.number} | **sparse-weight-edit** | {edit.gain.difference:+.3f} [{low:+.3f}, {high:+.3f}] |"
    )


def test_a_share_of_a_gap_that_is_not_there_is_left_out() -> None:
    records = read_records(RESULTS, "report")

    def shares(model: str) -> list[float | None]:
        of = [record for record in records if record["model"]["name"] == model]
        row = next(row for row in rows_of(of, load_methods()) if row.method.name == "sparse-weight-edit")
        return [row.gap_closed(row.seen), row.gap_closed(row.unseen)]

    seen, unseen = shares("small")
    assert seen is not None
    assert unseen is not None
    assert 0.5 < min(seen, unseen) <= max(seen, unseen) < 1
    # SmolLM2 refuses as many harmful prompts in the languages without anchors as in English.
    seen, unseen = shares("smollm2-135m")
    assert seen is not None
    assert unseen is None
