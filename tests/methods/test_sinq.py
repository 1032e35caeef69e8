"""SINQ's files: what headers and side file tell, and planted faults in both."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from decoding import CHECKPOINTS, baseline_of, fixtures_of, method_of, open_fixture, recognise
from models import Damaged, Judged, judge_files, read_tensors, write_tensors
from planted import FAIL, Row, as_dtype, cut_row, dense, drop, fill, no_config, one, setting

from checker.registry import config_flaws

SINQ = method_of("sinq")
WEIGHTS, INDEX = "model-00001-of-00001.safetensors", "model.safetensors.index.json"
SIDECAR = f"{INDEX}.meta.json"
LAYER = "model.layers.0.self_attn.q_proj"
FIRST = "model.layers.0.mlp.down_proj.W_q"
PARTS = ("meta.scale.x", "meta.scale.s", "meta.scale.m", "meta.scale2", "meta.zero.x", "meta.zero.s", "meta.zero.m")


@pytest.mark.parametrize("name", fixtures_of("sinq"))
def test_headers_tell_bits_and_groups(name: str):
    checkpoint, weights = open_fixture("sinq", name)
    alone = {weight.dense: weight for weight in recognise(SINQ, checkpoint)}
    assert alone.keys() == weights.keys()
    config = json.loads((CHECKPOINTS / "sinq" / name / "config.json").read_text())["quantization_config"]
    for weight in alone.values():
        assert weight.attributes == SINQ.declared(config)
        assert not weight.flaws


@pytest.mark.parametrize(
    ("key", "value"),
    [("nbits", 7), ("nbits", "4"), ("group_size", 12), ("group_size", 0), ("tiling_mode", "3D"), ("method", "x")],
)
def test_settings_outside_their_domain_are_named(key: str, value: Any):
    assert [flaw[0] for flaw in config_flaws(SINQ, {"quant_method": "sinq", key: value})] == [key]


def judged(fixture: str, folder: Path, fault: Callable[[Damaged], None], side: Callable[[Path], None]) -> Judged:
    """What the checks say of a damaged copy; SINQ writes one shard with an index, and the side file."""
    healthy, copy = CHECKPOINTS / "sinq" / fixture, folder / "damaged"
    shutil.copytree(healthy, copy)
    tensors, metadata = read_tensors(healthy / WEIGHTS)
    file = Damaged(tensors=tensors, config=json.loads((healthy / "config.json").read_text()), metadata=metadata)
    fault(file)
    write_tensors(copy / WEIGHTS, file.tensors, file.metadata)
    (copy / "config.json").write_text(json.dumps(file.config))
    index = {"metadata": {"total_size": sum(len(tensor.data) for tensor in file.tensors.values())}}
    (copy / INDEX).write_text(json.dumps({**index, "weight_map": dict.fromkeys(file.tensors, WEIGHTS)}))
    side(copy / SIDECAR)
    return judge_files(copy, baseline_of(healthy))


ROWS: list[Row] = [
    *((f"{part} dropped", "w4-g64", drop(f"{LAYER}.{part}"), "layers.complete", (FAIL, f"{LAYER}.{part}"))
      for part in PARTS),
    ("codes dropped", "w4-g64", drop(f"{LAYER}.W_q"), "layers.complete", (FAIL, f"{LAYER}.W_q")),
    ("scale of another dtype", "w4-g64", as_dtype(f"{LAYER}.meta.scale2", "F32"), "layers.complete",
     (FAIL, f"{LAYER}.meta.scale2")),
    ("codes of another dtype", "w4-g64", as_dtype(f"{LAYER}.W_q", "I32"), "dtypes.storage", (FAIL, f"{LAYER}.W_q")),
    ("column scales zero", "w4-g64", fill(f"{LAYER}.meta.scale2", 0), "layers.complete",
     (FAIL, f"{LAYER}.meta.scale2")),
    ("a column scale NaN", "w4-2d", one(f"{LAYER}.meta.scale2", 3, float("nan")), "layers.complete",
     (FAIL, f"{LAYER}.meta.scale2")),
    ("a group scale infinite", "w2-g64", one(f"{LAYER}.meta.scale.s", 1, float("inf")), "layers.complete",
     (FAIL, f"{LAYER}.meta.scale.s")),
    ("a row of codes lost", "w3-g64", cut_row(f"{LAYER}.W_q"), "dtypes.storage", (FAIL, f"{LAYER}.W_q")),
    ("one layer dense", "w4-g64", dense("sinq", "w4-g64", LAYER), "layers.coverage", (FAIL, LAYER)),
    ("config lies about bits", "w3-g64", setting("nbits", 4), "config.truthful", (FAIL, FIRST)),
    ("config lies about the group", "w4-g64", setting("group_size", 128), "config.truthful", (FAIL, FIRST)),
    ("config lies about tiles", "w4-2d", setting("tiling_mode", "1D"), "config.truthful", (FAIL, FIRST)),
    ("config removed", "w4-g64", no_config, "config.present", (FAIL, FIRST)),
    ("listed and quantized", "w4-g64", setting("modules_to_not_convert", ["lm_head", "q_proj"]), "layers.excluded",
     (FAIL, LAYER)),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_planted_fault_is_found_and_named(row: Row, tmp_path: Path):
    _, fixture, fault, check, expected = row
    result = judged(fixture, tmp_path, fault, lambda _: None)
    assert expected in {(item.severity, item.where) for item in result.results[check].findings}, result.text()


def said(**changes: Any) -> Callable[[Path], None]:
    """The side file says something else of the layer."""

    def change(path: Path) -> None:
        document = json.loads(path.read_text())
        document[LAYER]["meta"].update(changes)
        path.write_text(json.dumps(document))

    return change


SIDE: list[tuple[str, Callable[[Path], None], str]] = [
    ("missing", Path.unlink, SIDECAR),
    ("no JSON", lambda path: path.write_bytes(b"{") and None, SIDECAR),
    ("other bits", said(nbits=8), f"{LAYER}.W_q"),
    ("other group", said(group_size=32), f"{LAYER}.W_q"),
    ("other shape", said(shape=[64, 256]), f"{LAYER}.W_q"),
    ("no shape", said(shape="x"), f"{LAYER}.W_q"),
]


@pytest.mark.parametrize("row", SIDE, ids=[row[0] for row in SIDE])
def test_a_side_file_that_does_not_fit_is_found(row: tuple[str, Callable[[Path], None], str], tmp_path: Path):
    result = judged("w4-g64", tmp_path, lambda _: None, row[1])
    assert (FAIL, row[2]) in {(item.severity, item.where) for item in result.results["layers.complete"].findings}


@pytest.mark.parametrize("content", [b"[]", b"3", b'{"x": 3}', b'{"x": {"meta": []}}', b"\xff", b'{"a":1,"a":2}'])
def test_a_hostile_side_file_never_raises(content: bytes, tmp_path: Path):
    result = judged("w4-2d", tmp_path, lambda _: None, lambda path: path.write_bytes(content) and None)
    assert not [item for item in result.results.values() if item.error is not None], result.text()
