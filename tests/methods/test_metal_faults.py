"""Faults planted in MLX and Metal checkpoints: the check that finds each, and the place that it names."""

from __future__ import annotations

from pathlib import Path

import pytest
from decoding import CHECKPOINTS, baseline_of
from layer_faults import FIRST, MODULE, Fault, declare, drop, fill, leave_dense, no_config, put, roll, swap_layers
from models import Damaged, damage, judge_files

from checker.domain import Severity


def nibbles_swapped(file: Damaged) -> None:
    codes = file.u8(f"{MODULE}.weight")
    codes[:] = codes >> 4 | codes << 4


def no_mlx_config(file: Damaged) -> None:
    del file.config["quantization_config"], file.config["quantization"]


def mlx(**changes: object) -> Fault:
    """mlx-lm writes its settings twice."""

    def fault(file: Damaged) -> None:
        for key in ("quantization", "quantization_config"):
            file.config[key] = {**file.config[key], **changes}

    return fault


MLX_FIRST = "lm_head"
FAULTS: dict[str, tuple[str, Fault, str, str]] = {
    "no scales": ("w4-g64", drop("scales"), "layers.complete", f"{MODULE}.scales"),
    "no biases": ("mlx-w4-g64", drop("biases"), "layers.complete", f"{MODULE}.biases"),
    "no qbiases": ("w4-g64", drop("qbiases"), "layers.complete", f"{MODULE}.qbiases"),
    "scales of another dtype": ("w4-g64", put("scales", "F16", [128, 2], 512), "layers.complete", f"{MODULE}.scales"),
    "scales of too few rows": ("w4-g64", put("scales", "BF16", [64, 2], 256), "layers.complete", f"{MODULE}.scales"),
    "scales of another group": ("w4-g64", put("scales", "BF16", [128, 3], 768), "layers.complete", f"{MODULE}.scales"),
    "scales zero": ("mlx-w4-g64", fill("scales", "<u2", 0), "weights.scales", MODULE),
    "scales NaN": ("mlx-w3-g64", fill("scales", "<u2", 0x7FC0), "weights.scales", MODULE),
    "biases NaN": ("mlx-w4-g64", fill("biases", "<u2", 0x7FC0), "weights.scales", MODULE),
    "scales negative": ("w4-g64", fill("scales", "<u2", 0xBC00), "weights.scales", MODULE),
    "microscales NaN": ("mlx-mxfp4", fill("scales", "u1", 255), "weights.scales", MODULE),
    "scales shifted by a group": ("mlx-w4-g64", roll("scales", "<u2"), "weights.error", MODULE),
    "biases shifted by a group": ("mlx-w5-g32", roll("biases", "<u2"), "weights.error", MODULE),
    "nibbles swapped": ("w4-g64", nibbles_swapped, "weights.error", MODULE),
    "words rolled": ("mlx-w3-g64", roll("weight", "<u4"), "weights.error", MODULE),
    "layers swapped": ("mlx-w6-g128", swap_layers("weight", "scales", "biases"), "weights.error", MODULE),
    "a layer left dense": ("w4-g64", leave_dense, "layers.coverage", MODULE),
    "other bits declared": ("w4-g64", declare(bits=8, group_size=32), "config.truthful", f"{FIRST}.weight"),
    "another group declared": ("mlx-w4-g64", mlx(group_size=32), "config.truthful", f"{MLX_FIRST}.weight"),
    "bits and group exchanged": ("mlx-w8-g64", mlx(bits=4, group_size=128), "config.truthful", f"{MLX_FIRST}.weight"),
    "another mode declared": ("mlx-w4-g64", mlx(mode="mxfp4"), "config.truthful", f"{MLX_FIRST}.weight"),
    "a layer declared dense": ("mlx-w4-g64", mlx(**{MODULE: False}), "layers.excluded", MODULE),
    "a layer declared wider": (
        "mlx-w4-g64",
        mlx(**{MODULE: {"bits": 6, "group_size": 64}}),
        "config.truthful",
        f"{MODULE}.weight",
    ),
    "a layer declared with nonsense": (
        "mlx-w4-g64",
        mlx(**{MODULE: {"bits": 7, "group_size": 64}}),
        "config.keys",
        f"quantization_config.{MODULE}",
    ),
    "a skipped module quantized": (
        "w4-g64",
        declare(modules_to_not_convert=["lm_head", "q_proj"]),
        "layers.excluded",
        MODULE,
    ),
    "no config": ("w4-g64", no_config, "config.present", f"{FIRST}.weight"),
    "no MLX config": ("mlx-w4-g64", no_mlx_config, "config.present", f"{MLX_FIRST}.weight"),
}


def test_a_dense_layer_is_no_fault_of_mlx(tmp_path: Path):
    """mlx-lm lists no dense layers: one left dense by mistake looks like one that is meant."""
    healthy = CHECKPOINTS / "metal" / "mlx-w4-g64"
    with damage(healthy, tmp_path / "damaged") as file:
        leave_dense(file)
    judged = judge_files(tmp_path / "damaged", baseline_of(healthy))
    [finding] = judged.results["layers.coverage"].findings
    assert (finding.where, finding.severity) == (MODULE, Severity.WARN)  # its group q, k, v no longer agrees


@pytest.mark.parametrize("fault", FAULTS)
def test_the_fault_is_found_and_named(tmp_path: Path, fault: str):
    variant, plant, check, where = FAULTS[fault]
    healthy = CHECKPOINTS / "metal" / variant
    with damage(healthy, tmp_path / "damaged") as file:
        plant(file)
    judged = judge_files(tmp_path / "damaged", baseline_of(healthy))
    found = {(item.where, item.severity) for item in judged.results[check].findings}
    assert (where, Severity.FAIL) in found, judged.text()
