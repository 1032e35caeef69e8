"""Ways to damage files of packed integers (GPTQ, AWQ, AutoRound), and a look at what the checks say."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from decoding import CHECKPOINTS, baseline_of
from models import Damaged, damage, judge_files, read_tensors

from checker.domain import Finding, Outcome

Fault = Callable[[Damaged], None]
Values = npt.NDArray[np.float16]


def lose(name: str) -> Fault:
    def fault(file: Damaged) -> None:
        del file.tensors[name]

    return fault


def scales(name: str, change: Callable[[Values], Values]) -> Fault:
    """Change float16 numbers in the shape of their tensor."""

    def fault(file: Damaged) -> None:
        tensor = file.tensors[name]
        numbers = tensor.view("<f2").reshape(tensor.shape)
        numbers[:] = change(numbers.copy())

    return fault


def words(name: str, change: Callable[[npt.NDArray[np.uint32]], npt.NDArray[np.uint32]]) -> Fault:
    """Change 32-bit words in the shape of their tensor."""

    def fault(file: Damaged) -> None:
        tensor = file.tensors[name]
        numbers = tensor.view("<u4").reshape(tensor.shape)
        numbers[:] = change(numbers.copy())

    return fault


def raw(name: str, change: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]) -> Fault:
    """Change a tensor's bytes, a row of them for each of its rows."""

    def fault(file: Damaged) -> None:
        tensor = file.tensors[name]
        numbers = tensor.view("u1").reshape(tensor.shape[0], -1)
        numbers[:] = change(numbers.copy())

    return fault


def swap_nibbles(numbers: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    low = np.uint32(0x0F0F0F0F)
    return (numbers & low) << np.uint32(4) | (numbers >> np.uint32(4)) & low


def one(value: float) -> Callable[[Values], Values]:
    def change(numbers: Values) -> Values:
        numbers.reshape(-1)[3] = value
        return numbers

    return change


def widen(name: str) -> Fault:
    """Store float16 numbers as float32."""

    def fault(file: Damaged) -> None:
        tensor = file.tensors[name]
        file.put(name, "F32", tensor.shape, tensor.view("<f2").astype("<f4").tobytes())

    return fault


def cut_row(name: str) -> Fault:
    """Leave out the last row of a matrix."""

    def fault(file: Damaged) -> None:
        tensor = file.tensors[name]
        rows = tensor.shape[0]
        kept = bytes(tensor.data[: len(tensor.data) // rows * (rows - 1)])
        file.put(name, tensor.dtype, [rows - 1, *tensor.shape[1:]], kept)

    return fault


def swap(first: str, second: str, parts: tuple[str, ...]) -> Fault:
    """Exchange two layers of one shape."""

    def fault(file: Damaged) -> None:
        for part in parts:
            one_name, other = f"{first}.{part}", f"{second}.{part}"
            file.tensors[one_name], file.tensors[other] = file.tensors[other], file.tensors[one_name]

    return fault


def left_dense(module: str, baseline: Path) -> Fault:
    """Put the baseline's dense weight in the place of a packed one."""

    def fault(file: Damaged) -> None:
        for name in [name for name in file.tensors if name.startswith(f"{module}.")]:
            del file.tensors[name]
        dense, _ = read_tensors(baseline / "model.safetensors")
        file.tensors[f"{module}.weight"] = dense[f"{module}.weight"]

    return fault


def config(**changes: object) -> Fault:
    """Change keys of the quantization_config; None removes one."""

    def fault(file: Damaged) -> None:
        for key, value in changes.items():
            if value is None:
                file.quantization.pop(key, None)
            else:
                file.quantization[key] = value  # type: ignore[assignment]

    return fault


def no_config(file: Damaged) -> None:
    del file.config["quantization_config"]


def findings(method: str, name: str, fault: Fault, target: Path, *, baseline: bool = True) -> dict[str, list[Finding]]:
    """What each check finds in a damaged copy of a fixture, the warnings of the healthy one left out."""
    healthy = CHECKPOINTS / method / name
    origin = baseline_of(healthy) if baseline else None
    known = {(check, _plain(item)) for check, found in _judge(healthy, origin).items() for item in found}
    with damage(healthy, target) as file:
        fault(file)
    found = _judge(target, origin)
    left = {check: [item for item in items if (check, _plain(item)) not in known] for check, items in found.items()}
    return {check: items for check, items in left.items() if items}


def _judge(folder: Path, baseline: Path | None) -> dict[str, list[Finding]]:
    judged = judge_files(folder, baseline)
    assert not judged.ids(Outcome.ERROR) - {"weights.scales", "weights.codes", "weights.error"}, judged.text()
    return {check: list(result.findings) for check, result in judged.results.items()}


def _plain(item: Finding) -> str:
    return re.sub(r"[\d.,]+", "#", item.message) + item.where
