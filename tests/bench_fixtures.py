"""Who sees what in checkpoints of other methods: the fixtures that the real tools made, with one damage each.

Only headers and stored numbers are compared: these models are tiny and random, so nothing can be said of their outputs.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from bench_damage import Said, ask_grit, ask_us, sees
from bench_peers import Peers
from bench_processes import progress, table
from decoding import CHECKPOINTS, baseline_of
from models import WEIGHTS, Damaged, damage, read_checkpoint

LAYER = "model.layers.1.mlp.down_proj"
OTHER = "model.layers.0.mlp.down_proj"
WIDTH = {"F16": 2, "BF16": 2, "F32": 4}


@dataclass(frozen=True)
class Kind:
    """One fixture: the last names of its tensors, and the number in its config that a lie changes."""

    fixture: str
    codes: str
    scales: str
    zeros: str = ""
    lie: tuple[str, ...] = ()  # path within the quantization_config
    lied: Any = None

    def tensor(self, suffix: str) -> str:
        return f"{LAYER}.{suffix}"


GROUP = ("config_groups", "group_0", "weights")
KINDS = (
    Kind("gptq/w4-g64-sym", "qweight", "scales", "qzeros", ("group_size",), 128),
    Kind("awq/w4-g64-gemm", "qweight", "scales", "qzeros", ("group_size",), 128),
    Kind("compressed-tensors/w4a16-group-sym", "weight_packed", "weight_scale", "", (*GROUP, "group_size"), 128),
    Kind("compressed-tensors/w8a8-dynamic", "weight", "weight_scale", "", (*GROUP, "strategy"), "tensor"),
    Kind("fp8/block-32x64", "weight", "weight_scale_inv", "", ("weight_block_size",), [128, 128]),
)
Change = Callable[[Damaged, Kind, Path], None]


def nothing(_: Damaged, __: Kind, ___: Path) -> None:
    """The healthy copy."""


def swapped_codes(file: Damaged, kind: Kind, _: Path) -> None:
    """Nibbles swapped; of 8-bit codes neighbours."""
    codes = file.u8(kind.tensor(kind.codes))
    if file.tensors[kind.tensor(kind.codes)].dtype == "I32":
        codes[:] = (codes << 4) | (codes >> 4)
    else:
        codes[:] = codes.reshape(-1, 2)[:, ::-1].reshape(-1)


def zero_scales(file: Damaged, kind: Kind, _: Path) -> None:
    file.u8(kind.tensor(kind.scales))[:] = 0


def nan_scale(file: Damaged, kind: Kind, _: Path) -> None:
    name = kind.tensor(kind.scales)
    file.u8(name)[: WIDTH[file.tensors[name].dtype]] = 0xFF


def shifted_scales(file: Damaged, kind: Kind, _: Path) -> None:
    name = kind.tensor(kind.scales)
    scales = file.u8(name)
    scales[:] = np.roll(scales, WIDTH[file.tensors[name].dtype])


def shifted_zeros(file: Damaged, kind: Kind, _: Path) -> None:
    """Every zero point one larger, as when one tool's convention is read as the other's."""
    if kind.zeros:
        words = file.tensors[kind.tensor(kind.zeros)].view("<u4")
        words[:] = words + np.uint32(0x11111111)


def no_scales(file: Damaged, kind: Kind, _: Path) -> None:
    del file.tensors[kind.tensor(kind.scales)]


def other_dtype(file: Damaged, kind: Kind, _: Path) -> None:
    """Scales stored in eight bits."""
    name = kind.tensor(kind.scales)
    shape = file.tensors[name].shape
    file.put(name, "I8", shape, bytes(int(np.prod(shape))))


def half_scales(file: Damaged, kind: Kind, _: Path) -> None:
    """One row of scales too few."""
    tensor = file.tensors[kind.tensor(kind.scales)]
    axis = 0 if tensor.shape[0] > 1 else 1
    shape = [size - (number == axis) for number, size in enumerate(tensor.shape)]
    file.put(
        kind.tensor(kind.scales), tensor.dtype, shape, bytes(tensor.data[: int(np.prod(shape)) * WIDTH[tensor.dtype]])
    )


def swapped_layers(file: Damaged, _: Kind, __: Path) -> None:
    for name in [name for name in file.tensors if name.startswith(f"{LAYER}.")]:
        twin = OTHER + name.removeprefix(LAYER)
        file.tensors[name], file.tensors[twin] = file.tensors[twin], file.tensors[name]


def dense_layer(file: Damaged, _: Kind, baseline: Path) -> None:
    source = read_checkpoint(baseline).tensors[f"{LAYER}.weight"]
    for name in [name for name in file.tensors if name.startswith(f"{LAYER}.") and not name.endswith("bias")]:
        del file.tensors[name]
    file.put(f"{LAYER}.weight", source.dtype, source.shape, bytes(source.data))


def lying_config(file: Damaged, kind: Kind, _: Path) -> None:
    *path, last = kind.lie
    place: Any = file.quantization
    for key in path:
        place = place[key]
    place[last] = kind.lied


def no_config(file: Damaged, _: Kind, __: Path) -> None:
    del file.config["quantization_config"]


CHANGES: dict[str, Change] = {
    "healthy": nothing,
    "codes of one layer swapped in pairs": swapped_codes,
    "scales of one layer zero": zero_scales,
    "one scale is NaN": nan_scale,
    "scales of one layer shifted by one group": shifted_scales,
    "zero points of one layer one larger": shifted_zeros,
    "two layers swapped": swapped_layers,
    "scales of one layer missing": no_scales,
    "scales of one layer in another dtype": other_dtype,
    "one row of scales missing": half_scales,
    "one layer left dense": dense_layer,
    "config lies about group, block or strategy": lying_config,
    "config has no quantization_config": no_config,
}


def judge_all(peers: Peers) -> str:
    """One row for each damage, one column for each fixture; in a cell what this checker and grit-scan see."""
    healthy: dict[str, list[Said]] = {}
    rows = []
    seen = [0, 0]
    count = 0
    for name, change in CHANGES.items():
        cells = []
        for kind in KINDS:
            if change is shifted_zeros and not kind.zeros:
                cells.append("")
                continue
            said = _ask(kind, change, peers)
            usual = healthy.setdefault(kind.fixture, said)
            if change is nothing:
                cells.append(" / ".join(f"exit {one.code}" for one in said))
                continue
            marks = [sees(one, other) for one, other in zip(said, usual, strict=True)]
            count += 1
            seen = [total + mark for total, mark in zip(seen, marks, strict=False)]
            cells.append(" / ".join("●" if mark else "○" for mark in marks))
            progress(f"{name}, {kind.fixture}: {[(one.code, one.short) for one in said]}")
        rows.append((name, *cells))
    who = (
        f"Left quant-verify, right grit-scan. Seen: quant-verify {seen[0]} of {count}, grit-scan {seen[1]} of {count}."
    )
    if not peers.has("grit-scan"):
        who = f"Seen: {seen[0]} of {count}. {peers.reason}"
    head = ("damage", *(kind.fixture for kind in KINDS))
    return f"One damage in a copy of a fixture, ● seen, ○ not. {who}\n\n{table(head, *rows)}"


def _ask(kind: Kind, change: Change, peers: Peers) -> list[Said]:
    healthy = CHECKPOINTS / kind.fixture
    baseline = baseline_of(healthy)
    with tempfile.TemporaryDirectory() as folder:
        source, copy = Path(folder) / "source", Path(folder) / "copy"
        source.mkdir()
        for name in ("config.json", WEIGHTS):  # not the record of how the fixture was made
            shutil.copyfile(healthy / name, source / name)
        with damage(source, copy) as file:
            change(file, kind, baseline)
        return [ask_us(copy, baseline), *([ask_grit(copy, peers)] if peers.has("grit-scan") else [])]
