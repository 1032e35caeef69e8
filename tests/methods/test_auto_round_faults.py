"""Damage done to AutoRound files: each is found by the check that should find it, which names the place."""

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
    raw,
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
FIRST = "model.layers.0.mlp.down_proj.qweight"  # of the weights in the file
PARTS = ("qweight", "qzeros", "scales")
DENSE, UNDECODED = FIXTURES / "baselines", dict.fromkeys(("weights.scales", "weights.codes", "weights.error"), CODES)
ONES = np.uint32(0x11111111)
PACKED = f"{LAYER}.weight_packed"
UNPACKED, UNSCALED = dict.fromkeys(UNDECODED, PACKED), dict.fromkeys(UNDECODED, f"{LAYER}.weight")
HEAD = {"lm_head": {"bits": 4, "group_size": 64, "sym": True}}

FAULTS: dict[str, tuple[str, Fault, dict[str, str]]] = {
    "codes lost": ("gptq-sym", lose(CODES), {"layers.complete": CODES, "memory.ratio": f"{LAYER}.weight", **UNDECODED}),
    "zeros lost": ("gptq-sym", lose(ZEROS), {"layers.complete": ZEROS, "memory.ratio": ZEROS, **UNDECODED}),
    "scales lost": ("gptq-sym", lose(SCALES), {"layers.complete": SCALES, "memory.ratio": SCALES, **UNDECODED}),
    "index lost": (
        "gptqmodel-asym",
        lose(f"{LAYER}.g_idx"),
        {"layers.complete": f"{LAYER}.g_idx", "memory.ratio": f"{LAYER}.g_idx", **UNDECODED},
    ),
    "wide scales": ("gptq-sym", widen(SCALES), {"layers.complete": SCALES, "memory.ratio": SCALES, **UNDECODED}),
    "short codes": ("gptq-sym", cut_row(CODES), {"dtypes.storage": CODES, "memory.ratio": CODES, **UNDECODED}),
    "scales zeroed": ("gptq-sym", scales(SCALES, lambda s: s * 0), {"weights.scales": LAYER, "weights.error": LAYER}),
    "scale infinite": ("gptq-sym", scales(SCALES, one(np.inf)), {"weights.scales": LAYER, "weights.error": LAYER}),
    "signs of scales lost": ("gptq-sym", scales(SCALES, np.abs), {"weights.error": LAYER}),
    "negative asymmetric scales": (
        "gptq-asym", scales(SCALES, lambda s: -s), {"weights.scales": LAYER, "weights.error": LAYER}
    ),
    "scales of the next group": ("gptq-sym", scales(SCALES, lambda s: np.roll(s, 1, axis=0)), {"weights.error": LAYER}),
    "scales a tenth too large": (
        "gptq-sym", scales(SCALES, lambda s: s * np.float16(1.1)), {"weights.error": LAYER}
    ),
    "nibbles swapped": ("gptq-sym", words(CODES, swap_nibbles), {"weights.error": LAYER}),
    "bits shifted, 5 bits": ("own-asym-w5-g64", words(CODES, lambda w: w >> np.uint32(1)), {"weights.error": LAYER}),
    "order of outputs lost": ("awq-asym", words(CODES, swap_nibbles), {"weights.error": LAYER}),
    "symmetric zero off by one": ("gptq-sym", words(ZEROS, lambda z: z + ONES), {"config.truthful": CODES}),
    "asymmetric zero off by one": ("gptq-asym", words(ZEROS, lambda z: z + ONES), {"weights.error": LAYER}),
    "zero off by one, 8 bits": (
        "own-asym-w8-g128", words(ZEROS, lambda z: z - np.uint32(0x01010101)), {"weights.error": LAYER}
    ),
    "layers swapped": ("gptq-sym", swap(LAYER, OTHER, PARTS), {"weights.error": OTHER}),
    "a layer left dense": (
        "gptq-sym", left_dense(LAYER, DENSE / "llama"), {"layers.coverage": LAYER, "memory.ratio": CODES}
    ),
    "bits lied about": ("gptq-sym", config(bits=8), {"config.truthful": FIRST, "memory.ratio": FIRST}),
    "group size lied about": ("gptq-sym", config(group_size=32), {"config.truthful": FIRST}),
    "symmetry lied about": ("gptq-sym", config(sym=False), {"config.truthful": FIRST}),
    "packing lied about": (
        "gptq-sym", config(packing_format="auto_round:auto_awq"), {"config.truthful": FIRST}
    ),
    "version lied about": ("gptq-sym", config(packing_format="auto_round"), {"config.truthful": FIRST}),
    "version lied about, asymmetric": (
        "own-asym-w8-g128", config(packing_format="auto_round:auto_gptq"), {"weights.error": LAYER}
    ),
    "awq packing lied about": (
        "awq-asym",
        config(packing_format="auto_round:auto_gptq"),
        {"config.truthful": "model.layers.0.mlp.experts.0.down_proj.qweight"},
    ),
    "config removed": ("gptq-sym", no_config, {"config.present": FIRST}),
    "a key misspelt": ("gptq-sym", config(packing_fromat="auto_round"), {"config.keys": f"{CONFIG}.packing_fromat"}),
    "kept at 16 bits and yet quantized": (
        "gptq-sym",
        config(extra_config={LAYER: {"bits": 16}}),
        {"layers.excluded": LAYER, "memory.ratio": f"{LAYER}.weight"},
    ),
    "own bits lied about": (
        "gptq-sym", config(extra_config={".*q_proj.*": {"bits": 8}}), {"config.truthful": CODES, "memory.ratio": CODES}
    ),
    "extra_config lost": (
        "mixed",
        config(extra_config=None),
        {
            "config.truthful": "model.layers.0.mlp.experts.0.down_proj.qweight",
            "layers.coverage": "model.layers.0.self_attn.v_proj",
            "memory.ratio": "model.layers.0.self_attn.v_proj.qweight",
        },
    ),
    "head declared": (  # AutoRound 0.16.1 writes just this when asked for a quantized head on a CPU
        "gptq-sym", config(extra_config=HEAD), {"layers.coverage": "lm_head", "memory.ratio": "lm_head.qweight"}
    ),
    "outside the declared blocks": (
        "gptq-sym",
        config(block_name_to_quantize="model.layers.1"),
        {"layers.excluded": LAYER, "memory.ratio": f"{LAYER}.weight"},
    ),
    "global scale lost": (
        "nvfp4",
        lose(f"{LAYER}.weight_global_scale"),
        {"layers.complete": f"{LAYER}.weight_global_scale", "memory.ratio": f"{LAYER}.weight_global_scale", **UNPACKED},
    ),
    "activation's scale lost": (
        "fp8-static",
        lose(f"{LAYER}.input_scale"),
        {"layers.complete": f"{LAYER}.input_scale", "memory.ratio": f"{LAYER}.input_scale", **UNSCALED},
    ),
    "scales of floats lost": (
        "mxfp4",
        lose(f"{LAYER}.weight_scale"),
        {"layers.complete": f"{LAYER}.weight_scale", "memory.ratio": f"{LAYER}.weight_scale", **UNPACKED},
    ),
    "packed floats lost": (
        "mxfp4",
        lose(PACKED),
        {"layers.complete": PACKED, "memory.ratio": f"{LAYER}.weight", **UNPACKED},
    ),
    "exponents one too large": (
        "mxfp4", raw(f"{LAYER}.weight_scale", lambda e: e + np.uint8(1)), {"weights.error": LAYER}
    ),
    "exponent not a number": (
        "mxfp8",
        raw(f"{LAYER}.weight_scale", lambda e: e | np.uint8(255)),
        {"weights.scales": LAYER, "weights.error": LAYER},
    ),
    "scales of the next block": (
        "nvfp4", raw(f"{LAYER}.weight_scale", lambda s: np.roll(s, 1, axis=1)), {"weights.error": LAYER}
    ),
    "nibbles of floats swapped": (
        "nvfp4", raw(PACKED, lambda w: w << np.uint8(4) | w >> np.uint8(4)), {"weights.error": LAYER}
    ),
    "signs of quarters lost": ("mxint4", raw(PACKED, lambda w: w & np.uint8(0x77)), {"weights.error": LAYER}),
    "8-bit codes not numbers": (
        "fp8-tensor",
        raw(f"{LAYER}.weight", lambda w: w | np.uint8(127)),
        {"weights.scales": LAYER, "weights.error": LAYER},
    ),
    "rows of another layer": (
        "fp8-static", raw(f"{LAYER}.weight", lambda w: np.roll(w, 1, axis=0)), {"weights.error": LAYER}
    ),
    "kind of floats lied about": (
        "nvfp4", config(data_type="mx_fp"), {"config.truthful": "model.layers.0.mlp.experts.0.down_proj.weight_packed"}
    ),
    "bits of floats lied about": (
        "mxfp8",
        config(bits=4),
        {"config.truthful": "model.layers.0.mlp.experts.0.down_proj.weight", "memory.ratio": PACKED},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("fixture", "fault", "expected"), FAULTS.values(), ids=FAULTS.keys())
def test_a_planted_fault_is_found_where_it_is(
    fixture: str, fault: Fault, expected: dict[str, str], tmp_path: Path
) -> None:
    found = findings("auto-round", fixture, fault, tmp_path / "damaged")
    failed = {check: {item.where for item in items if item.severity is FAIL} for check, items in found.items()}
    failed = {check: places for check, places in failed.items() if places}
    assert set(failed) == set(expected), found
    for check, where in expected.items():
        assert where in failed[check], found
