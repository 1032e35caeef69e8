"""Filtering, sharding and planning: every cell exactly once."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checker.domain import Cell, ModelRef, Settings
from checker.errors import UsageError
from checker.matrix.select import only, plan, shard


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


@given(cells=cell_lists(), max_jobs=st.integers(4, 12))
def test_a_plan_holds_every_cell_once(cells, max_jobs):
    jobs = json.loads(json.dumps(plan(cells, max_jobs)))["include"]
    planned = [name for job in jobs for name in job["cells"].split(",")]
    assert sorted(planned) == sorted(ids(cells))
    assert len(jobs) <= max_jobs
    assert len({job["job"] for job in jobs}) == len(jobs)
    for job in jobs:
        chosen = only(cells, job["cells"].split(","))
        machines = [(list(item.settings.runs_on) or "ubuntu-latest", item.settings.gpus) for item in chosen]
        assert all(machine == (job["runs-on"], job["gpus"]) for machine in machines)


def test_a_plan():
    cells = [
        cell("m/nf4", timeout=600.0),
        cell("m/int8", timeout=600.0),
        cell("m/big", gpus=2, runs_on=("self-hosted", "h100"), timeout=3600.0),
        cell("p/a", None),
        cell("p/b", None),
        cell("r/a", None, timeout=61.0),
    ]
    assert plan(cells) == {
        "include": [
            {"job": "m", "cells": "m/nf4,m/int8", "runs-on": "ubuntu-latest", "gpus": 1, "timeout-minutes": 60},
            {"job": "p", "cells": "p/a,p/b", "runs-on": "ubuntu-latest", "gpus": 1, "timeout-minutes": 360},
            {"job": "r", "cells": "r/a", "runs-on": "ubuntu-latest", "gpus": 1, "timeout-minutes": 32},
            {"job": "m-2", "cells": "m/big", "runs-on": ["self-hosted", "h100"], "gpus": 2, "timeout-minutes": 150},
        ]
    }


def test_the_smallest_jobs_are_joined_when_there_are_too_many():
    cells = [cell("a/1", "a"), cell("a/2", "a"), cell("b/1", "b"), cell("c/1", "c"), cell("d/1", "d")]
    jobs = plan(cells, 3)["include"]
    assert sorted((job["job"], job["cells"]) for job in jobs) == [
        ("a", "a/1,a/2"),
        ("b-and-1-more", "b/1,c/1"),
        ("d", "d/1"),
    ]


def test_kinds_of_machines_cannot_be_joined():
    with pytest.raises(UsageError, match="2 kinds of machines"):
        plan([cell("a/1"), cell("a/2", gpus=2)], 1)


def test_an_empty_plan():
    assert plan([]) == {"include": []}
