"""Quantization states that lie: every one is a flaw or a missing tensor, none is an exception."""

from __future__ import annotations

import json

import numpy as np
import pytest
from models import Damaged, Stored, write_tensors

from checker.checkpoint import open_checkpoint
from checker.inventory import Inventory
from checker.registry import Method, all_methods

FOUR, EIGHT = (next(method for method in all_methods() if method.id == f"bitsandbytes-{bits}bit") for bits in (4, 8))
LAYER = "model.layers.0.mlp.up_proj"
WEIGHT = f"{LAYER}.weight"
STATE = f"{WEIGHT}.quant_state.bitsandbytes__nf4"
PLAIN = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [64, 64]}
NESTED = {**PLAIN, "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.25}


def zeros(dtype: str, shape: list[int], size: int) -> Stored:
    return Stored(dtype=dtype, shape=shape, data=bytearray(int(np.prod(shape)) * size))


def healthy_4bit(*, nested: bool = False) -> Damaged:
    tensors = {
        WEIGHT: zeros("U8", [2048, 1], 1),
        f"{WEIGHT}.quant_map": zeros("F32", [16], 4),
        f"{WEIGHT}.absmax": zeros("U8", [64], 1) if nested else zeros("F32", [64], 4),
    }
    if nested:
        tensors[f"{WEIGHT}.nested_absmax"] = zeros("F32", [1], 4)
        tensors[f"{WEIGHT}.nested_quant_map"] = zeros("F32", [256], 4)
    file = Damaged(tensors=tensors, config={})
    write_state(file, NESTED if nested else PLAIN)
    return file


def write_state(file: Damaged, state: object, name: str = STATE) -> None:
    raw = state if isinstance(state, bytes) else json.dumps(state).encode()
    file.put(name, "U8", [len(raw)], raw)


def method_config(method: Method) -> dict[str, object]:
    """The method is declared, so that what has lost its scales is still looked for."""
    bits = "load_in_4bit" if method is FOUR else "load_in_8bit"
    return {"quant_method": "bitsandbytes", bits: True}


def read(file: Damaged, folder, method=FOUR):
    """The weights of a file, and the expected tensors that it lacks or holds in another size."""
    write_tensors(folder / "model.safetensors", file.tensors, {})
    (folder / "config.json").write_text("{}")
    checkpoint = open_checkpoint(folder)
    weights = method.recognise(Inventory(checkpoint, method_config(method)))
    wrong = []
    for weight in weights:
        for part in weight.expected:
            header = checkpoint.tensors.get(part.name)
            lost = header is None and not part.optional
            other = header and part.nbytes is not None and (header.dtype, header.shape) != (part.dtype, part.shape)
            if lost or other:
                wrong.append(part.name)
    return weights, wrong


@pytest.mark.parametrize("nested", [False, True])
def test_a_sound_state_has_no_flaw(tmp_path, nested):
    [weight], wrong = read(healthy_4bit(nested=nested), tmp_path)
    assert (weight.flaws, wrong, weight.shape) == ((), [], (64, 64))
    assert weight.attributes.get("nested_offset") == (0.25 if nested else None)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("blocksize", value) for value in (0, -64, "64", 63, 8192, 64.5, True, None, [64])),
        *(
            ("shape", value)
            for value in ([], [0, 64], [-64, 64], [64.0, 64], [1 << 31, 64], [2, 2, 2, 2], "64", 4096, None)
        ),
        ("shape", [True, 64]),
        ("shape", [[64], 64]),
        ("shape", [10**400, 64]),
        *(("dtype", value) for value in ("load", "float64", "int8", "os.system", 3, None, ["float16"], {})),
        *(("quant_type", value) for value in ("nf3", "NF4", 4, None, ["nf4"], {"a": 1})),
    ],
    ids=repr,
)
def test_a_value_outside_its_domain_is_named(tmp_path, key, value):
    file = healthy_4bit()
    write_state(file, {**PLAIN, key: value})
    [weight], _ = read(file, tmp_path)
    [flaw] = [flaw for flaw in weight.flaws if flaw.message.startswith(key)]
    assert flaw.where == STATE
    assert repr(value)[:20] in flaw.message
    assert "\n" not in flaw.message
    assert flaw.expected


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("nested_offset", value) for value in (float("nan"), float("inf"), "0", None, True, 10**400)),
        *(("nested_blocksize", value) for value in (0, "256", 100, [256])),
        *(("nested_dtype", value) for value in ("float16", "load", None, [])),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_nested_value_outside_its_domain_is_named(tmp_path, key, value):
    file = healthy_4bit(nested=True)
    write_state(file, {**NESTED, key: value})
    [weight], _ = read(file, tmp_path)
    assert [flaw.where for flaw in weight.flaws if flaw.message.startswith(key)] == [STATE]


@pytest.mark.parametrize("key", list(NESTED))
def test_a_missing_key_is_named(tmp_path, key):
    file = healthy_4bit(nested=True)
    write_state(file, {name: value for name, value in NESTED.items() if name != key})
    [weight], _ = read(file, tmp_path)
    assert any(flaw.message.startswith(key) and "missing" in flaw.message for flaw in weight.flaws)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"not json", id="text"),
        pytest.param(b"\xff\xfe{}", id="not UTF-8"),
        pytest.param(b"[1, 2]", id="a list"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[" * 60_000, id="60,000 deep"),
        pytest.param(b'{"a":' * 12_000 + b"1" + b"}" * 12_000, id="deep and well formed"),
        pytest.param(b'{"shape": ' + b"9" * 5_000 + b"}", id="a number of 5,000 digits"),
        pytest.param(json.dumps(PLAIN).encode() + b" " * (1 << 16), id="larger than 64 KiB"),
    ],
)
def test_a_blob_that_is_no_object_is_one_flaw(tmp_path, raw):
    file = healthy_4bit()
    write_state(file, raw)
    [weight], _ = read(file, tmp_path)
    assert [flaw.where for flaw in weight.flaws] == [STATE]
    assert "no JSON object" in weight.flaws[0].message
    assert weight.shape is None


def test_an_unknown_key_is_named_on_one_line(tmp_path):
    file = healthy_4bit()
    write_state(file, {**PLAIN, "evil\n::error::" + "x" * 200: 1})
    [weight], _ = read(file, tmp_path)
    [flaw] = weight.flaws
    assert "unknown key 'evil" in flaw.message
    assert "\n" not in flaw.message
    assert len(flaw.message) < 250


def test_a_type_that_contradicts_the_name(tmp_path):
    file = healthy_4bit()
    write_state(file, {**PLAIN, "quant_type": "fp4"})
    [weight], wrong = read(file, tmp_path)
    [flaw] = weight.flaws
    assert "says quant_type fp4, its name says nf4" in flaw.message
    assert wrong == [STATE.replace("nf4", "fp4")]


def test_two_states_for_one_weight(tmp_path):
    file = healthy_4bit()
    write_state(file, {**PLAIN, "quant_type": "fp4"}, STATE.replace("nf4", "fp4"))
    [weight], _ = read(file, tmp_path)
    assert any("2 quantization states" in flaw.message and flaw.where == WEIGHT for flaw in weight.flaws)


def test_a_state_of_an_unknown_type(tmp_path):
    file = healthy_4bit()
    del file.tensors[STATE]
    write_state(file, {**PLAIN, "quant_type": "nf2"}, STATE.replace("nf4", "nf2"))
    [weight], wrong = read(file, tmp_path)
    assert any(flaw.message.startswith("quant_type") for flaw in weight.flaws)
    assert wrong == [STATE]


@pytest.mark.parametrize(
    ("shape", "wrong"),
    [
        pytest.param([4096, 4096], {WEIGHT, f"{WEIGHT}.absmax"}, id="larger than the tensors"),
        pytest.param([2147483647, 2147483647, 2147483647], {WEIGHT, f"{WEIGHT}.absmax"}, id="larger than any memory"),
        pytest.param([63, 64], {WEIGHT, f"{WEIGHT}.absmax"}, id="one row short"),
        pytest.param([32, 128], set(), id="another shape of the same size: seen with the baseline only"),
    ],
)
def test_a_shape_that_does_not_fit_the_tensors(tmp_path, shape, wrong):
    file = healthy_4bit()
    write_state(file, {**PLAIN, "shape": shape})
    [weight], found = read(file, tmp_path)
    assert weight.flaws == ()
    assert set(found) == wrong


@pytest.mark.parametrize(
    ("lost", "nested", "reported"),
    [
        pytest.param(["absmax"], False, ["absmax"], id="absmax"),
        pytest.param(["quant_map"], False, ["quant_map"], id="quant_map"),
        pytest.param(["quant_state"], False, ["quant_state"], id="state"),
        pytest.param(["absmax", "quant_map", "quant_state"], False, ["quant_map", "quant_state", "absmax"], id="all"),
        pytest.param(["nested_absmax"], True, ["nested_absmax"], id="nested absmax"),
        pytest.param(["nested_quant_map"], True, ["nested_quant_map"], id="nested map"),
        pytest.param(["nested_absmax", "nested_quant_map"], True, ["nested_absmax", "nested_quant_map"], id="nesting"),
        pytest.param([""], False, [""], id="the packed weight"),
    ],
)
def test_a_missing_piece_is_missed(tmp_path, lost, nested, reported):
    file = healthy_4bit(nested=nested)
    for part in lost:
        name = f"{WEIGHT}.{part}".rstrip(".")
        del file.tensors[STATE if part == "quant_state" else name]
    [weight], wrong = read(file, tmp_path)
    assert weight.weight == WEIGHT
    names = [STATE if part == "quant_state" else f"{WEIGHT}.{part}".rstrip(".") for part in reported]
    assert set(names) <= set(wrong)


def test_the_nesting_lost_with_its_keys_leaves_scales_of_the_wrong_type(tmp_path):
    file = healthy_4bit(nested=True)
    write_state(file, PLAIN)
    del file.tensors[f"{WEIGHT}.nested_absmax"], file.tensors[f"{WEIGHT}.nested_quant_map"]
    _, wrong = read(file, tmp_path)
    assert wrong == [f"{WEIGHT}.absmax"]


def test_a_wrong_block_size_asks_for_another_number_of_scales(tmp_path):
    file = healthy_4bit()
    write_state(file, {**PLAIN, "blocksize": 128})
    [weight], wrong = read(file, tmp_path)
    assert weight.attributes["block_size"] == 128
    assert wrong == [f"{WEIGHT}.absmax"]


def test_a_weight_that_is_not_bytes_keeps_its_layout(tmp_path):
    file = healthy_4bit()
    file.tensors[WEIGHT] = zeros("I64", [256, 1], 8)
    _, wrong = read(file, tmp_path)
    assert wrong == [WEIGHT]


def healthy_8bit() -> Damaged:
    tensors = {
        WEIGHT: zeros("I8", [64, 32], 1),
        f"{LAYER}.SCB": zeros("F32", [64], 4),
        f"{LAYER}.weight_format": zeros("U8", [], 1),
    }
    return Damaged(tensors=tensors, config={})


def test_a_sound_int8_weight_has_no_flaw(tmp_path):
    [weight], wrong = read(healthy_8bit(), tmp_path, EIGHT)
    assert (weight.flaws, wrong, weight.shape, weight.module) == ((), [], (64, 32), LAYER)


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        pytest.param({f"{LAYER}.SCB": None}, [f"{LAYER}.SCB"], id="scales missing"),
        pytest.param({WEIGHT: None}, None, id="weight missing"),
        pytest.param({f"{LAYER}.SCB": zeros("F32", [63], 4)}, [f"{LAYER}.SCB"], id="one scale short"),
        pytest.param({f"{LAYER}.SCB": zeros("BF16", [64], 2)}, [f"{LAYER}.SCB"], id="scales in 16 bit"),
        pytest.param({WEIGHT: zeros("U8", [64, 32], 1)}, [WEIGHT], id="codes without a sign"),
        pytest.param({WEIGHT: zeros("I8", [64, 32, 1], 1)}, None, id="three dimensions"),
        pytest.param({f"{LAYER}.weight_format": zeros("U8", [2], 1)}, [f"{LAYER}.weight_format"], id="a long marker"),
        pytest.param({f"{LAYER}.weight_format": None}, [], id="an older writer"),
    ],
)
def test_int8_pieces(tmp_path, change, wrong):
    file = healthy_8bit()
    for name, tensor in change.items():
        if tensor is None:
            del file.tensors[name]
        else:
            file.tensors[name] = tensor
    [weight], found = read(file, tmp_path, EIGHT)
    assert weight.weight == WEIGHT
    assert found == wrong if wrong is not None else WEIGHT in found


@pytest.mark.parametrize("value", [1, 2, 3, 255])
def test_int8_in_tile_order_is_a_flaw(tmp_path, value):
    file = healthy_8bit()
    file.u8(f"{LAYER}.weight_format")[:] = value
    [weight], _ = read(file, tmp_path, EIGHT)
    [flaw] = weight.flaws
    assert flaw.where == f"{LAYER}.weight_format"
    assert str(value) in flaw.message
