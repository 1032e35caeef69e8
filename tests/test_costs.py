"""What is recorded of a cell's seconds: few changes in the file, and nothing believed of a damaged one."""

from __future__ import annotations

import contextlib
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checker import costs
from checker.domain import Cell, CellResult, CheckError, CheckResult, ErrorKind
from checker.errors import Unavailable

CRASH = CheckError(kind=ErrorKind.CRASH, message="the worker is gone")


def ran(name, seconds, *checks, attempts=1):
    return CellResult(cell=Cell(id=name), checks=checks, seconds=seconds, attempts=attempts)


def document(seconds, **others):
    return json.dumps({"schema": costs.SCHEMA, "seconds": seconds, **others})


@pytest.mark.parametrize(
    ("seconds", "recorded"),
    [(0.004321, 0.0043), (0.8449, 0.84), (9.96, 10), (12.34, 12), (1234.5, 1200), (5e9, 10_000_000)],
)
def test_two_digits_are_recorded(tmp_path, seconds, recorded):
    costs.write(tmp_path / "new/costs.json", costs.updated({}, [ran("a/x", seconds)]))
    assert costs.read(tmp_path / "new/costs.json") == {"a/x": recorded}
    assert f'"a/x": {recorded}\n' in (tmp_path / "new/costs.json").read_text()


@pytest.mark.parametrize(
    ("before", "now", "after"),
    [(40, 31, 40), (40, 49, 40), (40, 51, 51), (40, 29, 29), (0.5, 1.4, 0.5), (0.5, 1.6, 1.6), (2.5, 1.6, 2.5)],
)
def test_a_time_that_is_about_what_it_was_stays(before, now, after):
    assert costs.updated({"a/x": before}, [ran("a/x", now)]) == {"a/x": after}


def test_a_cell_that_did_not_run_to_a_verdict_tells_nothing():
    cells = [
        ran("a/crashed", 5.0, CheckResult(id="x", error=CRASH)),
        ran("a/twice", 5.0, CheckResult(id="x"), attempts=2),
        ran("a/never", 0.0),
        ran("a/failed", 5.0, CheckResult(id="x", skip_reason="no")),
    ]
    assert costs.updated({"a/twice": 2.0, "other/y": 7}, cells) == {"a/twice": 2.0, "other/y": 7, "a/failed": 5.0}


def test_what_is_written_is_sorted_a_cell_on_a_line(tmp_path):
    path = tmp_path / "costs.json"
    costs.write(path, {"b/x": 3, "a/y": 0.5})
    assert path.read_text().splitlines() == [
        "{",
        ' "schema": "quant-verify/costs/1",',
        ' "seconds": {',
        '  "a/y": 0.5,',
        '  "b/x": 3',
        " }",
        "}",
    ]
    costs.write(path, {"a/y": 0.5, "b/x": 3})
    assert [item.name for item in tmp_path.iterdir()] == ["costs.json"]


def test_there_is_nothing_where_there_is_no_file(tmp_path):
    assert costs.read(tmp_path / "costs.json") == {}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "it is not JSON, or a key stands twice in it"),
        ("<<<<<<< HEAD\n{}\n", "it is not JSON"),
        ('{"a/x": 1, "a/x": 2}', "a key stands twice"),
        (document({"a": 1}).replace('"a": 1', '"a": 1, "a": 2'), "a key stands twice"),
        ("[" * 100_000, "it is not JSON"),
        ("\ud800", "it is not JSON"),
        ("[]", "it does not have the schema quant-verify/costs/1"),
        ("{}", "it does not have the schema"),
        (document({}).replace("/1", "/2"), "it does not have the schema"),
        (document({}, more=1), "it does not have the schema"),
        (document([]), "its 'seconds' are not a positive number for each cell"),
        (document({"a": True}), "a positive number"),
        (document({"a": "1"}), "a positive number"),
        (document({"a": None}), "a positive number"),
        (document({"a": 0}), "a positive number"),
        (document({"a": -1}), "a positive number"),
        (document({"a": float("nan")}), "a positive number"),
        (document({"a": float("inf")}), "a positive number"),
        (document({"a": 10**400}), "a positive number"),
        (document({"a": 1}).replace("1}}", "9" * (sys.get_int_max_str_digits() + 1) + "}}"), "it is not JSON"),
        (document({}) + " " * costs.LARGEST_FILE, "it has more than 4,194,304 bytes"),
    ],
    ids=str,
)
def test_a_damaged_file_is_one_sentence(tmp_path, content, reason):
    path = tmp_path / "costs.json"
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(Unavailable) as caught:
        costs.read(path)
    assert str(caught.value).startswith(f"the recorded costs in {path} cannot be used: ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(Unavailable, match="cannot be used: is a directory"):
        costs.read(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match=r"cannot write .*/file/costs.json"):
        costs.write(tmp_path / "file/costs.json", {})


values = st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3) | st.just([])
documents = st.fixed_dictionaries(
    {"schema": st.sampled_from([costs.SCHEMA, "other/1", 1]), "seconds": st.dictionaries(st.text(), values) | values}
)


@given(content=st.binary(max_size=60) | documents.map(lambda value: json.dumps(value).encode()))
def test_any_file_is_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any-costs.json"
    path.write_bytes(content)
    with contextlib.suppress(Unavailable):
        seconds = costs.read(path)
        assert all(0 < value <= costs.LONGEST for value in seconds.values())
        costs.write(path, seconds)
        assert costs.read(path) == seconds
