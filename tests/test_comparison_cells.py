"""Two runs cell by cell: which cells are in both, what surrounds them, and the exit code."""

from __future__ import annotations

import dataclasses

import pytest
from comparison_parts import cell as make
from comparison_parts import change, check, run

from checker.comparison import Replaced, compare
from checker.domain import (
    Cell,
    CellResult,
    Depth,
    Environment,
    ExitCode,
    ModelRef,
    Settings,
    Severity,
)
from checker.errors import UsageError


def statuses(comparison):
    return {item.id: item.status for item in comparison.cells}


def test_a_run_is_as_it_was():
    same = run(make("a"), make("b"))
    found = compare(same, same)
    assert statuses(found) == {"a": "unchanged", "b": "unchanged"}
    assert (found.surroundings, found.exit_code) == ((), ExitCode.PASSED)


def test_cells_of_one_report_are_told_and_are_not_worse():
    old, new = run(make("a"), make("gone", checks=check("fail"))), run(make("a"), make("new", checks=check("fail")))
    found = compare(old, new)
    assert statuses(found) == {"gone": "gone", "new": "appeared", "a": "unchanged"}
    assert found.exit_code is ExitCode.PASSED
    assert [(item.old, item.new) for item in found.cells] == [("fail", None), (None, "fail"), ("pass", "pass")]


def test_the_worst_cell_comes_first():
    old = run(*(make(name, checks=check(name)) for name in ("fail", "skip", "pass", "warn")), make("gone"))
    new = run(
        *(make(name, checks=check("warn" if name != "pass" else "fail")) for name in ("skip", "fail", "pass", "warn"))
    )
    found = compare(old, dataclasses.replace(new, planned=(*new.planned, "x"), cells=(*new.cells, make("x"))))
    assert [(item.id, item.status) for item in found.cells] == [
        ("pass", "worse"),
        ("gone", "gone"),
        ("x", "appeared"),
        ("skip", "changed"),
        ("fail", "better"),
        ("warn", "unchanged"),
    ]
    assert found.exit_code is ExitCode.FAILED


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        pytest.param(run(make("a")), run(make("b")), ExitCode.NOTHING_CHECKED, id="no cell in common is no success"),
        pytest.param(run(make("a")), run(), ExitCode.NOTHING_CHECKED, id="every cell is gone"),
        pytest.param(run(shard="1/2"), run(shard="1/2"), ExitCode.PASSED, id="two empty shards"),
        pytest.param(run(make("a"), make("b")), run(make("a")), ExitCode.PASSED, id="one cell is compared"),
    ],
)
def test_the_exit_code_where_cells_are_missing(old, new, code):
    assert compare(old, new).exit_code is code


def test_a_planned_cell_that_was_not_reported_is_unverified():
    old = run(make("a"), make("b"))
    new = dataclasses.replace(old, cells=old.cells[:1])
    found = compare(old, new)
    assert statuses(found) == {"b": "worse", "a": "unchanged"}
    assert found.cells[0].checks[0].reason == "not-run: the cell was planned, and the report does not hold it"


@pytest.mark.parametrize("swapped", [False, True], ids=["the new one is a part", "the old one is a part"])
def test_the_cells_of_other_shards_are_neither_worse_nor_lost(swapped):
    whole = run(make("a"), make("b"))
    part = dataclasses.replace(whole, cells=whole.cells[:1], shard="1/2")
    found = compare(part, whole) if swapped else compare(whole, part)
    assert statuses(found) == {"b": "appeared" if swapped else "gone", "a": "unchanged"}
    assert found.cells[0].note == "that report is of shard 1/2, and another shard has it"


def test_a_part_from_which_a_cell_was_taken_out():
    found = compare(run(make("a"), make("b")), run(make("a"), shard="1/2"))
    assert (found.cells[0].status, found.cells[0].note) == ("gone", "")


def test_a_cell_that_stands_twice_in_a_report():
    with pytest.raises(UsageError, match=r"holds the cell 'x\\ny' twice"):
        compare(run(make("a")), run(make("x\ny"), make("x\ny")))


def test_versions_and_devices():
    old = Environment(python="3.11", packages={"torch": "2.10", "gone": "1", "same": "1"}, device="cpu")
    new = Environment(python="3.12", packages={"torch": "2.11", "same": "1", "new": "1"}, device="H200", driver="580")
    found = compare(run(make(), environment=old), run(make(), environment=new, interrupted=ExitCode.INTERRUPTED))
    assert [(item.what, item.old, item.new) for item in found.surroundings] == [
        ("torch", "2.10", "2.11"),
        ("gone", "1", None),
        ("python", "3.11", "3.12"),
        ("device", "cpu", "H200"),
        ("driver", None, "580"),
        ("run", "complete", "interrupted"),
        ("new", None, "1"),
    ]


def test_another_matrix_is_told_where_both_had_one():
    old, new = (run(make(), matrix_sha256=digit * 64) for digit in "ab")
    (fact,) = compare(old, new).surroundings
    assert fact == Replaced(what="matrix", old="a" * 12, new="b" * 12)
    assert compare(run(make()), new).surroundings == ()


def whereabouts(name: str, revision: str, depth: Depth = Depth.FULL, **settings) -> CellResult:
    baseline = ModelRef(kind="hub", name="org/base", revision="main")
    checkpoint = ModelRef(kind="folder", name="./models/x")
    return CellResult(
        cell=Cell(id=name, baseline=baseline, checkpoint=checkpoint, settings=Settings(depth=depth)),
        checks=check("pass"),
        baseline_revision=revision,
        **settings,
    )


def test_facts_of_a_cell():
    old = whereabouts("a", "1" * 40, method="gptq", measurements={"libraries": {"bitsandbytes": "0.49.2"}})
    new = whereabouts("a", "2" * 40, Depth.LOAD, method="awq", device="cuda:0")
    found = change(old, new)
    assert found.status == "changed"
    assert [(item.what, item.old, item.new) for item in found.facts] == [
        ("baseline", f"org/base@{'1' * 40}", f"org/base@{'2' * 40}"),
        ("method", "gptq", "awq"),
        ("depth", "full", "load"),
        ("device", None, "cuda:0"),
        ("bitsandbytes", "0.49.2", None),
    ]


def test_what_changed_in_all_cells_is_told_once():
    old = run(whereabouts("a", "1"), whereabouts("b", "1"), make("gone"))
    new = run(whereabouts("a", "2", Depth.LOAD), whereabouts("b", "2"))
    found = compare(old, new)
    assert [item.what for item in found.surroundings] == ["baseline"]
    assert statuses(found) == {"gone": "gone", "a": "changed", "b": "unchanged"}
    assert [item.what for item in found.cells[1].facts] == ["depth"]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [(10.0, 16.0, True), (16.0, 10.0, True), (10.0, 14.9, False), (0.5, 1.2, False), (5.0, 5.0, False)],
)
def test_time_is_told_and_never_judged(old, new, told):
    found = change(make(seconds=old), make(seconds=new))
    assert found.seconds == ((old, new) if told else None)
    assert found.status == "unchanged"


def texts(*pairs):
    return make(measurements={"texts": [{"prompt": prompt, "text": text} for prompt, text in pairs]})


def test_the_first_difference_of_a_text():
    old = texts(("p", "Paris, of course"), ("p", "again"), ("q", "same"), ("r", "short"), ("s", "x"))
    new = texts(("p", "Paris. Of course"), ("p", "again"), ("q", "same"), ("r", "shorter"), ("t", "x"))
    found = change(old, new)
    assert [(item.prompt, item.position) for item in found.texts] == [("p", 5), ("r", 5)]
    assert (found.texts[0].old, found.texts[0].new) == ("Paris, of course", "Paris. Of course")
    assert found.status == "changed"


@pytest.mark.parametrize(("fail_on", "code"), [("fail", 0), ("warn", 1)])
def test_warnings_count_where_they_are_asked_to(fail_on, code):
    found = compare(run(make()), run(make(checks=check("warn"))), Severity(fail_on))
    assert found.exit_code == code
