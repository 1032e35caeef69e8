"""The very large checkpoint of the benchmark, with few layers: sound, recognised, and judged without a false alarm."""

from __future__ import annotations

import json
from pathlib import Path

import huge
import pytest
from models import judge_files

from checker.checkpoint import open_checkpoint
from checker.domain import Outcome


@pytest.mark.parametrize("prediction", [True, False], ids=["with the prediction layer", "without"])
def test_the_structure_is_sound(tmp_path: Path, prediction: bool):
    count = huge.write(tmp_path, 5, prediction=prediction)
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.problems == ()
        assert len(checkpoint.tensors) == count
        assert len(checkpoint.tensor_files) > 1
    judged = judge_files(tmp_path, weights="off")
    assert not judged.ids(Outcome.FAIL) | judged.ids(Outcome.ERROR) | judged.ids(Outcome.WARN), judged.text()
    assert judged.results["memory.ratio"].outcome is Outcome.PASS
    assert judged.results["layers.coverage"].outcome is Outcome.PASS


def test_a_lost_scale_is_named(tmp_path: Path):
    huge.write(tmp_path, 4)
    lost = "model.layers.3.mlp.experts.255.down_proj.weight_scale_inv"
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text("utf-8"))
    path = tmp_path / index["weight_map"].pop(lost)
    with path.open("r+b") as file:  # it is a hole of gigabytes: only the header is read
        header = file.read(int.from_bytes(file.read(8), "little"))
        file.seek(8)
        file.write(header.replace(lost.encode(), lost.replace("scale_inv", "scale_out").encode()))
    judged = judge_files(tmp_path, weights="off")
    assert Outcome.FAIL is judged.results["layers.complete"].outcome, judged.text()
    assert any(
        lost in finding.message or finding.where == lost for finding in judged.results["layers.complete"].findings
    )


def test_the_whole_has_the_published_size():
    tensors = list(huge.tensors())
    assert len(tensors) == len({name for name, _, _ in tensors}) == 91_991
    assert round(sum(map(huge.size, tensors)) / 1e9, 1) == 688.6
