"""Damage done to compressed-tensors files: each is found by the check that should find it, which names the place.

Not to be seen without a baseline: swapped halves of a byte, swapped layers, scales of another group. Not to be seen at
all: an activation's scale that is off by a factor, for nothing in the file depends on it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from decoding import CHECKPOINTS, baseline_of
from models import Damaged, damage, judge_files, read_tensors

from checker.domain import Outcome, Severity

ID = "compressed-tensors"
FAIL, WARN = Severity.FAIL, Severity.WARN
LAYER = "model.layers.0.self_attn.q_proj"
OTHER = "model.layers.1.self_attn.q_proj"
EXPERT = "model.layers.1.mlp.experts.2.up_proj"
DOWN = "model.layers.0.mlp.down_proj"
FIRST = f"{DOWN}.weight_packed"  # of the weights in the file
GROUP = "quantization_config.config_groups.group_0"
PACKED, SCALE, ZERO, ORDER = (f"{LAYER}.weight_{part}" for part in ("packed", "scale", "zero_point", "g_idx"))
SHAPE, PLAIN = f"{LAYER}.weight_shape", f"{LAYER}.weight"
UNDECODED = dict.fromkeys(("weights.scales", "weights.codes", "weights.error"), (FAIL, PACKED))

Fault = Callable[[Damaged], None]
Expected = dict[str, tuple[Severity, str]]


def lose(name: str) -> Fault:
    def fault(file: Damaged) -> None:
        del file.tensors[name]

    return fault


def values(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Fault:
    """Change bfloat16 or float32 numbers, as float32 of the tensor's shape."""

    def fault(file: Damaged) -> None:
        tensor = file.tensors[name]
        if tensor.dtype == "BF16":
            raw = tensor.view("<u2")
            numbers = (raw.astype(np.uint32) << 16).view(np.float32).reshape(tensor.shape)
            raw[:] = (change(numbers).astype(np.float32).reshape(-1).view(np.uint32) >> 16).astype(np.uint16)
        else:
            numbers = tensor.view("<f4").reshape(tensor.shape)
            numbers[:] = change(numbers.copy())

    return fault


def stored_bytes(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Fault:
    """Change a tensor's bytes, a row of them for each row of the tensor."""

    def fault(file: Damaged) -> None:
        tensor = file.tensors[name]
        raw = tensor.view("u1").reshape(tensor.shape[0], -1)
        raw[:] = change(raw.copy())

    return fault


def one(numbers: np.ndarray, value: float) -> np.ndarray:
    changed = numbers.copy()
    changed.reshape(-1)[3 % changed.size] = value
    return changed


def retype(name: str, dtype: str) -> Fault:
    def fault(file: Damaged) -> None:
        file.tensors[name].dtype = dtype

    return fault


def integers(name: str, dtype: str, change: Callable[[np.ndarray], np.ndarray]) -> Fault:
    def fault(file: Damaged) -> None:
        raw = file.tensors[name].view(dtype)
        raw[:] = change(raw.copy())

    return fault


def swap_layers(file: Damaged) -> None:
    for part in ("weight_packed", "weight_scale"):
        first, second = f"{LAYER}.{part}", f"{OTHER}.{part}"
        file.tensors[first], file.tensors[second] = file.tensors[second], file.tensors[first]


def make_dense(layer: str, baseline: str) -> Fault:
    def fault(file: Damaged) -> None:
        for name in [name for name in file.tensors if name.startswith(f"{layer}.weight")]:
            del file.tensors[name]
        dense, _ = read_tensors(CHECKPOINTS.parent / "baselines" / baseline / "model.safetensors")
        file.tensors[f"{layer}.weight"] = dense[f"{layer}.weight"]

    return fault


def shorten(file: Damaged) -> None:
    tensor = file.tensors[PACKED]
    file.put(PACKED, tensor.dtype, [tensor.shape[0] - 1, tensor.shape[1]], bytes(tensor.data[: -4 * tensor.shape[1]]))


def fewer_groups(file: Damaged) -> None:
    tensor = file.tensors[f"{DOWN}.weight_scale"]
    kept = tensor.view("<u2").reshape(tensor.shape)[:, :-1]
    file.put(f"{DOWN}.weight_scale", tensor.dtype, list(kept.shape), kept.tobytes())


def decompress(file: Damaged) -> None:
    """What transformers saves after a forward: dense weights, the scales and shapes left over."""
    dense, _ = read_tensors(CHECKPOINTS.parent / "baselines" / "llama" / "model.safetensors")
    for name in [name for name in file.tensors if name.endswith(".weight_packed")]:
        layer = name.removesuffix("_packed")
        del file.tensors[name]
        file.tensors[layer] = dense[layer]
    file.quantization["quantization_status"] = "decompressed"


def scheme(**changes: object) -> Fault:
    def fault(file: Damaged) -> None:
        file.quantization["config_groups"]["group_0"]["weights"].update(changes)  # type: ignore[index,call-overload,union-attr]

    return fault


def setting(**changes: object) -> Fault:
    def fault(file: Damaged) -> None:
        file.quantization.update(changes)  # type: ignore[arg-type]

    return fault


def ignoring(*more: str) -> Fault:
    def fault(file: Damaged) -> None:
        file.quantization["ignore"] += list(more)  # type: ignore[operator]

    return fault


def fault_format(file: Damaged) -> None:
    file.quantization["config_groups"]["group_0"]["format"] = "mxfp8-quantized"  # type: ignore[index,call-overload]


def no_config(file: Damaged) -> None:
    del file.config["quantization_config"]


def swap_nibbles(raw: np.ndarray) -> np.ndarray:
    return raw >> 4 | raw << 4


FAULTS: list[tuple[str, str, Fault, Expected]] = [
    ("no-scale", "w4a16-group-sym", lose(SCALE), {"layers.complete": (FAIL, SCALE), **UNDECODED}),
    ("no-shape", "w4a16-group-sym", lose(SHAPE), {"layers.complete": (FAIL, SHAPE)}),
    ("no-codes", "w4a16-group-sym", lose(PACKED), {"layers.complete": (FAIL, PACKED)}),
    ("no-zero", "w4a16-group-asym", lose(ZERO), {"layers.complete": (FAIL, ZERO), **UNDECODED}),
    ("scale-dtype", "w4a16-group-sym", retype(SCALE, "I16"), {"layers.complete": (FAIL, SCALE), **UNDECODED}),
    ("codes-dtype", "w4a16-group-sym", retype(PACKED, "F32"), {"dtypes.storage": (FAIL, PACKED)}),
    ("codes-short", "w4a16-group-sym", shorten, {"dtypes.storage": (FAIL, PACKED), "memory.ratio": (FAIL, PACKED)}),
    ("fewer-groups", "w4a16-group-sym", fewer_groups, {"layers.complete": (FAIL, f"{DOWN}.weight_scale")}),
    ("zero-scales", "w4a16-group-sym", values(SCALE, lambda s: s * 0), {"weights.scales": (FAIL, LAYER)}),
    ("one-zero-scale", "w4a16-group-sym", values(SCALE, lambda s: one(s, 0)), {"weights.scales": (FAIL, LAYER)}),
    ("nan-scale", "w4a16-group-sym", values(SCALE, lambda s: one(s, np.nan)), {"weights.scales": (FAIL, LAYER)}),
    ("negative", "w4a16-group-sym", values(SCALE, lambda s: one(s, -0.01)), {"weights.scales": (FAIL, LAYER)}),
    ("constant", "w4a16-group-sym", values(SCALE, lambda s: s * 0 + 0.013), {"weights.scales": (WARN, LAYER)}),
    ("group-shift", "w4a16-group-sym", values(SCALE, lambda s: np.roll(s, 1)), {"weights.error": (FAIL, LAYER)}),
    ("nibbles", "w4a16-group-sym", stored_bytes(PACKED, swap_nibbles), {"weights.error": (FAIL, LAYER)}),
    ("drift", "w4a16-group-sym", values(SCALE, lambda s: s * 1.05), {"weights.error": (FAIL, LAYER)}),
    ("too-large", "w4a16-group-sym", values(SCALE, lambda s: s * 2), {"weights.error": (FAIL, LAYER)}),
    ("coarse-scales", "w4a16-group-sym", values(SCALE, lambda s: s * 0 + s.max()), {"weights.error": (FAIL, LAYER)}),
    ("swapped", "w4a16-group-sym", swap_layers, {"weights.error": (FAIL, LAYER)}),
    ("zero-off", "w4a16-group-asym", integers(ZERO, "<u4", lambda z: z ^ 0x11111111), {"weights.error": (FAIL, LAYER)}),
    ("one-dense", "w4a16-group-sym", make_dense(LAYER, "llama"), {"layers.coverage": (FAIL, LAYER)}),
    ("expert-dense", "w4a16-experts", make_dense(EXPERT, "moe"), {"layers.coverage": (FAIL, EXPERT)}),
    ("expert-scale", "nvfp4a16-experts", lose(f"{EXPERT}.weight_scale"),
     {"layers.complete": (FAIL, f"{EXPERT}.weight_scale")}),
    ("wrong-shape", "w4a16-group-sym", integers(SHAPE, "<i8", lambda n: n[::-1] * [2, 1]),
     {"layers.complete": (FAIL, SHAPE)}),
    ("no-such-shape", "w4a16-group-sym", integers(SHAPE, "<i8", lambda n: n * -1),
     {"layers.complete": (FAIL, SHAPE)}),
    ("bits-lie", "w4a16-group-sym", scheme(num_bits=8), {"config.truthful": (FAIL, FIRST)}),
    ("group-lie", "w4a16-group-sym", scheme(group_size=32), {"config.truthful": (FAIL, FIRST)}),
    ("symmetry-lie", "w4a16-group-asym", scheme(symmetric=True), {"config.truthful": (FAIL, FIRST)}),
    ("order-lie", "w4a16-group-sym", scheme(actorder="group"), {"config.truthful": (FAIL, FIRST)}),
    ("type-lie", "w8a8-dynamic", scheme(type="float"), {"config.truthful": (FAIL, f"{DOWN}.weight")}),
    ("no-config", "w4a16-group-sym", no_config, {"config.present": (FAIL, FIRST)}),
    ("ignored", "w4a16-group-sym", ignoring(LAYER), {"layers.excluded": (FAIL, LAYER)}),
    ("ignored-kind", "w4a16-group-sym", ignoring("re:.*self_attn\\.q_proj$"), {"layers.excluded": (FAIL, LAYER)}),
    ("ignores-nothing", "w4a16-group-sym", ignoring("re:vision.*"), {"layers.excluded": (WARN, "re:vision.*")}),
    ("head-forgotten", "w4a16-group-sym", setting(ignore=[]), {"layers.coverage": (FAIL, "lm_head")}),
    ("misspelt", "w4a16-group-sym", scheme(num_bit=4), {"config.keys": (FAIL, f"{GROUP}.weights.num_bit")}),
    ("sparse", "w4a16-group-sym", setting(format="marlin-24"), {"config.keys": (FAIL, "quantization_config.format")}),
    ("decompressed", "w4a16-group-sym", decompress,
     {"config.present": (FAIL, "quantization_config"),
      "config.keys": (FAIL, "quantization_config.quantization_status")}),
    ("order-lost", "w4a16-actorder-asym", lose(ORDER), {"layers.complete": (FAIL, ORDER)}),
    ("beyond", "w4a16-actorder-asym", integers(ORDER, "<i4", lambda g: g + 1), {"layers.complete": (FAIL, ORDER)}),
    ("order-mixed", "w4a16-actorder-asym", integers(ORDER, "<i4", lambda g: g[::-1]), {"weights.error": (FAIL, LAYER)}),
    ("uneven", "w4a16-actorder-asym", integers(ORDER, "<i4", lambda g: g * 0), {"layers.complete": (FAIL, ORDER)}),
    ("bit-shift", "w3a16-group", stored_bytes(PACKED, lambda r: r >> 1), {"weights.error": (FAIL, LAYER)}),
    ("no-global", "nvfp4", lose(f"{LAYER}.weight_global_scale"),
     {"layers.complete": (FAIL, f"{LAYER}.weight_global_scale")}),
    ("global-doubled", "nvfp4", values(f"{LAYER}.weight_global_scale", lambda s: s * 2),
     {"weights.scales": (FAIL, LAYER), "weights.error": (FAIL, LAYER)}),
    ("global-zero", "nvfp4", values(f"{DOWN}.weight_global_scale", lambda s: s * 0), {"weights.scales": (FAIL, DOWN)}),
    ("no-input-global", "nvfp4", lose(f"{LAYER}.input_global_scale"),
     {"layers.complete": (FAIL, f"{LAYER}.input_global_scale")}),
    ("fp4-nibbles", "nvfp4", stored_bytes(PACKED, swap_nibbles), {"weights.error": (FAIL, LAYER)}),
    ("block-shift", "nvfp4", stored_bytes(SCALE, lambda s: np.roll(s, 1, axis=1)), {"weights.error": (FAIL, LAYER)}),
    ("exponents", "mxfp4", stored_bytes(SCALE, lambda e: e + 1), {"weights.error": (FAIL, LAYER)}),
    ("no-number", "mxfp4", stored_bytes(SCALE, lambda e: one(e, 255)), {"weights.scales": (FAIL, LAYER)}),
    ("rolled", "mxfp6a16", stored_bytes(PACKED, lambda r: np.roll(r, 1, axis=0)), {"weights.error": (FAIL, LAYER)}),
    ("exponents-8", "mxfp8", stored_bytes(SCALE, lambda e: e - 1), {"weights.error": (FAIL, LAYER)}),
    ("no-input", "fp8-static", lose(f"{LAYER}.input_scale"), {"layers.complete": (FAIL, f"{LAYER}.input_scale")}),
    ("input-zero", "fp8-static", values(f"{LAYER}.input_scale", lambda s: s * 0), {"weights.scales": (FAIL, LAYER)}),
    ("no-input-zero", "w8a8-static", lose(f"{LAYER}.input_zero_point"),
     {"layers.complete": (FAIL, f"{LAYER}.input_zero_point")}),
    ("fp8-no-scale", "fp8-dynamic", lose(SCALE), {"layers.complete": (FAIL, SCALE)}),
    ("fp8-nan", "fp8-dynamic", stored_bytes(PLAIN, lambda r: one(r, 0x7F)), {"weights.error": (FAIL, LAYER)}),
    ("fp8-cast", "fp8-dynamic", retype(PLAIN, "I8"), {"weights.error": (FAIL, LAYER)}),
    ("fp8-blocks", "fp8-block-partial", values(f"{DOWN}.weight_scale", lambda s: np.roll(s, 1)),
     {"weights.error": (FAIL, DOWN)}),
    ("block-lie", "fp8-block-partial", scheme(block_structure=[32, 40]), {"config.truthful": (FAIL, f"{DOWN}.weight")}),
    ("no-k-scale", "fp8-kv-cache", lose("model.layers.0.self_attn.k_scale"),
     {"layers.complete": (FAIL, "model.layers.0.self_attn.k_scale")}),
    ("k-scale-nan", "fp8-kv-cache", values("model.layers.0.self_attn.k_scale", lambda s: s * np.nan),
     {"weights.scales": (FAIL, "model.layers.0.self_attn.k_proj")}),
    ("int8-rows", "w8a8-dynamic", values(SCALE, lambda s: np.roll(s, 1)), {"weights.error": (FAIL, LAYER)}),
    ("int8-unsigned", "w8a8-dynamic", stored_bytes(PLAIN, lambda r: r ^ 128), {"weights.error": (FAIL, LAYER)}),
    ("format-lie", "fp8-dynamic", fault_format, {"config.truthful": (FAIL, f"{DOWN}.weight")}),
    ("int8-bits-lie", "w8a8-dynamic", scheme(num_bits=4), {"weights.codes": (FAIL, LAYER)}),
]  # fmt: skip


@pytest.mark.parametrize(("fixture", "fault", "expected"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
def test_a_planted_fault_is_found_where_it_is(fixture: str, fault: Fault, expected: Expected, tmp_path: Path) -> None:
    healthy = CHECKPOINTS / ID / fixture
    with damage(healthy, tmp_path / "damaged") as file:
        fault(file)
    judged = judge_files(tmp_path / "damaged", baseline_of(healthy))
    assert not judged.ids(Outcome.ERROR) - {"weights.codes", "weights.error", "weights.scales"}, judged.text()
    for check, (severity, where) in expected.items():
        found = [(finding.severity, finding.where) for finding in judged.results[check].findings]
        assert (severity, where) in found, judged.text()


def test_weights_of_a_group_of_another_format_are_named(tmp_path: Path) -> None:
    with damage(CHECKPOINTS / ID / "mixed-precision", tmp_path / "damaged") as file:
        groups = file.quantization["config_groups"]
        groups["group_2"]["format"] = "mxfp4-pack-quantized"  # type: ignore[index,call-overload]
    findings = judge_files(tmp_path / "damaged").results["config.truthful"].findings
    assert {finding.where for finding in findings} == {"model.layers.0.mlp.down_proj.weight_packed"}
    assert "format: config.json says mxfp4-pack-quantized" in findings[0].message


def test_zero_points_of_a_symmetric_scheme_may_be_written_if_they_are_zero(tmp_path: Path) -> None:
    healthy = CHECKPOINTS / ID / "w8a8-dynamic"
    with damage(healthy, tmp_path / "zeros") as file:
        for name in [name for name in file.tensors if name.endswith(".weight_scale")]:
            shape = file.tensors[name].shape
            file.put(name.replace("_scale", "_zero_point"), "I8", shape, bytes(shape[0]))
    judged = judge_files(tmp_path / "zeros", baseline_of(healthy))
    assert not judged.ids(Outcome.FAIL), judged.text()
    with damage(tmp_path / "zeros", tmp_path / "ones") as file:
        file.u8(ZERO)[:] = 1
    judged = judge_files(tmp_path / "ones", baseline_of(healthy))
    assert [finding.where for finding in judged.results["config.truthful"].findings] == [PLAIN]
