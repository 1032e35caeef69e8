"""nvfp4: the structure of a file that transformers neither writes nor reads, and faults in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from decoding import CHECKPOINTS, method_of, recognise
from float_formats import (
    Fault,
    assert_finds,
    declare,
    dense,
    drop,
    judge_fault,
    retype,
    together,
    undeclared,
)
from models import Damaged, judge_files

from checker.checkpoint import open_checkpoint
from checker.domain import Severity

Q, UP = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj"
FIRST = "model.layers.0.mlp.down_proj"


def test_it_is_known_by_headers_alone_and_not_decoded():
    checkpoint = open_checkpoint(CHECKPOINTS / "nvfp4" / "buffers")
    alone, declared = (
        recognise(method_of("nvfp4"), checkpoint, config) for config in (None, {"quant_method": "nvfp4"})
    )
    assert [weight.module for weight in alone] == [weight.module for weight in declared]
    judged = judge_files(CHECKPOINTS / "nvfp4" / "buffers")
    assert "not public" in (judged.results["weights.scales"].skip_reason or "")


def test_that_transformers_cannot_load_it_is_said_once():
    judged = judge_files(CHECKPOINTS / "nvfp4" / "buffers")
    (finding,) = judged.results["layers.complete"].findings
    assert finding.severity is Severity.WARN
    assert "cannot load" in finding.message


def too_few_tiles(damaged: Damaged) -> None:
    damaged.put(f"{Q}.weight_sf", "I32", [64, 2], b"\1" * 512)


def three_dimensions(damaged: Damaged) -> None:
    damaged.tensors[f"{Q}.weight"].shape = [2, 64, 64]


PARTS = [f"{UP}.weight_sf", f"{UP}.weight_sf_rowmajor", f"{UP}.weight_global_scale"]
FAULTS: dict[str, tuple[Fault, str, str]] = {
    "scales in rows are lost": (drop(f"{Q}.weight_sf_rowmajor"), "layers.complete", f"{Q}.weight_sf_rowmajor"),
    "scales in tiles are lost": (drop(f"{Q}.weight_sf"), "layers.complete", f"{Q}.weight_sf"),
    "the global scale is lost": (drop(f"{Q}.weight_global_scale"), "layers.complete", f"{Q}.weight_global_scale"),
    "the codes are lost": (drop(f"{Q}.weight"), "layers.complete", f"{Q}.weight"),
    "all scales of a layer are lost": (
        together(*(drop(name) for name in PARTS)),
        "layers.complete",
        f"{UP}.weight_global_scale",
    ),
    "scales of another dtype": (
        retype(f"{Q}.weight_sf_rowmajor", "F8_E4M3", 1),
        "layers.complete",
        f"{Q}.weight_sf_rowmajor",
    ),
    "a global scale of another dtype": (
        retype(f"{Q}.weight_global_scale", "BF16", 2),
        "layers.complete",
        f"{Q}.weight_global_scale",
    ),
    "codes of another dtype": (retype(f"{Q}.weight", "I8", 1), "dtypes.storage", f"{Q}.weight"),
    "codes of another shape": (three_dimensions, "layers.complete", f"{Q}.weight"),
    "a layer left dense": (dense(f"{UP}.weight", [256, 128], *PARTS), "layers.coverage", UP),
    "a skipped layer is quantized": (declare(modules_to_not_convert=["q_proj", "lm_head"]), "layers.excluded", Q),
    "another method declared": (declare(quant_method="mxfp4"), "config.truthful", f"{FIRST}.weight"),
    "the config is lost": (undeclared, "config.present", f"{FIRST}.weight"),
    "a key misspelt": (declare(skip_modules=[]), "config.keys", "quantization_config.skip_modules"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_finds_faults(fault: str, tmp_path: Path):
    plant, check, where = FAULTS[fault]
    assert_finds(judge_fault("nvfp4", "buffers", tmp_path, plant), check, where)


def test_scales_in_tiles_have_the_bytes_of_whole_tiles(tmp_path: Path):
    judged = judge_fault("nvfp4", "buffers", tmp_path, too_few_tiles)
    assert f"{Q}.weight_sf" in {finding.where for finding in judged.results["memory.ratio"].findings}, judged.text()
