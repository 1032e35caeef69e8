"""Geometry: what is drawn lies where the figures say, and never outside."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checker.reporters import plots, sparks
from checker.reporters.plots import Axis, Plot

_any = st.floats() | st.floats(0.5, 2)
_maybe = st.none() | _any


def _coordinates(plot: Plot) -> list[float]:
    return [float(text) for path in plot.paths.values() for text in re.findall(r"-?\d+(?:\.\d+)?", path)]


def _inside(plot: Plot) -> bool:
    assert not re.search(r"[^MLHVZh\d. ]", "".join(plot.paths.values()))
    places = [tick.at for tick in (*plot.rows, *plot.columns)] + [at for mark in plot.marks for at in (mark.x, mark.y)]
    return all(0 <= place <= 100 for place in places + _coordinates(plot))


def test_ratios_around_one() -> None:
    plot = plots.ratios([0.95, 1.0, 0.97, 4.0], [3], [1.5])
    axis = Axis(low=0.7 / 1.1, high=4.4, log=True)
    assert plot.paths["bad"] == f"M87.5 {100 - axis.at(4.0):.1f}h0"
    assert plot.paths["dots"].count("M") == 3
    assert plot.paths["one"] == f"M0 {100 - axis.at(1.0):.1f}H100"
    assert plot.paths["limit0"] == f"M0 {100 - axis.at(1.5):.1f}H100"
    assert [(mark.number, mark.x) for mark in plot.marks] == [(1, 87.5)]
    assert [tick.text for tick in plot.rows] == ["1", "2"] or len(plot.rows) >= 3


def test_no_number_lies_at_the_top_and_the_worst_five_are_numbered() -> None:
    values = [math.nan, math.inf, *[3.0] * 10]
    plot = plots.ratios(values, list(range(12)), [])
    assert plot.paths["bad"].startswith("M4.2 0h0M12.5 0h0")
    assert [mark.number for mark in plot.marks] == [1, 2, 3, 4, 5]


def test_thousands_of_layers_are_columns_from_least_to_largest() -> None:
    values = [1.0] * 30_000
    values[29_999] = 8.0
    plot = plots.ratios(values, [29_999], [])
    assert plot.paths["columns"].count("M") == 200
    assert "dots" not in plot.paths
    assert plot.paths["columns"].rpartition("V")[2] == f"{100 - Axis(low=0.7 / 1.1, high=8.8, log=True).at(8.0):.1f}"
    assert len(plot.paths["columns"]) < 4_000


def test_blocks_have_a_line_and_dots() -> None:
    plot = plots.blocks([0.1, 0.2, None, 0.4], [None, 0.3, 0.2, None], 1)
    assert plot.paths["line"].count("L") == 2
    assert plot.paths["area"].endswith("V100H12.5Z")
    assert plot.paths["dots"].count("h0") == 2
    assert [(mark.x, mark.number) for mark in plot.marks] == [(37.5, 1)]
    assert [tick.text for tick in plot.rows] == ["0%", "10%", "20%", "30%", "40%"]
    assert plots.blocks([None, math.nan], [None, None], 0) == Plot(paths={})
    assert plots.blocks([0.1, 0.2], [None, None]).marks == ()
    assert plots.blocks([0.1, None], [None, None], 1).marks[0].y == 100


def test_the_histogram_reaches_from_the_first_bin_to_the_last() -> None:
    plot = plots.histogram([(-2.0, 5), (-1.5, 10), (0.0, 1)], (0.1, 0.05, 0.2), 0.05)
    bars = plot.paths["bars"].split("Z")
    assert bars[0].startswith("M0.3 100V")
    assert bars[2].startswith("M80.3 100V")
    assert [tick.text for tick in plot.columns] == ["0.01", "0.1", "1"]
    assert plot.paths["mean"] == "M40 0V100"
    assert plot.paths["expected"] == "M28 0V100"


def test_the_mean_is_always_on_the_histogram() -> None:
    plot = plots.histogram([(-1.0, 5)], (20.0, 19.0, 21.0), None)
    assert _inside(plot)
    assert plot.columns[-1].text == "10"


@given(st.lists(_any, min_size=1, max_size=30), st.lists(_any, max_size=2), st.data())
def test_any_ratios_stay_inside(values: list[float], limits: list[float], data: st.DataObject) -> None:
    flagged = data.draw(st.lists(st.integers(0, len(values) - 1), unique=True))
    assert _inside(plots.ratios(values, flagged, limits))


@given(st.lists(st.tuples(_maybe, _maybe), min_size=1, max_size=20), st.data())
def test_any_blocks_stay_inside(rows: list[tuple[float | None, float | None]], data: st.DataObject) -> None:
    marked = data.draw(st.none() | st.integers(0, len(rows) - 1))
    assert _inside(plots.blocks([drift for drift, _ in rows], [error for _, error in rows], marked))


@given(
    st.lists(st.tuples(st.floats(-12, 12), st.integers(1, 10**9)), max_size=6).map(sorted),
    st.none() | st.tuples(_any, _any, _any),
    _maybe,
)
def test_any_histogram_stays_inside(
    bins: list[tuple[float, int]], mean: tuple[float, float, float] | None, expected: float | None
) -> None:
    assert _inside(plots.histogram(bins, mean, expected))


@pytest.mark.parametrize(
    ("axis", "texts"),
    [
        (Axis(low=0.64, high=1.76, log=True), ["0.7", "1", "1.5"]),
        (Axis(low=0.6, high=230, log=True), ["1", "10", "100"]),
        (Axis(low=0.6, high=3e7, log=True), ["1", "100", "10000", "1e+06"]),
        (Axis(low=0.0, high=0.44), ["0", "0.1", "0.2", "0.3", "0.4"]),
        (Axis(low=0.0, high=9.0), ["0", "2", "4", "6", "8"]),
    ],
    ids=["healthy", "one layer wrong", "all wrong", "tenths", "twos"],
)
def test_ticks_are_few_and_round(axis: Axis, texts: list[str]) -> None:
    assert [tick.text for tick in axis.ticks()] == texts


@given(st.lists(_any, max_size=50), st.integers(1, 30))
def test_groups_of_neighbours_cover_all(values: list[float], columns: int) -> None:
    groups = plots.binned(values, columns)
    assert len(groups) == min(columns, len(values))
    clean = [math.inf if math.isnan(value) else value for value in values]
    assert max((most for _, most in groups), default=0) == max(clean, default=0)
    assert min((least for least, _ in groups), default=0) == min(clean, default=0)


def test_a_line_of_bars_shows_one_bad_layer_among_thousands() -> None:
    values = [0.95] * 5_000
    assert sparks.ratios(values) == "▁" * 24
    values[2_500] = 210.0
    assert sparks.ratios(values) == "▁" * 12 + "█" + "▁" * 11
    assert sparks.ratios([1.2, 3.0, 9.9, math.nan]) == "▂▄▇█"
    assert sparks.ratios([]) == ""


@pytest.mark.parametrize(
    ("times", "bar"),
    [(0.0, "░░░░│░░░░░░░░"), (0.75, "███░│░░░░░░░░"), (1.0, "████│░░░░░░░░"), (2.1, "████│████░░░░"),
     (3.0, "████│████████"), (3.1, "████│████████▶"), (math.nan, "████│████████▶"), (-1.0, "░░░░│░░░░░░░░")],
)  # fmt: skip
def test_a_bar_for_the_divergence(times: float, bar: str) -> None:
    assert sparks.excess(times) == bar


def test_a_bar_for_a_share() -> None:
    assert [sparks.share(part) for part in (-1, 0.42, 7)] == ["░" * 10, "████░░░░░░", "█" * 10]
