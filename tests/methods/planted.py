"""Faults planted in fixtures, in the words that tests of several methods share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from decoding import CHECKPOINTS, baseline_of
from models import Damaged, Judged, damage, judge_files, read_tensors

from checker.domain import Severity

FAIL, WARN = Severity.FAIL, Severity.WARN
Fault = Callable[[Damaged], None]
Row = tuple[str, str, Fault, str, tuple[Severity, str]]
"""name, fixture, fault, id of the check that finds it, (severity, place) of one of its findings."""

NUMPY = {"F16": "<f2", "F32": "<f4", "I16": "<i2", "I32": "<i4", "I64": "<i8", "I8": "i1", "U8": "u1"}


def judged(method: str, fixture: str, fault: Fault, folder: Path) -> Judged:
    """What the static checks say of a damaged copy, with its baseline."""
    healthy = CHECKPOINTS / method / fixture
    with damage(healthy, folder / "damaged") as file:
        fault(file)
    return judge_files(folder / "damaged", baseline_of(healthy))


def assert_found(method: str, row: Row, folder: Path) -> None:
    """The fault is found by that check, at that severity and place."""
    _, fixture, fault, check, expected = row
    result = judged(method, fixture, fault, folder)
    assert expected in {(item.severity, item.where) for item in result.results[check].findings}, result.text()


def drop(*names: str) -> Fault:
    def fault(file: Damaged) -> None:
        for name in names:
            del file.tensors[name]

    return fault


def fill(name: str, value: float) -> Fault:
    """All numbers of a tensor become one."""

    def fault(file: Damaged) -> None:
        tensor = file.tensors[name]
        if tensor.dtype == "BF16":
            tensor.view("<u2")[:] = np.float32(value).view(np.uint32) >> 16
        else:
            tensor.view(NUMPY[tensor.dtype])[:] = value

    return fault


def one(name: str, place: int, value: float) -> Fault:
    """One number of a tensor changes."""

    def fault(file: Damaged) -> None:
        file.tensors[name].view(NUMPY[file.tensors[name].dtype])[place] = value

    return fault


def as_dtype(name: str, dtype: str) -> Fault:
    """The tensor is stored in another dtype, all zeros."""

    def fault(file: Damaged) -> None:
        shape = file.tensors[name].shape
        file.put(name, dtype, shape, bytes(int(np.prod(shape)) * np.dtype(NUMPY[dtype]).itemsize))

    return fault


def cut_row(name: str) -> Fault:
    """The first dimension loses one."""

    def fault(file: Damaged) -> None:
        tensor = file.tensors[name]
        row = len(tensor.data) // tensor.shape[0]
        file.put(name, tensor.dtype, [tensor.shape[0] - 1, *tensor.shape[1:]], bytes(tensor.data[:-row]))

    return fault


def setting(key: str, value: object) -> Fault:
    def fault(file: Damaged) -> None:
        file.quantization[key] = value

    return fault


def no_config(file: Damaged) -> None:
    del file.config["quantization_config"]


def dense(method: str, fixture: str, layer: str) -> Fault:
    """One layer as the baseline has it."""

    def fault(file: Damaged) -> None:
        stored, _ = read_tensors(baseline_of(CHECKPOINTS / method / fixture) / "model.safetensors")
        for name in list(file.tensors):
            if name.startswith(f"{layer}."):
                del file.tensors[name]
        for name, tensor in stored.items():
            if name.startswith(f"{layer}."):
                file.tensors[name] = tensor

    return fault
