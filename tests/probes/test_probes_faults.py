"""Faults planted in real checkpoints: each is found by the checks that should find it, and they name the place."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from models import Damaged, Zoo, damage, judge_files, read_tensors

from checker.domain import Outcome, Severity

LAYER = "model.layers.0.self_attn.q_proj"
WEIGHT = f"{LAYER}.weight"
OTHER = "model.layers.1.self_attn.q_proj"
LINEARS = [
    f"model.layers.{number}.{name}"
    for number in range(2)
    for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
]


class Copy:
    """What a fault may use: the copy to damage, and the baseline's tensors."""

    def __init__(self, damaged: Damaged, baseline: Path) -> None:
        self.file = damaged
        self.baseline = baseline

    def make_dense(self, layer: str) -> None:
        for name in [*self.file.parts(f"{layer}.weight"), f"{layer}.weight"]:
            self.file.tensors.pop(name, None)
        dense, _ = read_tensors(self.baseline / "model.safetensors")
        self.file.tensors[f"{layer}.weight"] = dense[f"{layer}.weight"]


def swap_nibbles(copy: Copy) -> None:
    codes = copy.file.u8(WEIGHT)
    codes[:] = codes >> 4 | codes << 4


def shift_absmax(copy: Copy) -> None:
    scales = copy.file.f32(f"{WEIGHT}.absmax")
    scales[:] = np.roll(scales, 1)


def shift_nested(copy: Copy) -> None:
    scales = copy.file.u8(f"{WEIGHT}.absmax")
    scales[:] = np.roll(scales, 1)


def zero_absmax(copy: Copy) -> None:
    copy.file.f32(f"{WEIGHT}.absmax")[:] = 0


def zero_one_absmax(copy: Copy) -> None:
    copy.file.f32(f"{WEIGHT}.absmax")[3] = 0


def negative_absmax(copy: Copy) -> None:
    copy.file.f32(f"{WEIGHT}.absmax")[3] *= -1


def constant_absmax(copy: Copy) -> None:
    scales = copy.file.f32(f"{WEIGHT}.absmax")
    scales[:] = scales.mean()


def nested(value: float) -> Callable[[Copy], None]:
    def fault(copy: Copy) -> None:
        copy.file.f32(f"{WEIGHT}.nested_absmax")[:] = value

    return fault


def nested_lost(copy: Copy) -> None:
    del copy.file.tensors[f"{WEIGHT}.nested_absmax"]


def overwrite_quant_map(copy: Copy) -> None:
    copy.file.f32(f"{WEIGHT}.quant_map")[:] = np.linspace(-1, 1, 16)


def nan_quant_map(copy: Copy) -> None:
    copy.file.f32(f"{WEIGHT}.quant_map")[5] = np.nan


def overwrite_nested_map(copy: Copy) -> None:
    copy.file.f32(f"{WEIGHT}.nested_quant_map")[:] = np.linspace(-1, 1, 256)


def one_dense(copy: Copy) -> None:
    copy.make_dense(LAYER)


def half_dense(copy: Copy) -> None:
    for layer in LINEARS[:7]:
        copy.make_dense(layer)


def all_dense(copy: Copy) -> None:
    copy.file.tensors, _ = read_tensors(copy.baseline / "model.safetensors")


def config(**changes: object) -> Callable[[Copy], None]:
    def fault(copy: Copy) -> None:
        copy.file.quantization.update(changes)

    return fault


def no_config(copy: Copy) -> None:
    del copy.file.config["quantization_config"]


def set_config(value: object) -> Callable[[Copy], None]:
    def fault(copy: Copy) -> None:
        copy.file.config["quantization_config"] = value

    return fault


def lose(*endings: str) -> Callable[[Copy], None]:
    def fault(copy: Copy) -> None:
        for ending in endings:
            name = next(name for name in copy.file.tensors if name.startswith(f"{LAYER}{ending}"))
            del copy.file.tensors[name]

    return fault


def lose_state(copy: Copy) -> None:
    for name in copy.file.parts(WEIGHT):
        del copy.file.tensors[name]


def rename_quant_type(copy: Copy) -> None:
    name = copy.file.state_name(WEIGHT)
    copy.file.tensors[name.replace("nf4", "fp4")] = copy.file.tensors.pop(name)


def state(**changes: object) -> Callable[[Copy], None]:
    def fault(copy: Copy) -> None:
        copy.file.set_state(WEIGHT, {**copy.file.state(WEIGHT), **changes})

    return fault


def scb(value: float) -> Callable[[Copy], None]:
    def fault(copy: Copy) -> None:
        copy.file.f32(f"{LAYER}.SCB")[7] = value

    return fault


def roll_scb(copy: Copy) -> None:
    scales = copy.file.f32(f"{LAYER}.SCB")
    scales[:] = np.roll(scales, 1)


def tile_order(copy: Copy) -> None:
    copy.file.u8(f"{LAYER}.weight_format")[:] = 2


def second_head(copy: Copy) -> None:
    embedding = copy.file.tensors["model.embed_tokens.weight"]
    copy.file.put("lm_head.weight", embedding.dtype, embedding.shape, bytes(embedding.data))


def no_head(copy: Copy) -> None:
    del copy.file.tensors["lm_head.weight"]


def extra_tensor(copy: Copy) -> None:
    copy.file.put("model.layers.0.left_over", "F32", [4], bytes(16))


def swap_layers(copy: Copy) -> None:
    for ending in ("", ".absmax"):
        one, other = f"{WEIGHT}{ending}", f"{OTHER}.weight{ending}"
        copy.file.tensors[one], copy.file.tensors[other] = copy.file.tensors[other], copy.file.tensors[one]


def drift(copy: Copy) -> None:
    copy.file.f32(f"{WEIGHT}.absmax")[:] *= np.float32(1.05)


def drift_scb(copy: Copy) -> None:
    copy.file.f32(f"{LAYER}.SCB")[:] *= np.float32(1.05)


def shorten(ending: str, less: int) -> Callable[[Copy], None]:
    def fault(copy: Copy) -> None:
        tensor = copy.file.tensors[f"{LAYER}.weight{ending}"]
        size = len(tensor.data) // tensor.shape[0]
        del tensor.data[len(tensor.data) - less * size :]
        tensor.shape[0] -= less

    return fault


def as_int8(copy: Copy) -> None:
    copy.file.tensors[WEIGHT].dtype = "I8"


def quantize_embedding(copy: Copy) -> None:
    for name in copy.file.parts(WEIGHT):
        copy.file.tensors[name.replace(LAYER, "model.embed_tokens")] = copy.file.tensors[name]
    copy.file.tensors["model.embed_tokens.weight"] = copy.file.tensors[WEIGHT]


FAIL, WARN = Severity.FAIL, Severity.WARN
FAULTS = []


@pytest.mark.parametrize(
    ("model", "variant", "fault"),
    [
        ("llama", "nf4", "swap_nibbles"),
        ("llama", "nf4", "shift_absmax"),
        ("llama", "nf4-double", "shift_nested"),
        ("llama", "nf4", "zero_absmax"),
        ("llama", "nf4", "zero_one_absmax"),
        ("llama", "nf4", "negative_absmax"),
        ("llama", "nf4", "constant_absmax"),
        ("llama", "nf4-double", "nested(np.nan)"),
        ("llama", "nf4-double", "nested(np.inf)"),
        ("llama", "nf4-double", "nested(0)"),
        ("llama", "nf4-double", "nested_lost"),
        ("llama", "nf4", "overwrite_quant_map"),
        ("llama", "nf4", "nan_quant_map"),
        ("llama", "nf4-double", "overwrite_nested_map"),
        ("llama", "nf4", "one_dense"),
        ("llama", "nf4", "half_dense"),
        ("llama", "nf4", "all_dense"),
        ("llama", "nf4", "config(bnb_4bit_quant_type='fp4')"),
        ("llama", "nf4-double", "config(bnb_4bit_use_double_quant=False)"),
        ("llama", "nf4", "config(bnb_4bit_use_double_quant=True)"),
        ("llama", "nf4", "no_config"),
        ("llama", "nf4", "set_config({})"),
        ("llama", "nf4", "set_config([1])"),
        ("llama", "nf4", "set_config(None)"),
        ("llama", "nf4", "config(quant_method='bitsnbytes')"),
        ("llama", "nf4", "config(quant_method='gptq')"),
        ("llama", "nf4", "config(quant_method=4)"),
        ("llama", "nf4", "config(bnb_4bit_quant_typo='nf4')"),
        ("llama", "nf4", "config(load_in_8bit=True)"),
        ("llama", "nf4", "config(load_in_4bit=False)"),
        ("llama", "nf4", "config(load_in_4bit=False, load_in_8bit=True, _load_in_4bit=False, _load_in_8bit=True)"),
        ("llama", "nf4", "config(bnb_4bit_compute_dtype='float12')"),
        ("llama", "nf4", "config(llm_int8_skip_modules=['model'])"),
        ("llama", "nf4", "lose('.weight.absmax')"),
        ("llama", "nf4", "lose('.weight.quant_map')"),
        ("llama", "nf4", "lose('.weight.quant_state')"),
        ("llama", "nf4", "lose_state"),
        ("llama", "nf4", "rename_quant_type"),
        ("llama", "nf4", "state(shape=[63, 64])"),
        ("llama", "nf4", "state(quant_type='fp4')"),
        ("llama", "nf4", "state(dtype='float16')"),
        ("llama", "nf4", "state(blocksize=128)"),
        ("llama", "int8", "scb(0)"),
        ("llama", "int8", "scb(np.nan)"),
        ("llama", "int8", "roll_scb"),
        ("llama", "int8", "tile_order"),
        ("llama", "int8", "lose('.SCB')"),
        ("llama", "int8", "drift_scb"),
        ("llama", "int8", "one_dense"),
        ("llama", "nf4", "config(llm_int8_skip_modules=['model.layers.0.self_attn.q_proj', 'lm_head'])"),
        ("llama-tied", "nf4", "second_head"),
        ("llama", "nf4", "no_head"),
        ("llama", "nf4", "extra_tensor"),
        ("llama", "nf4", "swap_layers"),
        ("llama", "nf4", "drift"),
        ("llama", "nf4", "shorten('', 32)"),
        ("llama", "nf4", "shorten('.absmax', 1)"),
        ("llama", "nf4", "as_int8"),
        ("llama", "nf4", "quantize_embedding"),
    ],
)
def test_dev(zoo: Zoo, tmp_path: Path, model, variant, fault):
    with damage(zoo.quantized(model, variant), tmp_path / "copy") as damaged:
        eval(fault)(Copy(damaged, zoo.baseline(model)))
    judged = judge_files(tmp_path / "copy", zoo.baseline(model))
    print("#####", model, variant, fault)
    print(judged.text())
