"""Damage done to AWQ files: each is found by the check that should find it, which names the place.

Not to be seen in principle: scales that are off by one factor in a whole row, in a whole group of inputs, or in a
layer. Calibration does just that, and nothing in the file tells the factors.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from decoding import FIXTURES
from packed_faults import (
    Fault,
    Values,
    config,
    cut_row,
    findings,
    left_dense,
    lose,
    no_config,
    one,
    scales,
    swap,
    swap_nibbles,
    widen,
    words,
)

from checker.domain import Severity

FAIL = Severity.FAIL
LAYER, OTHER = (f"model.layers.{number}.self_attn.q_proj" for number in (0, 1))
CODES, ZEROS, SCALES = (f"{LAYER}.{part}" for part in ("qweight", "qzeros", "scales"))
CONFIG = "quantization_config"
FIRST = "model.layers.0.mlp.down_proj.qweight"  # of the weights in the files of AutoAWQ
KEPT = "model.layers.0.self_attn.o_proj"
PARTS = ("qweight", "qzeros", "scales")
EXPERT = "model.layers.1.mlp.experts.2.up_proj"
DENSE, UNDECODED = FIXTURES / "baselines", dict.fromkeys(("weights.scales", "weights.codes", "weights.error"), CODES)
ONES = np.uint32(0x11111111)
GEMM, SKIP, GEMV, FAST, LLM = "w4-g64-gemm", "autoawq-skip", "autoawq-gemv", "autoawq-gemv-fast", "llm-awq"


def doubled(numbers: Values) -> Values:
    numbers[1, ::2] *= 2
    return numbers


FAULTS: dict[str, tuple[str, Fault, dict[str, str]]] = {
    "codes lost": (GEMM, lose(CODES), {"layers.complete": CODES, "memory.ratio": f"{LAYER}.weight", **UNDECODED}),
    "zeros lost": (GEMM, lose(ZEROS), {"layers.complete": ZEROS, "memory.ratio": ZEROS, **UNDECODED}),
    "scales lost": (GEMM, lose(SCALES), {"layers.complete": SCALES, "memory.ratio": SCALES, **UNDECODED}),
    "scales lost, gemv": (GEMV, lose(SCALES), {"layers.complete": SCALES, "memory.ratio": SCALES, **UNDECODED}),
    "zeros lost, gemv_fast": (FAST, lose(ZEROS), {"layers.complete": ZEROS, "memory.ratio": ZEROS, **UNDECODED}),
    "zeros lost, llm-awq": (
        LLM,
        lose(f"{LAYER}.scaled_zeros"),
        {"layers.complete": f"{LAYER}.scaled_zeros", "memory.ratio": f"{LAYER}.scaled_zeros", **UNDECODED},
    ),
    "wide scales": (SKIP, widen(SCALES), {"layers.complete": SCALES, "memory.ratio": SCALES, **UNDECODED}),
    "short codes": (GEMM, cut_row(CODES), {"dtypes.storage": CODES, "memory.ratio": CODES, **UNDECODED}),
    "short scales, gemv": (GEMV, cut_row(SCALES), {"layers.complete": SCALES, "memory.ratio": SCALES, **UNDECODED}),
    "scales zeroed": (SKIP, scales(SCALES, lambda s: s * 0), {"weights.scales": LAYER, "weights.error": LAYER}),
    "one scale zero": (SKIP, scales(SCALES, one(0)), {"weights.scales": LAYER}),
    "scale not a number": (SKIP, scales(SCALES, one(np.nan)), {"weights.scales": LAYER, "weights.error": LAYER}),
    "zero point not a number": (FAST, scales(ZEROS, one(np.nan)), {"weights.scales": LAYER, "weights.error": LAYER}),
    "scales negative": (SKIP, scales(SCALES, lambda s: -s), {"weights.scales": LAYER, "weights.error": LAYER}),
    "scales of the next group": (SKIP, scales(SCALES, lambda s: np.roll(s, 1, axis=0)), {"weights.error": LAYER}),
    "half the scales of one group doubled": (SKIP, scales(SCALES, doubled), {"weights.error": LAYER}),
    "nibbles swapped": (GEMM, words(CODES, swap_nibbles), {"weights.error": LAYER}),
    "nibbles swapped, gemv": (GEMV, words(CODES, swap_nibbles), {"weights.error": LAYER}),
    "outputs shifted": (GEMM, words(CODES, lambda w: np.roll(w, 1, axis=1)), {"weights.error": LAYER}),
    "inputs shifted": (GEMM, words(CODES, lambda w: np.roll(w, 1, axis=0)), {"weights.error": LAYER}),
    "codes all zero": (
        GEMM, words(CODES, lambda w: w * np.uint32(0)), {"weights.error": LAYER}
    ),
    "codes that reach no end": (
        GEMM,
        words(CODES, lambda w: w & np.uint32(0x66666666) | ONES),
        {"weights.error": LAYER, "weights.codes": LAYER},
    ),
    "zero off by one": (GEMM, words(ZEROS, lambda z: z + ONES), {"weights.error": LAYER}),
    "zero off by one, gemv": (GEMV, words(ZEROS, lambda z: z + ONES), {"weights.error": LAYER}),
    "zeros zeroed, gemv_fast": (FAST, scales(ZEROS, lambda z: z * 0), {"weights.error": LAYER}),
    "layers swapped": (GEMM, swap(LAYER, OTHER, PARTS), {"weights.error": OTHER}),
    "a layer left dense": (
        GEMM, left_dense(LAYER, DENSE / "llama"), {"layers.coverage": LAYER, "memory.ratio": CODES}
    ),
    "an expert left dense": (
        "moe", left_dense(EXPERT, DENSE / "moe"), {"layers.coverage": EXPERT, "memory.ratio": f"{EXPERT}.qweight"}
    ),
    "bits lied about": (GEMM, config(bits=8), {"config.truthful": CODES, "memory.ratio": CODES}),
    "group size lied about": (GEMM, config(group_size=32), {"config.truthful": CODES}),
    "group size lied about, gemv": (GEMV, config(group_size=128), {"config.truthful": FIRST}),
    "symmetry lied about": (GEMM, config(zero_point=False), {"config.truthful": CODES}),
    "packing lied about": (GEMM, config(version="gemv", format="gemv"), {"config.truthful": CODES}),
    "packing lied about, gemv_fast": (FAST, config(version="gemm"), {"config.truthful": FIRST}),
    "method lied about": (
        SKIP,
        config(quant_method="gptq", version=None, zero_point=None, modules_to_not_convert=None),
        {"config.truthful": FIRST, "layers.coverage": KEPT,
         "memory.ratio": "model.layers.0.self_attn.o_proj.qweight"},  # kept dense by the list that is lost
    ),
    "config removed": (GEMM, no_config, {"config.present": CODES}),
    "a key misspelt": (GEMM, config(zero_piont=True), {"config.keys": f"{CONFIG}.zero_piont"}),
    "packing unknown": (SKIP, config(version="gemn"), {"config.keys": f"{CONFIG}.version"}),
    "versions disagree": (
        GEMM, config(version="gemv_fast"), {"config.keys": f"{CONFIG}.format", "config.truthful": CODES}
    ),
    "skipped and yet quantized": (
        GEMM,
        config(modules_to_not_convert=["q_proj"]),
        {"layers.excluded": LAYER, "memory.ratio": f"{LAYER}.weight"},
    ),
    "dense and not skipped": (
        SKIP,
        config(modules_to_not_convert=[]),
        {"layers.coverage": KEPT, "memory.ratio": f"{KEPT}.qweight"},
    ),
    "rule lost": (
        "moe",
        config(dynamic=None),
        {"layers.coverage": LAYER, "memory.ratio": CODES},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("fixture", "fault", "expected"), FAULTS.values(), ids=FAULTS.keys())
def test_a_planted_fault_is_found_where_it_is(
    fixture: str, fault: Fault, expected: dict[str, str], tmp_path: Path
) -> None:
    found = findings("awq", fixture, fault, tmp_path / "damaged")
    failed = {check: {item.where for item in items if item.severity is FAIL} for check, items in found.items()}
    failed = {check: places for check, places in failed.items() if places}
    assert set(failed) == set(expected), found
    for check, where in expected.items():
        assert where in failed[check], found


def test_an_entry_that_keeps_nothing_is_named(tmp_path: Path) -> None:
    found = findings("awq", GEMM, config(modules_to_not_convert=["vision_tower"]), tmp_path / "damaged")
    assert [(item.severity, item.where) for item in found["layers.excluded"]] == [(Severity.WARN, "vision_tower")]


def test_a_quantized_head_is_named(tmp_path: Path) -> None:
    """AWQ keeps the head whatever its list says: transformers adds its default list to the config's."""

    def fault(file):
        for part in PARTS:
            file.tensors[f"lm_head.{part}"] = file.tensors[f"{LAYER}.{part}"]
        del file.tensors["lm_head.weight"]

    found = findings("awq", GEMM, fault, tmp_path / "damaged", baseline=False)
    assert ("lm_head", FAIL) in {(item.where, item.severity) for item in found["layers.excluded"]}
