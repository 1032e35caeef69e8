"""Filtering and sharding: every cell exactly once."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checker.domain import Cell, ModelRef, Settings
from checker.errors import UsageError
from checker.matrix.select import only, shard


def cell(name, baseline="o/m", **settings):
    reference = ModelRef(kind="hub", name=baseline) if baseline else None
    return Cell(id=name, baseline=reference, settings=Settings(**settings))


def ids(cells):
    return [item.id for item in cells]


@st.composite
def cell_lists(draw):
    baselines = draw(st.lists(st.sampled_from(["a", "b", "c", "d", "e", None]), max_size=40))
    machines = st.sampled_from([{}, {"gpus": 2}, {"runs_on": ("self-hosted",)}, {"timeout": 60.0}])
    return [
        cell(f"{baseline or f'p{number % 4}'}/q{number}", baseline, **draw(machines))
        for number, baseline in enumerate(baselines)
    ]


CELLS = [cell("m/nf4"), cell("m/int8"), cell("n/nf4", "o/n")]


@pytest.mark.parametrize(
    ("globs", "expected"),
    [
        ([], ["m/nf4", "m/int8", "n/nf4"]),
        (["*nf4"], ["m/nf4", "n/nf4"]),
        (["n/*", "m/int8"], ["m/int8", "n/nf4"]),
    ],
    ids=["all", "a star matches the slash", "two globs, order of the matrix"],
)
def test_only(globs, expected):
    assert ids(only(CELLS, globs)) == expected


@pytest.mark.parametrize(
    ("names", "glob", "expected"),
    [
        (["m/a", "m/ab"], "m/a", ["m/a"]),
        (["./a*", "./ab", "./b"], "./a*", ["./a*", "./ab"]),
        (["./[x]", "./x"], "./[x]", ["./[x]", "./x"]),
    ],
    ids=["an id is itself alone", "an id that is a glob is both", "an id in brackets can be named"],
)
def test_an_id_is_a_glob_of_itself(names, glob, expected):
    assert ids(only([cell(name) for name in names], [glob])) == expected


def test_a_job_may_name_thousands_of_cells():
    cells = [cell(f"m/q{number}") for number in range(10_000)]
    begin = time.perf_counter()
    assert only(cells, ids(cells)) == tuple(cells)
    assert time.perf_counter() - begin < 2, "one glob at a time, each against all ids, takes a minute"


def test_only_refuses_a_glob_that_matches_nothing():
    with pytest.raises(UsageError, match=r"no cell matches 'm/nf5' \(did you mean 'm/nf4'\?\)"):
        only(CELLS, ["m/nf4", "m/nf5"])


@given(cells=cell_lists(), count=st.integers(1, 12))
def test_shards_are_a_balanced_partition(cells, count):
    shards = [shard(cells, index, count) for index in range(1, count + 1)]
    assert sorted(ids(item for part in shards for item in part)) == sorted(ids(cells))
    share = math.ceil(len(cells) / count)
    assert max(map(len, shards)) <= max(0, 2 * share - 1)
    assert all(list(part) == [item for item in cells if item in part] for part in shards)
    for baseline in {item.baseline for item in cells if item.baseline}:
        size = sum(item.baseline == baseline for item in cells)
        holders = sum(any(item.baseline == baseline for item in part) for part in shards)
        assert holders <= math.ceil(size / share), "a baseline is cut only when it is larger than a fair share"


def test_one_baseline_stays_together():
    cells = [cell(f"{name}/{number}", name) for number in range(2) for name in "abc"]
    assert [ids(shard(cells, index, 3)) for index in (1, 2, 3)] == [["a/0", "a/1"], ["b/0", "b/1"], ["c/0", "c/1"]]


@pytest.mark.parametrize(("index", "count"), [(0, 3), (4, 3), (1, 0), (-1, -1)])
def test_there_is_no_such_shard(index, count):
    with pytest.raises(UsageError, match=f"there is no shard {index}/{count}"):
        shard(CELLS, index, count)


def test_more_shards_than_cells_are_empty():
    assert shard(CELLS, 10**9, 10**9) == ()
    assert shard([], 1, 1) == ()
