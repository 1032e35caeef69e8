"""Planning jobs: every cell once, never across machines, and no job much longer than it must be."""

from __future__ import annotations

import itertools
import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checker.domain import Cell, ModelRef, Settings
from checker.errors import UsageError
from checker.matrix.jobs import plan
from checker.matrix.names import wrong_name
from checker.matrix.select import only

FORBIDDEN_IN_ARTIFACTS = '":<>|*?\r\n\\/'
LETTERS = string.ascii_letters + string.digits + "._+-"


def cell(name, baseline="o/m", **settings):
    reference = ModelRef(kind="hub", name=baseline) if baseline else None
    return Cell(id=name, baseline=reference, settings=Settings(**settings))


def ids(cells):
    return [item.id for item in cells]


def jobs_of(cells, *arguments):
    """The jobs as a workflow gets them."""
    return json.loads(json.dumps(plan(cells, *arguments)))["include"]


def named(jobs):
    return [(job["job"], job["cells"]) for job in jobs]


@st.composite
def cell_lists(draw):
    baselines = draw(st.lists(st.sampled_from(["a", "b", "c", "d", "e", None]), max_size=40))
    machines = st.sampled_from([{}, {"gpus": 2}, {"runs_on": ("self-hosted",)}, {"timeout": 60.0}])
    return [
        cell(f"{baseline or f'p{number % 4}'}/q{number}", baseline, **draw(machines))
        for number, baseline in enumerate(baselines)
    ]


@st.composite
def costed(draw):
    """Cells, and the seconds of some of them."""
    cells = draw(cell_lists())
    seconds = st.floats(0.1, 1e4) | st.sampled_from([1.0, 60.0])
    return cells, draw(st.dictionaries(st.sampled_from(ids(cells)), seconds)) if cells else {}


def all_costs(cells, recorded):
    """Seconds of every cell, with the median where nothing is recorded."""
    known = sorted(recorded[item.id] for item in cells if item.id in recorded) or [1.0]
    median = (known[(len(known) - 1) // 2] + known[len(known) // 2]) / 2
    return {item.id: recorded.get(item.id, median) for item in cells}


@given(given_=costed(), max_jobs=st.integers(4, 12))
def test_a_plan_holds_every_cell_once(given_, max_jobs):
    cells, costs = given_
    jobs = jobs_of(cells, max_jobs, costs)
    assert sorted(name for job in jobs for name in job["cells"].split(",")) == sorted(ids(cells))
    assert len(jobs) <= max_jobs
    assert len({job["job"].lower() for job in jobs}) == len(jobs)
    for job in jobs:
        chosen = only(cells, job["cells"].split(","))
        assert ",".join(ids(chosen)) == job["cells"], "in the order of the matrix"
        machines = [(list(item.settings.runs_on) or "ubuntu-latest", item.settings.gpus) for item in chosen]
        assert all(machine == (job["runs-on"], job["gpus"]) for machine in machines)
    assert jobs == jobs_of(cells, max_jobs, dict(reversed(costs.items())))


@given(given_=costed(), max_jobs=st.integers(4, 12))
def test_the_longest_jobs_come_first_and_are_not_much_longer_than_they_must_be(given_, max_jobs):
    cells, costs = given_
    cells = [item for item in cells if item.settings.gpus == 1 and not item.settings.runs_on]  # one kind of machine
    cost = all_costs(cells, costs)
    loads = [sum(cost[name] for name in job["cells"].split(",")) for job in jobs_of(cells, max_jobs, costs)]
    assert loads == sorted(loads, reverse=True)
    if len(loads) == max_jobs:
        groups: dict[str, float] = {}
        for item in cells:
            key = item.baseline.name if item.baseline else item.id.partition("/")[0]
            groups[key] = groups.get(key, 0) + cost[item.id]
        least = max(sum(groups.values()) / max_jobs, *groups.values())
        largest = sorted(groups.values(), reverse=True)
        if len(largest) > max_jobs:  # two of the first n + 1 must share a job
            least = max(least, largest[max_jobs - 1] + largest[max_jobs])
        assert loads[0] <= 4 / 3 * least + 1e-6


@pytest.mark.parametrize("seconds", [(7, 6, 5, 4, 3), (8, 7, 6, 5, 4), (1, 1, 1, 1, 1), (100, 1, 1, 1, 1)])
def test_no_job_is_more_than_a_third_longer_than_the_best_there_is(seconds):
    cells = [cell(f"{name}/x", name) for name in "abcde"]
    costs = dict(zip(ids(cells), map(float, seconds), strict=True))
    best = min(
        max(sum(s for s, n in zip(seconds, where, strict=True) if n == job) for job in range(2))
        for where in itertools.product(range(2), repeat=5)
    )
    longest = sum(costs[name] for name in jobs_of(cells, 2, costs)[0]["cells"].split(","))
    assert best <= longest <= 4 / 3 * best


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
            {"job": "m-2", "cells": "m/big", "runs-on": ["self-hosted", "h100"], "gpus": 2, "timeout-minutes": 150},
            {"job": "r", "cells": "r/a", "runs-on": "ubuntu-latest", "gpus": 1, "timeout-minutes": 32},
        ]
    }


def test_a_cell_without_a_limit_never_shortens_that_of_its_job():
    cells = [cell("m/a", timeout=36_000.0), cell("m/b", timeout=36_000.0), cell("m/c", timeout=None)]
    [limited] = plan(cells[:2])["include"]
    [job] = plan(cells)["include"]
    assert job["timeout-minutes"] == limited["timeout-minutes"] == 1830
    [short] = plan([cell("m/a", timeout=60.0), cells[2]])["include"]
    assert short["timeout-minutes"] == 360


def test_recorded_costs_decide_which_job_is_long():
    cells = [cell(f"{name}/x", name) for name in "abcd"]
    costs = {"a/x": 10.0, "b/x": 10.0, "c/x": 10.0, "d/x": 300.0}
    assert [job["cells"] for job in jobs_of(cells, 2, costs)] == ["d/x", "a/x,b/x,c/x"]
    assert [job["cells"] for job in jobs_of(cells, 2)] == ["a/x,c/x", "b/x,d/x"]


def test_a_cell_without_a_cost_counts_as_the_median():
    cells = [cell(f"{name}/x", name) for name in "abcd"]
    costs = {"a/x": 1.0, "b/x": 100.0, "c/x": 102.0, "other/x": 1e6}
    assert [job["cells"] for job in jobs_of(cells, 2, costs)] == ["b/x,d/x", "a/x,c/x"], "d counts 100, not 1 or 1e6"


def test_machines_share_the_jobs_by_what_they_have_to_do():
    cells = [cell(f"{name}/x", name, gpus=gpus) for gpus in (1, 2) for name in (f"a{gpus}", f"b{gpus}", f"c{gpus}")]
    costs = {item.id: 100.0 if item.settings.gpus == 2 else 10.0 for item in cells}
    assert sorted(job["gpus"] for job in jobs_of(cells, 4, costs)) == [1, 2, 2, 2]
    costs = {item.id: 100.0 if item.settings.gpus == 2 else 90.0 for item in cells}
    assert sorted(job["gpus"] for job in jobs_of(cells, 4, costs)) == [1, 1, 2, 2]


def test_the_smallest_jobs_are_joined_when_there_are_too_many():
    cells = [cell("a/1", "a"), cell("a/2", "a"), cell("b/1", "b"), cell("c/1", "c"), cell("d/1", "d")]
    assert named(jobs_of(cells, 3)) == [("a", "a/1,a/2"), ("b-and-1-more", "b/1,d/1"), ("c", "c/1")]


def test_kinds_of_machines_cannot_be_joined():
    with pytest.raises(UsageError, match="2 kinds of machines"):
        plan([cell("a/1"), cell("a/2", gpus=2)], 1)


def test_an_empty_plan():
    assert plan([]) == {"include": []}


@given(names=st.lists(st.text(LETTERS, min_size=1, max_size=3).filter(lambda name: not wrong_name(name)), max_size=8))
def test_names_of_jobs_are_names_of_artifacts(names):
    cells = [cell(f"{name}/{number}", None, gpus=number % 3) for number, name in enumerate(names)]
    jobs = jobs_of(cells, 5)
    assert not [job for job in jobs if {*job["job"]} & {*FORBIDDEN_IN_ARTIFACTS} or not job["job"]]
    assert len({job["job"].lower() for job in jobs}) == len(jobs)


def test_names_that_repeat_are_numbered():
    models = ["m", "m", "M", "m-2"]
    cells = [cell(f"{model}/q{number}", None, gpus=number) for number, model in enumerate(models)]
    assert [job["job"] for job in jobs_of(cells)] == ["m", "m-2", "M-3", "m-2-2"]
