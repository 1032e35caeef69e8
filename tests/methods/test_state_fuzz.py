"""Fuzz of what methods read besides the config: state blobs, metadata, small tensors, headers that fit no layout."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from decoding import CHECKPOINTS, baseline_of
from fuzzing import ANY, Draw, bounded, mutate
from hypothesis import given
from hypothesis import strategies as st
from models import WEIGHTS, Damaged, Stored, Zoo, judge_files, read_checkpoint, write_tensors
from properties import assert_judged

from checker.registry import all_methods

METHODS = [method.id for method in all_methods()]
SCRAPS = st.sampled_from(
    [b"{", b"}", b'"', b",", b"[", b"\\", b"\\ud800", b"\xff", b"\0", b"NaN", b"1e999", b"9" * 400]
)
SIZES = {
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E8M0": 1,
    "BOOL": 1,
    "F16": 2,
    "BF16": 2,
    "I16": 2,
    "F32": 4,
    "I32": 4,
    "I64": 8,
}
STATES = ("quant_state.", "quant_config", "metadata")  # how names of tensors that hold JSON begin
LARGEST = 4000  # bytes of a tensor that may be filled byte by byte


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


def healthy(method_id: str, zoo: Zoo) -> list[tuple[Path, Path]]:
    """Checkpoints of a method in one safetensors file, each with its baseline."""
    fixtures = [path.parent for path in sorted((CHECKPOINTS / method_id).glob("*/fixture.json"))]
    if not fixtures:
        variants = ["int8"] if method_id == "bitsandbytes-8bit" else ["nf4", "nf4-double", "fp4"]
        return [(zoo.quantized("llama", variant), zoo.baseline("llama")) for variant in variants]
    return [(folder, baseline_of(folder)) for folder in fixtures if (folder / WEIGHTS).is_file()]


def judge_written(damaged: Damaged, baseline: Path | None, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / WEIGHTS, damaged.tensors, damaged.metadata)
    (folder / "config.json").write_text(json.dumps(damaged.config), "utf-8")
    assert_judged(judge_files(folder, baseline), folder)


def reshape(draw: Draw, tensor: Stored) -> None:
    """Other dtype, other shape, other size: sound as a file, nonsense as a layout."""
    tensor.dtype = draw(st.sampled_from([tensor.dtype, *SIZES]))
    known = SIZES.get(tensor.dtype, 1)
    kind = draw(st.sampled_from(["flat", "column", "scalar", "empty", "shorter", "longer", "deeper", "turned"]))
    count = len(tensor.data) // known
    shapes = {
        "flat": [count],
        "column": [count, 1],
        "scalar": [],
        "empty": [0, draw(st.integers(0, 1 << 40))],
        "shorter": [max(1, count // 2)],
        "longer": [count + 1],
        "deeper": [1] * draw(st.integers(3, 30)),
        "turned": tensor.shape[::-1],
    }
    tensor.shape = shapes[kind]
    wanted = int(np.prod(tensor.shape, dtype=object)) * known
    tensor.data = bytearray((bytes(tensor.data) + bytes(wanted))[:wanted])


def fill(draw: Draw, tensor: Stored) -> None:
    """Other bytes: all alike (NaN, infinity, -1, zero), or drawn for small tensors."""
    if len(tensor.data) <= LARGEST and draw(st.booleans()):
        tensor.data = bytearray(np.random.default_rng(draw(st.integers(0, 9))).bytes(len(tensor.data)))
    else:
        tensor.data = bytearray([draw(st.sampled_from([0, 1, 0x7C, 0x7F, 0x80, 0xFF]))]) * len(tensor.data)


def change(draw: Draw, damaged: Damaged) -> None:
    """One change to the tensors or to the metadata."""
    names = list(damaged.tensors)
    name, other = draw(st.sampled_from(names)), draw(st.sampled_from(names))
    match draw(st.sampled_from(["reshape", "reshape", "fill", "drop", "swap", "rename", "copy", "metadata"])):
        case "reshape":
            reshape(draw, damaged.tensors[name])
        case "fill":
            fill(draw, damaged.tensors[name])
        case "drop":
            del damaged.tensors[name]
        case "swap":
            damaged.tensors[name], damaged.tensors[other] = damaged.tensors[other], damaged.tensors[name]
        case "rename":
            module, _, suffix = name.rpartition(".")
            new = draw(st.sampled_from([f"{module}.x.{suffix}", f"{name}.{suffix}", suffix, f"{module}."]))
            damaged.tensors[new] = damaged.tensors.pop(name)
        case "copy":
            damaged.tensors[f"{other.rpartition('.')[0]}.{name.rpartition('.')[2]}"] = copy.deepcopy(
                damaged.tensors[name]
            )
        case "metadata":
            change_metadata(draw, damaged)


def change_metadata(draw: Draw, damaged: Damaged) -> None:
    """Metadata are strings, of which some hold JSON."""
    if not damaged.metadata:
        damaged.metadata = {"format": draw(st.sampled_from(["pt", "", "mlx", "torch"]))}
        return
    key = draw(st.sampled_from(sorted(damaged.metadata)))
    try:
        value = json.loads(damaged.metadata[key])
    except ValueError:
        damaged.metadata[key] = draw(st.sampled_from(["", "{}", "null", "[[]]", "9" * 400, "{"]))
        return
    damaged.metadata[key] = json.dumps(mutate(draw, value, draw(st.integers(1, 3))))


@pytest.mark.parametrize("method_id", METHODS)
@bounded(25)
@given(data=st.data())
def test_changed_tensors_get_a_verdict(method_id: str, data: st.DataObject, zoo: Zoo, scratch: Path):
    known = healthy(method_id, zoo)
    if not known:
        pytest.skip("its checkpoints are no safetensors files")
    folder, baseline = data.draw(st.sampled_from(known))
    damaged = read_checkpoint(folder)
    for _ in range(data.draw(st.integers(1, 3))):
        change(data.draw, damaged)
    judge_written(damaged, data.draw(st.sampled_from([None, baseline])), scratch / method_id / folder.name)


def holds_json(name: str, tensor: Stored) -> bool:
    last = name.rpartition(".weight.")[2]
    return last.startswith(STATES) and tensor.dtype == "U8" and bytes(tensor.data[:1]) == b"{"


@pytest.mark.parametrize("variant", ["nf4", "nf4-double"])
@bounded(60)
@given(data=st.data())
def test_changed_states_get_a_verdict(variant: str, data: st.DataObject, zoo: Zoo, scratch: Path):
    """The JSON blobs beside 4-bit weights: fields that make no sense, and bytes that are no JSON."""
    damaged = read_checkpoint(zoo.quantized("llama", variant))
    names = [name for name, tensor in damaged.tensors.items() if holds_json(name, tensor)]
    assert names
    name = data.draw(st.sampled_from(names))
    raw = bytes(damaged.tensors[name].data)
    kind = data.draw(st.sampled_from(["fields", "fields", "bytes", "any"]))
    if kind == "bytes":
        place, width = data.draw(st.integers(0, len(raw))), data.draw(st.integers(0, 9))
        raw = raw[:place] + data.draw(SCRAPS) + raw[place + width :]
    else:
        value = data.draw(ANY) if kind == "any" else mutate(data.draw, json.loads(raw), data.draw(st.integers(1, 3)))
        raw = json.dumps(value).encode("utf-8", "surrogatepass")
    damaged.put(name, "U8", [len(raw)], raw)
    judge_written(damaged, data.draw(st.sampled_from([None, zoo.baseline("llama")])), scratch / variant)


def test_the_writer_changes_nothing(zoo: Zoo, scratch: Path):
    """What the other tests would not notice: that every copy is broken already."""
    folder = zoo.quantized("llama", "nf4")
    damaged = read_checkpoint(folder)
    write_tensors(scratch / WEIGHTS, damaged.tensors, damaged.metadata)
    (scratch / "config.json").write_text(json.dumps(damaged.config), "utf-8")
    judged = judge_files(scratch, zoo.baseline("llama"))
    assert not [name for name, result in judged.results.items() if result.findings], judged.text()
