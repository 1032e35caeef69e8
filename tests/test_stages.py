"""A cell in two halves: which checks its files are enough for, and which worker does what."""

from __future__ import annotations

from dataclasses import replace

import pytest

from checker.domain import Cell, Depth, ModelRef, Settings
from checker.facts import ArtifactFacts, WeightFacts
from checker.protocol import Job
from checker.registry import Check, all_checks
from checker.stages import OF_FILES, rank, stages

FILES, MODEL = "config.keys", "loading.keys"


def job(*checks: str, depth: Depth = Depth.FULL, **fields: object) -> Job:
    cell = Cell(id="a/b", checkpoint=ModelRef(kind="folder", name="./m"), settings=Settings(depth=depth))
    return replace(Job(cell=cell, checks=checks, baseline=None, checkpoint="/m", scratch="/s"), **fields)


def told(*checks: str, **fields: object) -> list[tuple[str, tuple[str, ...], bool]]:
    """(half, checks, whether torch is imported ahead) of each worker."""
    return [(stage.job.stage, stage.job.checks, stage.preload) for stage in stages(job(*checks, **fields))]


@pytest.mark.parametrize("item", all_checks(), ids=lambda item: item.id)
def test_a_check_is_of_the_files_when_only_their_facts_are_asked_for(item: Check):
    deep = {need.kind for need in item.needs} - {ArtifactFacts, WeightFacts}
    model = any(kind.__name__.endswith("Facts") for kind in deep)
    assert (rank(item, Depth.FULL)[0] > OF_FILES) == model


@pytest.mark.parametrize(
    ("wanted", "fields", "expected"),
    [
        pytest.param(
            (MODEL, FILES), {}, [("files", (FILES,), False), ("model", (MODEL,), True)], id="both halves, files first"
        ),
        pytest.param(
            (FILES, MODEL), {"depth": Depth.LOAD}, [("files", (FILES,), False), ("model", (MODEL,), True)], id="load"
        ),
        pytest.param((FILES, MODEL), {"depth": Depth.STATIC}, [("whole", (FILES, MODEL), False)], id="files only"),
        pytest.param((FILES,), {}, [("whole", (FILES,), False)], id="nothing of the model is asked: no torch"),
        pytest.param((MODEL,), {}, [("whole", (MODEL,), True)], id="nothing of the files is asked"),
        pytest.param(("of.nobody",), {}, [("whole", ("of.nobody",), True)], id="an unknown check is the model's"),
        pytest.param(
            (FILES, MODEL), {"checkpoint": None}, [("whole", (FILES, MODEL), True)], id="quantized here: no files yet"
        ),
    ],
)
def test_who_does_what(wanted, fields, expected):
    assert told(*wanted, **fields) == expected


def test_other_libraries_and_gpus_are_for_the_model():
    files, model = stages(job(FILES, MODEL, overlay="/libraries", visible_gpus="0"))
    assert (files.job.overlay, files.job.visible_gpus) == (None, None)
    assert (model.job.overlay, model.job.visible_gpus) == ("/libraries", "0")


def test_with_files_alone_the_libraries_are_still_told():
    [only] = stages(job(FILES, overlay="/libraries"))
    assert only.job.overlay == "/libraries"
