"""Codes that were never written: nothing but one code in a layer is told, where no baseline judges its values."""

from __future__ import annotations

from pathlib import Path

import pytest
from decoding import CHECKPOINTS, baseline_of
from models import damage, judge_files

from checker.domain import Severity

LAYER = "model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("fixture", "packed"),
    [
        pytest.param("gptq/w4-g64-sym", f"{LAYER}.qweight", id="gptq"),
        pytest.param("awq/w4-g64-gemm", f"{LAYER}.qweight", id="awq"),
        pytest.param("fp8/block-128", f"{LAYER}.weight", id="fp8"),
        pytest.param("torchao/int8", f"{LAYER}._weight_qdata", id="torchao"),
        pytest.param("compressed-tensors/w4a16-group-sym", f"{LAYER}.weight_packed", id="compressed-tensors"),
    ],
)
def test_codes_that_are_all_alike_are_told(tmp_path: Path, fixture: str, packed: str):
    healthy = CHECKPOINTS / fixture
    with damage(healthy, tmp_path / "copy") as file:
        file.u8(packed)[:] = 0
    alone = judge_files(tmp_path / "copy").results["weights.codes"].findings
    assert (Severity.WARN, LAYER) in {(item.severity, item.where) for item in alone if "the same" in item.message}
    compared = judge_files(tmp_path / "copy", baseline_of(healthy)).results["weights.error"].findings
    assert LAYER in {item.where for item in compared if item.severity is Severity.FAIL}


@pytest.mark.parametrize("fixture", ["mxfp8/bytes", "compressed-tensors/mxfp4"])
def test_exponents_that_are_all_zero_are_scales_of_zero(tmp_path: Path, fixture: str):
    with damage(CHECKPOINTS / fixture, tmp_path / "copy") as file:
        [name] = [name for name in file.tensors if name.startswith(f"{LAYER}.weight_scale")]
        file.u8(name)[:] = 0
    found = judge_files(tmp_path / "copy").results["weights.scales"].findings
    assert (Severity.FAIL, LAYER) in {(item.severity, item.where) for item in found}
