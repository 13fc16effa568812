"""The front, and what a plot says in words."""

from __future__ import annotations

from method_comparison.plots import Panel, Point, described, front, label_places, pareto_chart

POINTS = (
    Point("1", 1.0, 0.1, False),
    Point("2", 2.0, 0.5, False),
    Point("3", 2.5, 0.4, True),
    Point("4", 2.0, 0.3, False),
    Point("5", 4.0, 0.5, False),
    Point("6", 5.0, 0.9, True),
)


def test_the_front_is_what_no_other_beats() -> None:
    assert [point.label for point in front(POINTS)] == ["1", "2", "6"]


def test_equals_are_both_on_the_front() -> None:
    twins = (Point("1", 1.0, 0.1, False), Point("2", 1.0, 0.1, True))
    assert len(front(twins)) == 2


def test_a_chart_is_the_same_twice_and_says_what_it_shows() -> None:
    panels = [Panel("seconds", POINTS, logarithmic=True), Panel("damage", ())]
    chart = pareto_chart(panels, "tiny")
    assert chart == pareto_chart(panels, "tiny")
    assert "2 at 2, +0.500 (front)" in described(panels)
    assert described(panels) in chart
    assert "gain against damage: nothing" in chart


def test_labels_of_a_crowd_stand_neither_on_markers_nor_on_each_other() -> None:
    crowd = [(100.0 + 4 * (index % 3), 100.0 + 5 * (index // 3)) for index in range(9)]
    places = label_places(crowd, [10.0] * len(crowd))
    middles = [(x + dx, y + dy) for (x, y), (dx, dy) in zip(crowd, places, strict=True)]
    for index, (x, y) in enumerate(middles):
        assert all(abs(x - other[0]) >= 8 or abs(y - other[1]) >= 7 for other in crowd)
        assert all(abs(x - other[0]) >= 10 or abs(y - other[1]) >= 8 for other in middles[:index])


def test_costs_below_zero_have_a_place() -> None:
    points = (Point("1", -0.004, 0.1, False), Point("2", 0.0, 0.2, False), Point("3", 1.2, 0.3, True))
    assert "gain against over-refusal: 1 at -0.004" in pareto_chart([Panel("over-refusal", points)], "tiny")
