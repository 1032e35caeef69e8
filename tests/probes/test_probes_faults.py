"""Faults planted in real checkpoints: each is found by the checks that should find it, and they name the place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from models import Damaged, Zoo, damage, judge_files, read_tensors

from checker.domain import Outcome, Severity
from checker.registry import all_checks

LAYER = "model.layers.0.self_attn.q_proj"
WEIGHT = f"{LAYER}.weight"
OTHER = "model.layers.1.self_attn.q_proj"
LINEARS = [
    f"model.layers.{number}.{name}"
    for number in range(2)
    for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
]


FAIL, WARN = Severity.FAIL, Severity.WARN
UNDECODED = dict.fromkeys(("weights.codes", "weights.error", "weights.scales"), (FAIL, WEIGHT))


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


def strip_nesting(copy: Copy) -> None:
    """Nested parts and the keys that tell of them are gone: 8-bit scales that mean nothing are left."""
    for name in ("nested_absmax", "nested_quant_map"):
        del copy.file.tensors[f"{WEIGHT}.{name}"]
    state = copy.file.state(WEIGHT)
    copy.file.set_state(WEIGHT, {key: value for key, value in state.items() if not key.startswith("nested_")})


def remove(name: str) -> Callable[[Copy], None]:
    def fault(copy: Copy) -> None:
        del copy.file.tensors[name]

    return fault


def quantize_head(copy: Copy) -> None:
    """The head in the packed form of another layer, which has its own size: only that it is packed matters."""
    for name in copy.file.parts(WEIGHT):
        copy.file.tensors[name.replace(LAYER, "lm_head")] = copy.file.tensors[name]
    copy.file.tensors["lm_head.weight"] = copy.file.tensors[WEIGHT]


def odd_names(copy: Copy) -> None:
    copy.file.put("model.a\n::error::b.weight", "BF16", [4, 4], bytes(32))
    copy.file.put("model.c\x1b.weight.absmax", "F32", [4], bytes(16))
    copy.file.quantization["a\nb"] = 1


EIGHT_BIT = {"load_in_4bit": False, "load_in_8bit": True, "_load_in_4bit": False, "_load_in_8bit": True}
FOUR_BIT = {"load_in_4bit": True, "load_in_8bit": False, "_load_in_4bit": True, "_load_in_8bit": False}
FIRST = "model.layers.0.mlp.down_proj"
KEY = "quantization_config"
LISTED = [LAYER, "lm_head"]

# what is wrong, the variant it is done to, how, and every check that must not pass with its severity and first place
FAULTS: dict[str, tuple[str, Callable[[Copy], None], dict[str, tuple[Severity, str]]]] = {
    "Q01 nibbles swapped": ("nf4", swap_nibbles, {"weights.error": (FAIL, LAYER)}),
    "Q02 absmax shifted by a block": ("nf4", shift_absmax, {"weights.error": (FAIL, LAYER)}),
    "Q02 nested absmax shifted": ("nf4-double", shift_nested, {"weights.error": (FAIL, LAYER)}),
    "Q04 absmax zero": ("nf4", zero_absmax, {"weights.error": (FAIL, LAYER), "weights.scales": (FAIL, LAYER)}),
    "one absmax zero": ("nf4", zero_one_absmax, {"weights.error": (FAIL, LAYER), "weights.scales": (FAIL, LAYER)}),
    "one absmax negative": ("nf4", negative_absmax, {"weights.error": (FAIL, LAYER), "weights.scales": (FAIL, LAYER)}),
    "absmax constant": ("nf4", constant_absmax, {"weights.error": (FAIL, LAYER), "weights.scales": (WARN, LAYER)}),
    "Q05 nested absmax NaN": (
        "nf4-double",
        nested(np.nan),
        {"weights.error": (FAIL, LAYER), "weights.scales": (FAIL, LAYER)},
    ),
    "Q05 nested absmax Inf": (
        "nf4-double",
        nested(np.inf),
        {"weights.error": (FAIL, LAYER), "weights.scales": (FAIL, LAYER)},
    ),
    "Q06 nested absmax zero": (
        "nf4-double",
        nested(0),
        {"weights.error": (FAIL, LAYER), "weights.scales": (FAIL, LAYER)},
    ),
    "code book overwritten": ("nf4", overwrite_quant_map, {"weights.codes": (FAIL, LAYER)}),
    "Q08 NaN in the code book": ("nf4", nan_quant_map, {"weights.codes": (FAIL, LAYER)}),
    "nested code book overwritten": (
        "nf4-double",
        overwrite_nested_map,
        {"weights.codes": (FAIL, LAYER), "weights.error": (FAIL, LAYER)},
    ),
    "Q25 one layer in 16 bit": ("nf4", one_dense, {"layers.coverage": (FAIL, LAYER), "memory.ratio": (FAIL, WEIGHT)}),
    "one layer of int8 in 16 bit": (
        "int8",
        one_dense,
        {"layers.coverage": (FAIL, LAYER), "memory.ratio": (FAIL, WEIGHT)},
    ),
    "Q26 half the layers in 16 bit": (
        "nf4",
        half_dense,
        {"layers.coverage": (FAIL, LAYER), "memory.ratio": (FAIL, WEIGHT)},
    ),
    "Q27 all weights in 16 bit": (
        "nf4",
        all_dense,
        {"config.present": (FAIL, KEY), "memory.ratio": (FAIL, f"{FIRST}.weight")},
    ),
    "K01 config removed": ("nf4", no_config, {"config.present": (FAIL, f"{FIRST}.weight")}),
    "K01 config null": ("nf4", set_config(None), {"config.present": (FAIL, f"{FIRST}.weight")}),
    "K02 config empty": ("nf4", set_config({}), {"config.method": (FAIL, KEY)}),
    "K02 config a list": ("nf4", set_config([1]), {"config.method": (FAIL, KEY)}),
    "K02 config a string": ("nf4", set_config("nf4"), {"config.method": (FAIL, KEY)}),
    "K03 method misspelt": ("nf4", config(quant_method="bitsnbytes"), {"config.method": (FAIL, KEY)}),
    "K03 method a number": ("nf4", config(quant_method=4), {"config.method": (FAIL, KEY)}),
    "K03 method a list": ("nf4", config(quant_method=["bitsandbytes"]), {"config.method": (FAIL, KEY)}),
    "K03 method missing": (
        "nf4",
        lambda copy: copy.file.quantization.pop("quant_method"),
        {"config.keys": (FAIL, f"{KEY}.quant_method")},
    ),
    "K04 both flags": ("nf4", config(load_in_8bit=True), {"config.keys": (FAIL, f"{KEY}.load_in_8bit")}),
    "K05 neither flag": ("nf4", config(load_in_4bit=False), {"config.keys": (FAIL, f"{KEY}.load_in_4bit")}),
    "K06 8-bit config over 4-bit weights": (
        "nf4",
        config(**EIGHT_BIT),
        {"config.truthful": (FAIL, f"{FIRST}.weight"), "memory.ratio": (FAIL, f"{FIRST}.weight")},
    ),
    "K06 4-bit config over 8-bit weights": (
        "int8",
        config(**FOUR_BIT),
        {"config.truthful": (FAIL, f"{FIRST}.weight"), "memory.ratio": (FAIL, f"{FIRST}.weight")},
    ),
    "K07 fp4 config over nf4": (
        "nf4",
        config(bnb_4bit_quant_type="fp4"),
        {"config.truthful": (FAIL, f"{FIRST}.weight")},
    ),
    "K09 double quantization denied": (
        "nf4-double",
        config(bnb_4bit_use_double_quant=False),
        {"config.truthful": (FAIL, f"{FIRST}.weight")},
    ),
    "double quantization claimed": (
        "nf4",
        config(bnb_4bit_use_double_quant=True),
        {"config.truthful": (FAIL, f"{FIRST}.weight")},
    ),
    "storage claimed": (
        "nf4",
        config(bnb_4bit_quant_storage="bfloat16"),
        {"config.truthful": (WARN, f"{FIRST}.weight")},
    ),
    "K11 compute dtype is none": (
        "nf4",
        config(bnb_4bit_compute_dtype="float12"),
        {"config.keys": (FAIL, f"{KEY}.bnb_4bit_compute_dtype")},
    ),
    "K12 skip list covers the model": (
        "nf4",
        config(llm_int8_skip_modules=["model"]),
        {"layers.excluded": (FAIL, FIRST), "memory.ratio": (FAIL, f"{FIRST}.weight")},
    ),
    "misspelt key": ("nf4", config(bnb_4bit_quant_typo="nf4"), {"config.keys": (FAIL, f"{KEY}.bnb_4bit_quant_typo")}),
    "a listed layer is quantized": (
        "nf4",
        config(llm_int8_skip_modules=LISTED),
        {"layers.excluded": (FAIL, LAYER), "memory.ratio": (FAIL, WEIGHT)},
    ),
    "Q32 head quantized though listed": (
        "nf4",
        quantize_head,
        {
            "layers.excluded": (FAIL, "lm_head"),
            "memory.ratio": (FAIL, "lm_head.weight"),
            "weights.error": (FAIL, "lm_head"),
        },
    ),
    "Q33 embedding quantized": (
        "nf4",
        quantize_embedding,
        {
            "layers.excluded": (FAIL, "model.embed_tokens"),
            "memory.ratio": (FAIL, "model.embed_tokens.weight"),
            "weights.error": (FAIL, "model.embed_tokens"),
        },
    ),
    "Q21 absmax missing": (
        "nf4",
        lose(".weight.absmax"),
        {**UNDECODED, "layers.complete": (FAIL, f"{WEIGHT}.absmax"), "memory.ratio": (FAIL, f"{WEIGHT}.absmax")},
    ),
    "Q21 code book missing": (
        "nf4",
        lose(".weight.quant_map"),
        {**UNDECODED, "layers.complete": (FAIL, f"{WEIGHT}.quant_map"), "memory.ratio": (FAIL, f"{WEIGHT}.quant_map")},
    ),
    "Q19 state missing": (
        "nf4",
        lose(".weight.quant_state"),
        {
            **UNDECODED,
            "layers.complete": (FAIL, f"{WEIGHT}.quant_state.bitsandbytes__nf4"),
            "memory.ratio": (FAIL, f"{WEIGHT}.quant_state.bitsandbytes__nf4"),
        },
    ),
    "Q22 nested absmax missing": (
        "nf4-double",
        nested_lost,
        {
            **UNDECODED,
            "layers.complete": (FAIL, f"{WEIGHT}.nested_absmax"),
            "memory.ratio": (FAIL, f"{WEIGHT}.nested_absmax"),
        },
    ),
    "Q22 nesting lost": (
        "nf4-double",
        strip_nesting,
        {
            **UNDECODED,
            "config.truthful": (FAIL, WEIGHT),
            "layers.complete": (FAIL, f"{WEIGHT}.absmax"),
            "memory.ratio": (FAIL, f"{WEIGHT}.absmax"),
        },
    ),
    "Q23 all of the state missing": (
        "nf4",
        lose_state,
        {
            **UNDECODED,
            "layers.complete": (FAIL, f"{WEIGHT}.quant_map"),
            "memory.ratio": (FAIL, f"{WEIGHT}.quant_state.bitsandbytes__nf4"),
        },
    ),
    "Q11 fp4 in the state": (
        "nf4",
        state(quant_type="fp4"),
        {
            **UNDECODED,
            "config.truthful": (FAIL, WEIGHT),
            "layers.complete": (FAIL, f"{WEIGHT}.quant_state.bitsandbytes__nf4"),
            "memory.ratio": (FAIL, f"{WEIGHT}.quant_state.bitsandbytes__fp4"),
        },
    ),
    "Q11 fp4 in the state's name": (
        "nf4",
        rename_quant_type,
        {
            **UNDECODED,
            "layers.complete": (FAIL, f"{WEIGHT}.quant_state.bitsandbytes__fp4"),
            "memory.ratio": (FAIL, f"{WEIGHT}.quant_state.bitsandbytes__nf4"),
        },
    ),
    "Q09 block size 128 in the state": (
        "nf4",
        state(blocksize=128),
        {
            **UNDECODED,
            "config.truthful": (FAIL, WEIGHT),
            "layers.complete": (FAIL, f"{WEIGHT}.absmax"),
            "memory.ratio": (FAIL, f"{WEIGHT}.absmax"),
        },
    ),
    "Q12 shape one row short": (
        "nf4",
        state(shape=[63, 64]),
        {**UNDECODED, "dtypes.storage": (FAIL, WEIGHT), "layers.complete": (FAIL, f"{WEIGHT}.absmax")},
    ),
    "Q13 dtype is another attribute of torch": (
        "nf4",
        state(dtype="load"),
        {**UNDECODED, "layers.complete": (FAIL, f"{WEIGHT}.quant_state.bitsandbytes__nf4")},
    ),
    "Q14 another dense dtype": ("nf4", state(dtype="float16"), {"config.truthful": (WARN, WEIGHT)}),
    "Q24 weight a block short": (
        "nf4",
        shorten("", 32),
        {**UNDECODED, "dtypes.storage": (FAIL, WEIGHT), "memory.ratio": (FAIL, WEIGHT)},
    ),
    "Q24 absmax one short": (
        "nf4",
        shorten(".absmax", 1),
        {**UNDECODED, "layers.complete": (FAIL, f"{WEIGHT}.absmax"), "memory.ratio": (FAIL, f"{WEIGHT}.absmax")},
    ),
    "Q29 stored as int8": ("nf4", as_int8, {"config.truthful": (WARN, WEIGHT)}),
    "Q30 weight missing": (
        "nf4",
        remove(WEIGHT),
        {**UNDECODED, "layers.complete": (FAIL, WEIGHT), "memory.ratio": (FAIL, WEIGHT)},
    ),
    "Q31 head missing": ("nf4", remove("lm_head.weight"), {"memory.ratio": (FAIL, "lm_head.weight")}),
    "Q35 extra tensor": ("nf4", extra_tensor, {"memory.ratio": (WARN, "model.layers.0.left_over")}),
    "two layers swapped": ("nf4", swap_layers, {"weights.error": (FAIL, LAYER)}),
    "all scales of a layer 5 % too large": ("nf4", drift, {"weights.error": (FAIL, LAYER)}),
    "all scales of an int8 layer 5 % too large": ("int8", drift_scb, {"weights.error": (FAIL, LAYER)}),
    "E01 SCB missing": (
        "int8",
        lose(".SCB"),
        {**UNDECODED, "layers.complete": (FAIL, f"{LAYER}.SCB"), "memory.ratio": (FAIL, f"{LAYER}.SCB")},
    ),
    "E02 SCB zero": ("int8", scb(0), {"weights.error": (FAIL, LAYER), "weights.scales": (FAIL, LAYER)}),
    "E03 SCB NaN": ("int8", scb(np.nan), {"weights.error": (FAIL, LAYER), "weights.scales": (FAIL, LAYER)}),
    "E04 SCB rolled": ("int8", roll_scb, {"weights.error": (FAIL, LAYER)}),
    "int8 in tile order": ("int8", tile_order, {**UNDECODED, "layers.complete": (FAIL, f"{LAYER}.weight_format")}),
    "names with control characters": (
        "nf4",
        odd_names,
        {"files.valid": (FAIL, ""), "config.keys": (FAIL, f"{KEY}.a\nb")},
    ),
}


# once the tensors are another method's, its numbers are judged by the declared method's limits, which may not fit them
TOLERATED = {"K06 8-bit config over 4-bit weights": {"weights.error"}}


def judge_fault(zoo: Zoo, folder: Path, name: str, *, with_baseline: bool):
    variant, fault, expected = FAULTS[name]
    with damage(zoo.quantized("llama", variant), folder / "copy") as damaged:
        fault(Copy(damaged, zoo.baseline("llama")))
    return judge_files(folder / "copy", zoo.baseline("llama") if with_baseline else None), expected


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_and_named(zoo: Zoo, tmp_path: Path, name: str):
    judged, expected = judge_fault(zoo, tmp_path, name, with_baseline=True)
    assert not judged.ids(Outcome.ERROR), judged.text()
    found = judged.ids(Outcome.FAIL) | judged.ids(Outcome.WARN)
    assert found - TOLERATED.get(name, set()) == expected.keys(), judged.text()
    for check_id, (severity, where) in expected.items():
        findings = judged.results[check_id].findings
        assert severity in {finding.severity for finding in findings}
        assert FAIL not in {finding.severity for finding in findings} or severity is FAIL
        assert not where or where in {finding.where for finding in findings}, judged.text()


NEED_A_BASELINE = (
    "Q01 nibbles swapped",
    "Q02 absmax shifted by a block",
    "Q02 nested absmax shifted",
    "Q31 head missing",
    "Q35 extra tensor",
    "two layers swapped",
    "all scales of a layer 5 % too large",
    "all scales of an int8 layer 5 % too large",
    "E04 SCB rolled",
)


@pytest.mark.parametrize("name", FAULTS)
def test_all_but_a_few_faults_are_found_without_a_baseline(zoo: Zoo, tmp_path: Path, name: str):
    judged, _ = judge_fault(zoo, tmp_path, name, with_baseline=False)
    assert not judged.ids(Outcome.ERROR), judged.text()
    assert bool(judged.ids(Outcome.FAIL) | judged.ids(Outcome.WARN)) is (name not in NEED_A_BASELINE), judged.text()


def test_a_config_of_another_method_is_told(zoo: Zoo, tmp_path: Path):
    with damage(zoo.quantized("llama", "nf4"), tmp_path / "copy") as damaged:
        damaged.config["quantization_config"] = {"quant_method": "gptq", "bits": 4, "group_size": 64}
    judged = judge_files(tmp_path / "copy", zoo.baseline("llama"))
    assert "config.truthful" in judged.ids(Outcome.FAIL), judged.text()
    [finding] = judged.results["config.truthful"].findings
    assert (finding.observed, finding.limit) == ("bitsandbytes-4bit", "gptq")


def test_a_tied_head_that_is_stored_warns(zoo: Zoo, tmp_path: Path):
    with damage(zoo.quantized("llama-tied", "nf4"), tmp_path / "copy") as damaged:
        second_head(Copy(damaged, zoo.baseline("llama-tied")))
    judged = judge_files(tmp_path / "copy", zoo.baseline("llama-tied"))
    assert judged.ids(Outcome.FAIL) == set(), judged.text()
    assert judged.ids(Outcome.WARN) == {"layers.tied", "memory.ratio"}
    [finding] = judged.results["layers.tied"].findings
    assert finding.where == "lm_head.weight"


def test_every_guard_keeps_a_lying_state_from_being_loaded(zoo: Zoo, tmp_path: Path):
    """What could crash a kernel must fail a check that guards the load."""
    guards = {item.id for item in all_checks() if item.guards_load}
    for name in ("Q12 shape one row short", "Q13 dtype is another attribute of torch", "Q24 weight a block short"):
        (tmp_path / name).mkdir()
        judged, _ = judge_fault(zoo, tmp_path / name, name, with_baseline=False)
        assert judged.ids(Outcome.FAIL) & guards, name
