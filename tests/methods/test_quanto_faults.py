"""Faults planted in quanto's checkpoints: the check that finds each, and the place that it names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from decoding import CHECKPOINTS, baseline_of
from layer_faults import FIRST, MODULE, Fault, drop, fill, leave_dense, put, roll, swap_layers
from models import Damaged, damage, judge_files

from checker.domain import Severity


def nibbles_swapped(file: Damaged) -> None:
    codes = file.u8(f"{MODULE}.weight._data._data")
    codes[:] = codes >> 4 | codes << 4


FAULTS: dict[str, tuple[str, Fault, str, str]] = {
    "no scale": ("int8", drop("weight._scale"), "layers.complete", f"{MODULE}.weight._scale"),
    "no shift": ("int4", drop("weight._shift"), "layers.complete", f"{MODULE}.weight._shift"),
    "no codes": ("int8", drop("weight._data"), "layers.complete", f"{MODULE}.weight._data"),
    "no scale of the input": ("int8", drop("input_scale"), "layers.complete", f"{MODULE}.input_scale"),
    "scales of another dtype": (
        "int8",
        put("weight._scale", "F32", [128, 1], 512),
        "layers.complete",
        f"{MODULE}.weight._scale",
    ),
    "scales of another shape": (
        "int8",
        put("weight._scale", "F16", [64, 1], 128),
        "layers.complete",
        f"{MODULE}.weight._scale",
    ),
    "scales zero": ("int8", fill("weight._scale", "<f2", 0), "weights.scales", MODULE),
    "scales NaN": ("float8", fill("weight._scale", "<f2", np.nan), "weights.scales", MODULE),
    "scales negative": ("int4", fill("weight._scale", "<f2", -1e-3), "weights.scales", MODULE),
    "scales shifted by a row": ("int8", roll("weight._scale", "<f2"), "weights.error", MODULE),
    "shifts shifted by a row": ("int4", roll("weight._shift", "<f2"), "weights.error", MODULE),
    "halves of the rows swapped": ("int4", nibbles_swapped, "weights.error", MODULE),
    "codes NaN": ("float8", fill("weight._data", "u1", 0x7F), "weights.codes", MODULE),
    "layers swapped": ("int8", swap_layers("weight._data", "weight._scale"), "weights.error", MODULE),
}


def test_a_layer_left_dense(tmp_path: Path):
    healthy = CHECKPOINTS / "quanto" / "int8"
    with damage(healthy, tmp_path / "damaged") as file:
        leave_dense(file)
    judged = judge_files(tmp_path / "damaged", baseline_of(healthy))
    found = {(item.where, item.severity) for item in judged.results["layers.coverage"].findings}
    assert (MODULE, Severity.FAIL) in found, judged.text()


@pytest.mark.parametrize(
    ("entry", "check", "where"),
    [
        ({"weights": "qint4", "activations": "none"}, "config.truthful", f"{MODULE}.weight._data"),
        ({"weights": "qint9", "activations": "none"}, "config.keys", "quantization_config.quantization_map"),
        (None, "layers.excluded", MODULE),
    ],
)
def test_a_map_that_lies(tmp_path: Path, entry: dict[str, str] | None, check: str, where: str):
    healthy = CHECKPOINTS / "quanto" / "int8"
    shutil.copytree(healthy, tmp_path / "damaged")
    path = tmp_path / "damaged" / "quanto_qmap.json"
    entries = json.loads(path.read_text())
    if entry is None:
        del entries[MODULE]
    else:
        entries[MODULE] = entry
    path.write_text(json.dumps(entries))
    judged = judge_files(tmp_path / "damaged", baseline_of(healthy))
    assert where in {item.where for item in judged.results[check].findings}, judged.text()


def test_a_lost_map(tmp_path: Path):
    shutil.copytree(CHECKPOINTS / "quanto" / "int8", tmp_path / "damaged")
    (tmp_path / "damaged" / "quanto_qmap.json").unlink()
    judged = judge_files(tmp_path / "damaged")
    [finding] = judged.results["config.present"].findings
    assert finding.where == f"{FIRST}.weight._data"


@pytest.mark.parametrize("fault", FAULTS)
def test_the_fault_is_found_and_named(tmp_path: Path, fault: str):
    variant, plant, check, where = FAULTS[fault]
    healthy = CHECKPOINTS / "quanto" / variant
    with damage(healthy, tmp_path / "damaged") as file:
        plant(file)
    judged = judge_files(tmp_path / "damaged", baseline_of(healthy))
    found = {(item.where, item.severity) for item in judged.results[check].findings}
    assert (where, Severity.FAIL) in found, judged.text()
