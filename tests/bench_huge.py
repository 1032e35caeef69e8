"""A checkpoint of DeepSeek-V3's shape: time and memory of a verdict on its structure, and how they grow."""

from __future__ import annotations

import tempfile
from pathlib import Path

import huge
from bench_processes import MEGABYTE, median, progress, table

SIZES = (16, 31, huge.LAYERS)  # layers
RUNS = 3


def measure_sizes() -> str:
    """The table of three sizes."""
    rows = []
    for layers in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "checkpoint"
            count = huge.write(target, layers)
            shards = len(list(target.glob("*.safetensors")))
            result = median("check", str(target), "--weights", "off", "--quiet", runs=RUNS)
        assert result.code == 0, result.output + result.errors
        bars = ("≤ 4 s", "≤ 500 MB") if layers == huge.LAYERS else ("", "")
        rows.append(
            (
                f"{count:,} tensors in {shards} shards",
                f"{result.seconds:.2f} s",
                bars[0],
                f"{result.seconds / count * 1e6:.0f} µs",
                f"{result.largest_bytes / MEGABYTE:.0f} MB",
                bars[1],
            )
        )
        progress(" ".join(rows[-1]))
    head = ("headers of DeepSeek-V3's shape", "time", "bar", "per tensor", "memory", "bar")
    return table(head, *rows, right=5)
