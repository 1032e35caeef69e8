"""What the reports read out of a cell's measurements, and how they write it."""

from __future__ import annotations

import math

import pytest
from reporters_measured import cell, divergence, healthy, measurements

from checker.domain import Json
from checker.reporters import figures, measured
from checker.reporters.measured import Text
from checker.reporters.passages import text_view


@pytest.mark.parametrize(
    ("value", "number", "figure"),
    [
        (1, 1.0, 1.0),
        (0.5, 0.5, 0.5),
        (True, None, None),
        ("1", None, None),
        ("Infinity", None, math.inf),
        (-math.inf, None, -math.inf),
        (10**400, None, None),
        (None, None, None),
        ([1], None, None),
    ],
)
def test_numbers(value: Json, number: float | None, figure: float | None) -> None:
    assert measured.number(value) == number
    assert measured.figure(value) == figure


def test_a_name_of_no_number() -> None:
    assert math.isnan(measured.figure("NaN") or 0)


def test_layers_are_in_running_order_and_block_10_is_after_block_9() -> None:
    layers = measured.layers(healthy())
    names = [layer.name for layer in layers]
    assert len(names) == 48
    assert names[0] == "model.layers.0.mlp.down_proj"
    assert names.index("model.layers.9.mlp.up_proj") < names.index("model.layers.10.mlp.up_proj")
    assert (layers[0].nrmse, layers[0].sqnr_db) == (0.0935, 20.6)


def test_layers_are_read_again_when_they_are_others() -> None:
    first = cell("a", measurements={"weights": [{"layer": "x", "R": 1.0}]})
    second = cell("a", measurements={"weights": [{"layer": "x", "R": 2.0}]})
    assert [layer.ratio for result in (first, second, first) for layer in measured.layers(result)] == [1.0, 2.0, 1.0]


def test_the_worst_layer_may_be_no_number() -> None:
    rows = [{"layer": "a", "R": 3.0}, {"layer": "b", "R": "NaN"}, {"layer": "c", "R": 9.0}]
    assert measured.worst_layer(cell("x", measurements={"weights": rows})) == ("b", math.inf)
    assert measured.worst_layer(cell("x", measurements={"weights": rows[::2]})) == ("c", 9.0)
    assert measured.worst_layer(cell("x")) is None


def test_divergence_of_the_contract() -> None:
    found = measured.divergence(healthy())
    assert found is not None
    assert found.kl == measured.Interval(value=0.285, low=0.24, high=0.33)
    assert (found.positions, found.recorded, found.expected) == (256, True, 0.281)
    assert found.histogram[0] == (-3.5, 3)
    assert figures.excess(healthy()) == pytest.approx(0.285 / 0.281)
    assert figures.excess(cell("x")) is None


def test_bins_that_are_none_are_left_out() -> None:
    bins = [[0.0, 5], [-1.0, 3], [1], "x", [math.nan, 1], [99.0, 1], [0.5, -1], [0.5, True], [0.5, 0.5]]
    found = measured.divergence(cell("x", measurements={"outputs.divergence": divergence() | {"kl_histogram": bins}}))
    assert found is not None
    assert found.histogram == ((-1.0, 3), (0.0, 5))


def test_modules_are_the_worst_first() -> None:
    rows = [{"layer": "a", "error": 0.1}, {"layer": "b", "error": "NaN"}, {"layer": "c", "error": 0.2}, {"layer": "d"}]
    found = measured.modules(cell("x", measurements={"outputs.modules": rows}))
    assert [name for name, _ in found] == ["b", "c", "a"]


def test_sizes_of_files_and_of_the_loaded_model() -> None:
    labels = [entry.label for entry in measured.sizes(healthy())]
    assert labels == ["baseline", "files, predicted", "files", "loaded, predicted", "loaded", "after a forward"]
    assert measured.sizes(cell("x", measurements={"memory.ratio": {"stored_bytes": -1}})) == []


def test_likelihood() -> None:
    assert measured.likelihood(healthy()) == (1.218, 0.888)
    assert measured.likelihood(cell("x", measurements=measurements() | {"outputs.likelihood": {"nll": 1}})) is None


@pytest.mark.parametrize(
    ("figure", "text"),
    [
        (None, ""), (0.0, "0.00"), (0.9988, "0.999"), (1.0, "1.00"), (20.0, "20.0"), (210.5, "210"), (1234.5, "1,234"),
        (-0.013, "−0.0130"), (2.5e7, "2.50e+07"), (math.nan, "NaN"), (math.inf, "∞"), (-math.inf, "−∞"),
    ],
)  # fmt: skip
def test_figures_with_three_digits(figure: float | None, text: str) -> None:
    assert figures.short(figure) == text


@pytest.mark.parametrize(
    ("share", "text"), [(0.746, "74.6%"), (1.0, "100%"), (0.00235, "0.235%"), (41.0, "41.0×"), (math.nan, "NaN")]
)
def test_shares(share: float, text: str) -> None:
    assert figures.percent(share) == text


def _sides(text: str, baseline: str | None, same: int | None) -> list[tuple[str, str, str]]:
    return [parts for _, parts in text_view(Text(prompt="p", text=text, baseline=baseline, same=same)).sides]


def test_the_first_difference_is_marked_to_the_end_of_its_word() -> None:
    assert _sides("a bad dog", "a big dog", 3) == [("a b", "ad", " dog"), ("a b", "ig", " dog")]
    assert _sides("one\n\ntwo", "one two", 3) == [("one", "\n\ntwo", ""), ("one", " two", "")]
    assert _sides("one", "one two", 3) == [("one", "", ""), ("one", " two", "")]
    assert _sides("one", None, None) == [("one", "", "")]


def test_long_texts_are_cut_around_the_difference() -> None:
    (before, mark, after), _ = _sides("a" * 5_000 + "b c" + "d" * 5_000, "a" * 5_000 + "x", 5_000)
    assert before == "…" + "a" * 600
    assert mark == "b"
    assert after == " c" + "d" * 598 + "… and 4,402 more characters"
    assert _sides("a" * 5_000, None, None)[0][0] == "a" * 600 + "… and 4,400 more characters"


def test_what_one_cannot_see_in_a_text_is_shown() -> None:
    assert _sides("a\u202eb\n\tc\x00", None, None)[0][0] == "a\\u202eb\n\\tc\\x00"


def test_how_far_two_texts_agree_is_said() -> None:
    found = measured.texts(healthy())
    assert [text.same for text in found] == [11, 8, None]
    notes = [text_view(text).notes for text in found]
    assert notes == [("the same for 11 characters", "agreement 97.0%"), ("both are the same", "agreement 100%"), ()]
    assert text_view(Text(prompt="p", text="a", baseline="b", same=0)).notes == (
        "different from the first character on",
    )
    assert [text_view(text).verdict for text in found] == ["yes", "", "no"]
