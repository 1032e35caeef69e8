"""Damage done to GPTQ files: each is found by the check that should find it, which names the place.

Not to be seen without a baseline: codes, zero points and scales that are wrong but plausible. Not to be seen at all:
that ``desc_act`` is declared over inputs in their order, which is what one group, or static groups, look like.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from decoding import FIXTURES
from packed_faults import (
    Fault,
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

FAIL, WARN = Severity.FAIL, Severity.WARN
LAYER, OTHER = (f"model.layers.{number}.self_attn.q_proj" for number in (0, 1))
CODES, ZEROS, SCALES, ORDER = (f"{LAYER}.{part}" for part in ("qweight", "qzeros", "scales", "g_idx"))
CONFIG = "quantization_config"
PARTS = ("qweight", "qzeros", "scales", "g_idx")
DOWN = "model.layers.0.mlp.down_proj"
EXPERT = "model.layers.1.mlp.experts.2.up_proj"
DENSE, UNDECODED = FIXTURES / "baselines", dict.fromkeys(("weights.scales", "weights.codes", "weights.error"), CODES)
ONES = np.uint32(0x11111111)
FLOAT16 = np.float16

FAULTS: dict[str, tuple[str, Fault, dict[str, str]]] = {
    "codes lost": (
        "w4-g64-sym", lose(CODES), {"layers.complete": CODES, "memory.ratio": f"{LAYER}.weight", **UNDECODED}
    ),
    "zeros lost": ("w4-g64-sym", lose(ZEROS), {"layers.complete": ZEROS, "memory.ratio": ZEROS, **UNDECODED}),
    "scales lost": ("w4-g64-sym", lose(SCALES), {"layers.complete": SCALES, "memory.ratio": SCALES, **UNDECODED}),
    "order lost": ("w4-g64-sym", lose(ORDER), {"layers.complete": ORDER, "memory.ratio": ORDER, **UNDECODED}),
    "wide scales": ("w4-g64-sym", widen(SCALES), {"layers.complete": SCALES, "memory.ratio": SCALES, **UNDECODED}),
    "short codes": ("w4-g64-sym", cut_row(CODES), {"dtypes.storage": CODES, "memory.ratio": CODES, **UNDECODED}),
    "short zeros": ("w4-g64-sym", cut_row(ZEROS), {"layers.complete": ZEROS, "memory.ratio": ZEROS, **UNDECODED}),
    "scales zeroed": (
        "w4-g64-sym", scales(SCALES, lambda s: s * 0), {"weights.scales": LAYER, "weights.error": LAYER}
    ),
    "one scale zero": ("w4-g64-sym", scales(SCALES, one(0)), {"weights.scales": LAYER}),
    "scale not a number": (
        "w4-g64-sym", scales(SCALES, one(np.nan)), {"weights.scales": LAYER, "weights.error": LAYER}
    ),
    "scale infinite": ("w4-g64-sym", scales(SCALES, one(np.inf)), {"weights.scales": LAYER, "weights.error": LAYER}),
    "scales of the next group": (
        "w4-g64-sym", scales(SCALES, lambda s: np.roll(s, 1, axis=0)), {"weights.error": LAYER}
    ),
    "scales of the next output": (
        "w4-g64-sym", scales(SCALES, lambda s: np.roll(s, 1, axis=1)), {"weights.error": LAYER}
    ),
    "scales a tenth too large": ("w4-g64-sym", scales(SCALES, lambda s: s * FLOAT16(1.1)), {"weights.error": LAYER}),
    "negative asymmetric scales": (
        "rounded-w4-g32-asym-v2", scales(SCALES, lambda s: -s), {"weights.scales": LAYER, "weights.error": LAYER}
    ),
    "nibbles swapped": ("w4-g64-sym", words(CODES, swap_nibbles), {"weights.error": LAYER}),
    "bits shifted": ("w3-g32-sym", words(CODES, lambda w: w >> np.uint32(1)), {"weights.error": LAYER}),
    "rows of words shifted": ("w8-g128-sym", words(CODES, lambda w: np.roll(w, 1, axis=0)), {"weights.error": LAYER}),
    "planes mixed up": ("planar-w5-g64", words(CODES, lambda w: np.roll(w, 1, axis=0)), {"weights.error": LAYER}),
    "codes all zero": ("w4-g64-sym", words(CODES, lambda w: w * np.uint32(0)), {"weights.error": LAYER}),
    "symmetric zero off by one": ("w4-g64-sym", words(ZEROS, lambda z: z + ONES), {"config.truthful": CODES}),
    "asymmetric zero off by one": ("w4-g32-asym-v1", words(ZEROS, lambda z: z + ONES), {"weights.error": LAYER}),
    "2-bit zero off by one": (
        "w2-g32-asym-v2", words(ZEROS, lambda z: z ^ np.uint32(0x55555555)), {"weights.error": LAYER}
    ),
    "layers swapped": ("w4-g64-sym", swap(LAYER, OTHER, PARTS), {"weights.error": OTHER}),
    "a layer left dense": (
        "w4-g64-sym", left_dense(LAYER, DENSE / "llama"), {"layers.coverage": LAYER, "memory.ratio": CODES}
    ),
    "an expert left dense": (
        "moe", left_dense(EXPERT, DENSE / "moe"), {"layers.coverage": EXPERT, "memory.ratio": f"{EXPERT}.qweight"}
    ),
    "an expert's scales lost": (
        "moe",
        lose(f"{EXPERT}.scales"),
        {"layers.complete": f"{EXPERT}.scales", "memory.ratio": f"{EXPERT}.scales",
         **dict.fromkeys(UNDECODED, f"{EXPERT}.qweight")},
    ),
    "bits lied about": ("w4-g64-sym", config(bits=8), {"config.truthful": CODES, "memory.ratio": CODES}),
    "group size lied about": ("w4-g64-sym", config(group_size=32), {"config.truthful": CODES}),
    "symmetry lied about": ("w4-g32-asym-v1", config(sym=True), {"config.truthful": CODES}),
    "asymmetry lied about": ("w4-g64-sym", config(sym=False), {"config.truthful": CODES}),
    "version lied about": (
        "w4-g64-sym", config(checkpoint_format="gptq_v2", format="gptq_v2"), {"config.truthful": CODES}
    ),
    "version lied about, asymmetric": (
        "w4-g32-asym-v1", config(checkpoint_format="gptq_v2", format="gptq_v2"), {"weights.error": LAYER}
    ),
    "order not declared": ("w4-g64-act-order", config(desc_act=False), {"config.truthful": CODES}),
    "method lied about": (
        "w4-g64-sym", config(quant_method="awq", format=None, checkpoint_format=None), {"config.truthful": CODES}
    ),
    "config removed": ("w4-g64-sym", no_config, {"config.present": CODES}),
    "formats disagree": ("w4-g64-sym", config(format="gptq_v2"), {"config.keys": f"{CONFIG}.format"}),
    "bits of a wrong type": ("w4-g64-sym", config(bits="4"), {"config.keys": f"{CONFIG}.bits"}),
    "a key misspelt": ("w4-g64-sym", config(group_sise=64), {"config.keys": f"{CONFIG}.group_sise"}),
    "kept by a rule": (
        "w4-g64-sym",
        config(dynamic={r"-:.*q_proj$": {}}),
        {"layers.excluded": LAYER, "memory.ratio": f"{LAYER}.weight"},
    ),
    "rule lies about bits": (
        "dynamic",
        config(dynamic={r".*\.down_proj$": {"bits": 4, "group_size": 32}, "-:.*v_proj": {}, r"lm_head": {"bits": 8}}),
        {"config.truthful": f"{DOWN}.qweight", "layers.excluded": "model.layers.1.self_attn.v_proj",
         "memory.ratio": f"{DOWN}.qweight"},
    ),
    "rule lost": (
        "dynamic",
        config(dynamic=None),
        {"config.truthful": f"{DOWN}.qweight", "layers.coverage": "model.layers.0.self_attn.v_proj",
         "memory.ratio": "model.layers.0.self_attn.v_proj.qweight"},
    ),
    "not among the modules named": (
        "w4-g64-sym",
        config(modules_in_block_to_quantize=[["self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"],
                                             ["mlp.gate_proj", "mlp.up_proj"], ["mlp.down_proj"]]),
        {"layers.excluded": LAYER, "memory.ratio": f"{LAYER}.weight"},
    ),
    "head declared": (
        "w4-g64-sym", config(lm_head=True), {"layers.coverage": "lm_head", "memory.ratio": "lm_head.qweight"}
    ),
    "head not declared": (
        "dynamic", config(lm_head=False), {"layers.excluded": "lm_head", "memory.ratio": "lm_head.weight"}
    ),
    "index beyond the groups": (
        "w4-g64-sym", words(ORDER, lambda g: g + np.uint32(5)), {"layers.complete": ORDER, **UNDECODED}
    ),
    "index below zero": (
        "w4-g64-act-order", words(ORDER, lambda g: g - np.uint32(1)), {"layers.complete": ORDER, **UNDECODED}
    ),
    "order mixed up": ("w4-g64-act-order", words(ORDER, lambda g: np.uint32(1) - g), {"weights.error": LAYER}),
}  # fmt: skip


@pytest.mark.parametrize(("fixture", "fault", "expected"), FAULTS.values(), ids=FAULTS.keys())
def test_a_planted_fault_is_found_where_it_is(
    fixture: str, fault: Fault, expected: dict[str, str], tmp_path: Path
) -> None:
    found = findings("gptq", fixture, fault, tmp_path / "damaged")
    failed = {check: {item.where for item in items if item.severity is FAIL} for check, items in found.items()}
    failed = {check: places for check, places in failed.items() if places}
    assert set(failed) == set(expected), found
    for check, where in expected.items():
        assert where in failed[check], found


@pytest.mark.parametrize(
    "name", ["scales zeroed", "one scale zero", "scale not a number", "zeros lost", "bits lied about"]
)
def test_some_faults_show_without_a_baseline(name: str, tmp_path: Path) -> None:
    fixture, fault, expected = FAULTS[name]
    found = findings("gptq", fixture, fault, tmp_path / "damaged", baseline=False)
    for check in set(expected) - {"weights.error", "memory.ratio"}:
        assert expected[check] in {item.where for item in found[check] if item.severity is FAIL}, found


def test_a_drift_of_a_third_is_called_one(tmp_path: Path) -> None:
    found = findings("gptq", "w8-g128-sym", scales(SCALES, lambda s: s * FLOAT16(1.3)), tmp_path / "damaged")
    (finding,) = found["weights.error"]
    assert (finding.severity, finding.where) == (FAIL, LAYER)
