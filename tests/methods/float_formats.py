"""What the tests of the float formats share: comparing with the library's values, and planting faults in fixtures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
from decoding import CHECKPOINTS, assert_windows_agree, baseline_of, decode, method_of, open_fixture
from models import Damaged, Judged, Stored, damage, judge_files, read_tensors

from checker.domain import Severity

Fault = Callable[[Damaged], None]
FLOAT_TYPES = {"F32": np.float32, "BF16": ml_dtypes.bfloat16}


def assert_equals_library(method_id: str, name: str, *, exponent_only: bool = False) -> None:
    """Every weight that the tool decoded when the fixture was made: equal to the last bit in the dtype it gave.

    ``exponent_only``: the tool multiplies in another order, and may differ by one unit in the last place of float32.
    """
    checkpoint, weights = open_fixture(method_id, name)
    method = method_of(method_id)
    values, _ = read_tensors(CHECKPOINTS / method_id / name / "dequantized.tensors")
    assert values
    for dense, tensor in values.items():
        kind = FLOAT_TYPES[tensor.dtype]
        wanted = np.frombuffer(tensor.data, kind).reshape(tensor.shape).astype(np.float32)
        weight = weights[dense]
        found = decode(method, checkpoint, weight).astype(kind).astype(np.float32)
        if exponent_only:
            np.testing.assert_allclose(found, wanted, rtol=2.0**-22, atol=0)
        else:
            np.testing.assert_array_equal(found, wanted)
        assert_windows_agree(method, checkpoint, weight)


def assert_level(method_id: str, name: str, level: float) -> None:
    """R of every layer lies within 0.1 of what the layout gives."""
    folder = CHECKPOINTS / method_id / name
    judged = judge_files(folder, baseline_of(folder), checks=("weights.error",))
    rows = judged.measurements["weights"]
    assert rows
    for row in rows:
        assert abs(row["R"] - level) <= 0.1, row


def judge_fault(method_id: str, name: str, target: Path, fault: Fault) -> Judged:
    """What the checks say of a fixture with a fault in it, beside its baseline."""
    healthy = CHECKPOINTS / method_id / name
    with damage(healthy, target / "damaged") as damaged:
        fault(damaged)
    return judge_files(target / "damaged", baseline_of(healthy))


def assert_finds(judged: Judged, check: str, where: str, severity: Severity = Severity.FAIL) -> None:
    """The check reports a finding of that severity at that tensor or layer."""
    found = [(item.where, item.severity) for item in judged.results[check].findings]
    assert (where, severity) in found, judged.text()


def drop(name: str) -> Fault:
    def fault(damaged: Damaged) -> None:
        del damaged.tensors[name]

    return fault


def retype(name: str, dtype: str, item_bytes: int) -> Fault:
    """Another dtype for a tensor, of the same shape, filled with ones."""

    def fault(damaged: Damaged) -> None:
        count = int(np.prod(damaged.tensors[name].shape))
        damaged.tensors[name] = Stored(dtype, damaged.tensors[name].shape, bytearray(b"\x01" * count * item_bytes))

    return fault


def change(name: str, dtype: str, edit: Callable[[np.ndarray], object]) -> Fault:
    """Edit a tensor's values in place; the array has the tensor's shape."""

    def fault(damaged: Damaged) -> None:
        tensor = damaged.tensors[name]
        edit(tensor.view(dtype).reshape(tensor.shape))

    return fault


def shift(array: np.ndarray, axis: int = -1) -> None:
    """Every value one place on along an axis."""
    array[...] = np.roll(array, 1, axis=axis)


def swap_nibbles(array: np.ndarray) -> None:
    codes = array.view(np.uint8)
    codes[...] = codes >> 4 | codes << 4


def swap(first: str, second: str) -> Fault:
    """The data of two tensors in each other's place."""

    def fault(damaged: Damaged) -> None:
        damaged.tensors[first], damaged.tensors[second] = damaged.tensors[second], damaged.tensors[first]

    return fault


def together(*faults: Fault) -> Fault:
    def fault(damaged: Damaged) -> None:
        for item in faults:
            item(damaged)

    return fault


def dense(name: str, shape: list[int], *lost: str) -> Fault:
    """A tensor in bfloat16 in place of others."""

    def fault(damaged: Damaged) -> None:
        for other in lost:
            del damaged.tensors[other]
        values = np.random.default_rng(0).normal(0, 0.02, shape).astype(ml_dtypes.bfloat16)
        damaged.tensors[name] = Stored("BF16", shape, bytearray(values.tobytes()))

    return fault


def declare(**settings: object) -> Fault:
    """Other values in the quantization_config; None takes a key away."""

    def fault(damaged: Damaged) -> None:
        for key, value in settings.items():
            if value is None:
                damaged.quantization.pop(key)
            else:
                damaged.quantization[key] = value

    return fault


def undeclared(damaged: Damaged) -> None:
    """The quantization_config is lost."""
    del damaged.config["quantization_config"]
