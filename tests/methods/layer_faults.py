"""Faults of one layer, for methods that keep a layer's tensors under its name: what their tests of faults share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from decoding import FIXTURES
from models import Damaged, read_tensors

MODULE = "model.layers.0.self_attn.q_proj"
OTHER = "model.layers.1.self_attn.q_proj"
FIRST = "model.layers.0.mlp.down_proj"  # stands for all weights in a finding about the config
Fault = Callable[[Damaged], None]


def drop(part: str) -> Fault:
    def fault(file: Damaged) -> None:
        del file.tensors[f"{MODULE}.{part}"]

    return fault


def put(part: str, dtype: str, shape: list[int], size: int) -> Fault:
    def fault(file: Damaged) -> None:
        file.put(f"{MODULE}.{part}", dtype, shape, bytes(size))

    return fault


def fill(part: str, kind: str, value: float) -> Fault:
    def fault(file: Damaged) -> None:
        file.tensors[f"{MODULE}.{part}"].view(kind)[:] = value

    return fault


def roll(part: str, kind: str, by: int = 1) -> Fault:
    def fault(file: Damaged) -> None:
        values = file.tensors[f"{MODULE}.{part}"].view(kind)
        values[:] = np.roll(values, by)

    return fault


def swap_layers(*parts: str) -> Fault:
    def fault(file: Damaged) -> None:
        for part in parts:
            one, two = f"{MODULE}.{part}", f"{OTHER}.{part}"
            file.tensors[one], file.tensors[two] = file.tensors[two], file.tensors[one]

    return fault


def declare(**changes: object) -> Fault:
    def fault(file: Damaged) -> None:
        file.quantization.update(changes)

    return fault


def no_config(file: Damaged) -> None:
    del file.config["quantization_config"]


def leave_dense(file: Damaged) -> None:
    tensors, _ = read_tensors(FIXTURES / "baselines" / "llama" / "model.safetensors")
    for name in [name for name in file.tensors if name.startswith(f"{MODULE}.")]:
        del file.tensors[name]
    file.tensors[f"{MODULE}.weight"] = tensors[f"{MODULE}.weight"]
