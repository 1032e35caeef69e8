"""Faults planted in torchao checkpoints: the check that finds each, and the place that it names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from decoding import CHECKPOINTS, baseline_of
from models import Damaged, Judged, damage, judge_files, read_tensors

from checker.domain import ErrorKind, Severity

MODULE = "model.layers.0.self_attn.q_proj"
OTHER = "model.layers.1.self_attn.q_proj"
LAYER = f"{MODULE}._weight_"
FIRST = "model.layers.0.mlp.down_proj._weight_qdata"  # stands for all weights in a finding about the config
Fault = Callable[[Damaged], None]


def drop(part: str) -> Fault:
    def fault(file: Damaged) -> None:
        del file.tensors[LAYER + part]

    return fault


def put(part: str, dtype: str, shape: list[int], size: int) -> Fault:
    def fault(file: Damaged) -> None:
        file.put(LAYER + part, dtype, shape, bytes(size))

    return fault


def fill(part: str, kind: str, value: float) -> Fault:
    def fault(file: Damaged) -> None:
        file.tensors[LAYER + part].view(kind)[:] = value

    return fault


def roll(part: str, kind: str, by: int = 1) -> Fault:
    def fault(file: Damaged) -> None:
        values = file.tensors[LAYER + part].view(kind)
        values[:] = np.roll(values, by)

    return fault


def add(part: str, kind: str, by: int) -> Fault:
    def fault(file: Damaged) -> None:
        file.tensors[LAYER + part].view(kind)[:] += np.array(by, kind)

    return fault


def swap_nibbles(file: Damaged) -> None:
    codes = file.tensors[f"{LAYER}qdata"].view("u1")
    codes[:] = codes >> 4 | codes << 4


def swap_layers(file: Damaged) -> None:
    for part in ("qdata", "scale", "zero_point"):
        one, two = f"{MODULE}._weight_{part}", f"{OTHER}._weight_{part}"
        file.tensors[one], file.tensors[two] = file.tensors[two], file.tensors[one]


def leave_dense(file: Damaged) -> None:
    tensors, _ = read_tensors(baseline_of(CHECKPOINTS / "torchao" / "int8") / "model.safetensors")
    for part in ("qdata", "scale", "zero_point"):
        del file.tensors[LAYER + part]
    file.tensors[f"{MODULE}.weight"] = tensors[f"{MODULE}.weight"]
    file.metadata[f"{MODULE}.weight"] = json.dumps({"_type": "Tensor"})


def data(**changes: object) -> Fault:
    """The configuration says otherwise."""

    def fault(file: Damaged) -> None:
        file.quantization["quant_type"]["default"]["_data"].update(changes)

    return fault


def entry(name: str, value: object) -> Fault:
    """Another configuration for one name of a per-module mapping."""

    def fault(file: Damaged) -> None:
        mixed = file.quantization["quant_type"]["default"]["_data"]
        for key in ("fqn_to_config", "module_fqn_to_config"):
            mixed[key][name] = value

    return fault


def skip(*names: str) -> Fault:
    def fault(file: Damaged) -> None:
        file.quantization["modules_to_not_convert"] = list(names)

    return fault


def metadata(**changes: object) -> Fault:
    def fault(file: Damaged) -> None:
        found = json.loads(file.metadata[f"{MODULE}.weight"])
        found["_data"].update({key: value for key, value in changes.items() if not key.startswith("_")})
        found.update({key: value for key, value in changes.items() if key.startswith("_")})
        file.metadata[f"{MODULE}.weight"] = json.dumps(found)

    return fault


def no_metadata(file: Damaged) -> None:
    del file.metadata[f"{MODULE}.weight"]


def broken_metadata(file: Damaged) -> None:
    file.metadata[f"{MODULE}.weight"] = "[" * 5000


def no_config(file: Damaged) -> None:
    del file.config["quantization_config"]


def other_method(file: Damaged) -> None:
    file.config["quantization_config"] = {"quant_method": "eetq", "weights": "int8"}


INT2 = {"_type": "torch.dtype", "_data": "int2"}
GROUP = {"_type": "PerGroup", "_data": {"group_size": 32}, "_version": 1}

FAULTS: dict[str, tuple[str, Fault, str, str]] = {
    "no scale": ("int8", drop("scale"), "layers.complete", f"{LAYER}scale"),
    "no zero point": ("intx4-asym", drop("zero_point"), "layers.complete", f"{LAYER}zero_point"),
    "no codes": ("int8", drop("qdata"), "layers.complete", f"{LAYER}qdata"),
    "scales of another dtype": ("int8", put("scale", "F16", [128, 1], 256), "layers.complete", f"{LAYER}scale"),
    "scales of another shape": ("int8", put("scale", "F32", [64, 1], 256), "layers.complete", f"{LAYER}scale"),
    "codes cut short": ("int8", put("qdata", "I8", [64, 128], 8192), "layers.complete", f"{LAYER}scale"),
    "scales zero": ("float8", fill("scale", "<f4", 0), "weights.scales", MODULE),
    "scales zero beside zero points": ("intx4-asym", fill("scale", "<u2", 0), "weights.scales", MODULE),
    "scales NaN": ("int8", fill("scale", "<f4", np.nan), "weights.scales", MODULE),
    "scales negative": ("int8", fill("scale", "<f4", -1e-4), "weights.scales", MODULE),
    "scales shifted by a row": ("int8", roll("scale", "<f4"), "weights.error", MODULE),
    "scales shifted by a group": ("intx4-asym", roll("scale", "<u2"), "weights.error", MODULE),
    "microscales out of their tiles": ("mxfp8", roll("scale", "u1", 16), "weights.error", MODULE),
    "tensor scale halved": ("nvfp4", fill("per_tensor_scale", "<f4", 1e-6), "weights.error", MODULE),
    "nibbles swapped": ("int4-plain", swap_nibbles, "weights.error", MODULE),
    "tiles rolled": ("int4-tiled", roll("qdata", "<u4", 32), "weights.error", MODULE),
    "zero points off by one": ("intx4-asym", add("zero_point", "i1", 1), "weights.error", MODULE),
    "codes outside their range": ("intx4-asym", fill("qdata", "i1", 100), "weights.codes", MODULE),
    "float codes NaN": ("float8", fill("qdata", "u1", 0x7F), "weights.codes", MODULE),
    "layers swapped": ("int8", swap_layers, "weights.error", MODULE),
    "a layer left dense": ("int8", leave_dense, "layers.coverage", MODULE),
    "another group declared": ("int4-plain", data(group_size=32), "config.truthful", FIRST),
    "another width declared": ("intx4-asym", data(weight_dtype=INT2), "config.truthful", FIRST),
    "groups declared over rows": ("int8", data(granularity=GROUP), "config.truthful", FIRST),
    "a module declared dense": ("fqn-modules", entry(MODULE, None), "layers.excluded", MODULE),
    "a skipped module quantized": ("int8", skip("lm_head", "q_proj"), "layers.excluded", MODULE),
    "no metadata": ("int8", no_metadata, "layers.complete", f"{LAYER}qdata"),
    "metadata that is no JSON": ("int8", broken_metadata, "layers.complete", f"{LAYER}qdata"),
    "metadata of an unknown class": ("int8", metadata(_type="Int3Tensor"), "layers.complete", f"{LAYER}qdata"),
    "metadata with a block of zero": ("int8", metadata(block_size=[1, 0]), "layers.complete", f"{LAYER}qdata"),
    "metadata with other blocks": ("int8", metadata(block_size=[1, 64]), "layers.complete", f"{LAYER}scale"),
    "metadata with another shape": ("int4-plain", metadata(shape=[64, 256]), "layers.complete", f"{LAYER}qdata"),
    "no config": ("int8", no_config, "config.present", FIRST),
    "another method's config": ("int8", other_method, "config.truthful", FIRST),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_fault_is_found_and_named(tmp_path: Path, fault: str):
    variant, plant, check, where = FAULTS[fault]
    healthy = CHECKPOINTS / "torchao" / variant
    with damage(healthy, tmp_path / "damaged") as file:
        plant(file)
    judged = judge_files(tmp_path / "damaged", baseline_of(healthy))
    found = {(item.where, item.severity) for item in judged.results[check].findings}
    assert (where, Severity.FAIL) in found, judged.text()


def test_a_skip_entry_that_names_nothing_is_a_warning(tmp_path: Path):
    healthy = CHECKPOINTS / "torchao" / "int8"
    with damage(healthy, tmp_path / "damaged") as file:
        file.quantization["modules_to_not_convert"] = ["lm_head", "vision_tower"]
    judged = judge_files(tmp_path / "damaged")
    assert [(item.where, item.severity) for item in judged.results["layers.excluded"].findings] == [
        ("vision_tower", Severity.WARN)
    ]


JUNK = [None, True, -1, 0, 1 << 70, 1e308, "x", [], [[]], {}, {"_type": []}, {"_type": "FqnToConfig", "_data": 3}]


def assert_no_crash(judged: Judged) -> None:
    """An error may only say that nothing was left to be judged."""
    errors = [result.error for result in judged.results.values() if result.error is not None]
    assert not [error for error in errors if error.kind is not ErrorKind.NOT_RUN or error.detail], judged.text()


@pytest.mark.parametrize("value", JUNK, ids=lambda value: repr(value)[:20])
def test_nonsense_in_the_configuration_is_a_finding_and_no_error(tmp_path: Path, value: object):
    """As the whole, as the group size, as a module's own configuration; nothing of it reaches arithmetic."""
    places = {
        "fqn-modules": {"default": value},
        "int4-plain": {"default": {"_type": "Int4WeightOnlyConfig", "_data": {"group_size": value}}},
        "int8": {"default": {"_type": "FqnToConfig", "_data": {"fqn_to_config": {MODULE: value}}}},
    }
    for variant, wrong in places.items():
        with damage(CHECKPOINTS / "torchao" / variant, tmp_path / variant) as file:
            file.quantization["quant_type"] = wrong
        assert_no_crash(judge_files(tmp_path / variant, baseline_of(CHECKPOINTS / "torchao" / variant)))


@pytest.mark.parametrize("value", JUNK, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize(
    "key", ["block_size", "shape", "target_dtype", "elem_dtype", "_type", "_tensor_data_names", "_data"]
)
def test_nonsense_in_the_metadata_is_a_finding_and_no_error(tmp_path: Path, key: str, value: object):
    for variant in ("int4-plain", "mxfp8"):
        with damage(CHECKPOINTS / "torchao" / variant, tmp_path / variant) as file:
            found = json.loads(file.metadata[f"{MODULE}.weight"])
            (found if key.startswith("_") else found["_data"])[key] = value
            file.metadata[f"{MODULE}.weight"] = json.dumps(found)
        assert_no_crash(judge_files(tmp_path / variant, baseline_of(CHECKPOINTS / "torchao" / variant)))
