"""Sampled weights against all weights: how far the error of a layer deviates, and what a larger layer costs."""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path

from bench_processes import progress, table
from models import VARIANTS, WEIGHTS, judge_files, save_quantized

VARIANT_NAMES = ("nf4", "fp4", "int8")
WIDTHS = (2048, 8192, 32768)  # of square layers; each step has sixteen times the weights
LAYER = "model.layers.0.mlp.up_proj.weight"
MOST = 0.1  # deviation of a layer's R


def ratios(checkpoint: Path, baseline: Path, weights: str) -> tuple[dict[str, float], float]:
    """R of every layer, and the seconds it took."""
    begin = time.perf_counter()
    judged = judge_files(checkpoint, baseline, weights=weights)
    seconds = time.perf_counter() - begin
    rows = judged.measurements["weights"]
    return {row["layer"]: row["R"] for row in rows}, seconds


def deviations(baseline: Path) -> str:
    """The table over every layer of a real model in three variants."""
    rows = []
    for name in VARIANT_NAMES:
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = save_quantized(baseline, Path(folder) / name, VARIANTS[name])
            ratios(checkpoint, baseline, "sampled")  # so that both read from memory
            full, full_seconds = ratios(checkpoint, baseline, "full")
            sampled, seconds = ratios(checkpoint, baseline, "sampled")
        assert full.keys() == sampled.keys()
        worst, layer = max((abs(sampled[layer] / value - 1), layer) for layer, value in full.items())
        cost = f"{seconds:.2f} s against {full_seconds:.2f} s"
        rows.append((name, f"{len(full)}", f"{worst:.1%} ({layer})", f"≤ {MOST:.0%}", cost))
        progress(" ".join(rows[-1]))
    return table(("SmolLM2-135M", "layers", "largest deviation of R, sampled against full", "bar", "time"), *rows)


def growth() -> str:
    """The table of what one sampled layer costs as it grows; the data are holes, which read as fast as any."""
    rows = []
    for width in WIDTHS:
        with tempfile.TemporaryDirectory() as folder:
            checkpoint, baseline = Path(folder) / "nf4", Path(folder) / "dense"
            _write_layer(checkpoint, baseline, width)
            times = []
            for _ in range(3):
                begin = time.perf_counter()
                judged = judge_files(checkpoint, baseline, weights="sampled")
                times.append(time.perf_counter() - begin)
            assert judged.measurements["weights"], judged.text()
        rows.append((f"{width} x {width}", f"{width * width / 1e6:,.0f} million", f"{min(times) * 1e3:.0f} ms"))
        progress(" ".join(rows[-1]))
    return table(("one NF4 layer, sampled", "weights", "time"), *rows, right=2)


def _write_layer(checkpoint: Path, baseline: Path, width: int) -> None:
    state = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [width, width]}
    raw = json.dumps(state).encode()
    count = width * width
    shapes = {
        f"{LAYER}.quant_state.bitsandbytes__nf4": ("U8", [len(raw)], len(raw)),
        f"{LAYER}.quant_map": ("F32", [16], 64),
        f"{LAYER}.absmax": ("F32", [count // 64], count // 16),
        LAYER: ("U8", [count // 2, 1], count // 2),
    }
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16"}
    quantization = {**VARIANTS["nf4"], "bnb_4bit_quant_storage": "uint8"}
    for folder, tensors, data, settings in (
        (checkpoint, shapes, raw, {**config, "quantization_config": quantization}),
        (baseline, {LAYER: ("BF16", [width, width], 2 * count)}, b"", config),
    ):
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(settings), "utf-8")
        header, reached = {}, 0
        for name, (dtype, shape, size) in tensors.items():
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [reached, reached + size]}
            reached += size
        text = json.dumps(header).encode()
        with (folder / WEIGHTS).open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text + data)
            file.flush()
            os.truncate(file.fileno(), 8 + len(text) + reached)
