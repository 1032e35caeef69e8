"""Checkpoints of llm-compressor loaded, looked at, run and saved again by the installed compressed-tensors."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoding import CHECKPOINTS, baseline_of, fixtures_of, method_of
from models import Damaged, Judged, damage
from packaging.version import Version

from checker.domain import Cell, Depth, ModelRef, Outcome, Settings
from checker.facts import StructureFacts
from checker.protocol import Finished, Job
from checker.registry import Limits, all_checks
from checker.worker import judge

pytest.importorskip("compressed_tensors", reason="compressed-tensors is not installed (extra compressed-tensors)")
pytest.importorskip("torch", reason="torch is not installed (extra torch)")

ID = "compressed-tensors"
INSTALLED = Version(version(ID))
CHECKS = {item.id: item for item in all_checks() if item.opt_in is None}
DENSE = "frozen"  # nothing is packed in it
Q = "model.layers.0.self_attn.q_proj"
EXPERTS = ("nvfp4a16-experts", "w4a16-experts", "w8a16-group")  # packed, unpacked and joined by transformers
UNPACKED_ZERO_POINTS = "model.layers.0.mlp.down_proj.weight_zero_point is"
BROKEN_UPSTREAM = {  # fixture -> (first version that cannot load it, "" for all; what must be said)
    "w4a16-group-asym": ("0.18", UNPACKED_ZERO_POINTS),
    "w4a16-channel-asym": ("0.18", UNPACKED_ZERO_POINTS),
    "w8a16-channel-asym": ("0.18", UNPACKED_ZERO_POINTS),
    "w4a16-awq": ("0.18", UNPACKED_ZERO_POINTS),
    "w4a16-actorder-asym": ("0.18", ""),
    "w8a16-actorder": ("0.19", "actorder='group' has been removed"),
    "w4a8-group": ("", "model.layers.0.mlp.experts.gate_up_proj cannot be converted"),
    "w4a16-llava": ("", "lm_head.weight_packed is missing and was initialised at random"),
}
TOO_OLD = {"mixed-precision": "0.18", "w3a16-group": "0.18", "mxfp6a16": "0.20", "mxfp4": "0.17"}


def is_broken(name: str) -> bool:
    first = BROKEN_UPSTREAM.get(name, (None,))[0]
    return first is not None and (not first or Version(first) <= INSTALLED)


LOADABLE = [
    name
    for name in fixtures_of(ID)
    if not is_broken(name) and name != DENSE and Version(TOO_OLD.get(name, "0")) <= INSTALLED
]


def judge_whole(folder: Path, baseline: Path, scratch: Path) -> Judged:
    """All checks at full depth, in this process."""
    cell = Cell(
        id="test/cell",
        baseline=ModelRef(kind="folder", name=str(baseline)),
        checkpoint=ModelRef(kind="folder", name=str(folder)),
        settings=Settings(depth=Depth.FULL, device="cpu"),
    )
    job = Job(cell=cell, checks=tuple(CHECKS), baseline=str(baseline), checkpoint=str(folder), scratch=str(scratch))
    events: list[Any] = []
    judge(job, events.append)
    finished = [event for event in events if isinstance(event, Finished)]
    measurements: dict[str, Any] = {}
    for event in finished:
        measurements |= event.measurements
    return Judged(results={event.result.id: event.result for event in finished}, measurements=measurements)


def look(folder: Path, change: Callable[[Any], None] = lambda _: None) -> StructureFacts:
    """The structure of a model that is changed after it is loaded, as the checks of depth load see it."""
    from checker.checkpoint import open_checkpoint
    from checker.probes.artifact import gather_artifact
    from checker.probes.load import load_model
    from checker.probes.skeleton import build_skeleton, read_config
    from checker.probes.structure import gather_structure

    artifact = gather_artifact(open_checkpoint(folder), None)
    method = method_of(ID)
    skeleton = build_skeleton(read_config(folder), method, artifact.quantization_config or {})
    loaded = load_model(folder, "cpu")
    assert loaded.model is not None, loaded.flaw
    change(loaded.model)
    return gather_structure(loaded.model, skeleton, artifact, method, "cpu", lambda: "not run")


def places(check_id: str, structure: StructureFacts) -> set[str]:
    """The modules or parameters that a check names."""
    item = CHECKS[check_id]
    facts = [Limits(item.limits) if need.kind is Limits else structure for need in item.needs]
    return {finding.where for finding in item.function(*facts) if hasattr(finding, "where")}


@pytest.mark.parametrize("name", LOADABLE)
def test_a_healthy_checkpoint_passes_and_its_memory_is_predicted_to_the_byte(name: str, tmp_path: Path) -> None:
    folder = CHECKPOINTS / ID / name
    judged = judge_whole(folder, baseline_of(folder), tmp_path)
    assert not judged.ids(Outcome.FAIL) | judged.ids(Outcome.ERROR), judged.text()
    assert judged.ids(Outcome.WARN) <= ({"layers.classes"} if name in EXPERTS else set()), judged.text()
    memory = judged.measurements["memory.footprint"]
    assert (memory["footprint"], memory["true_bytes"]) == (memory["predicted"], memory["predicted_true_bytes"])


def test_that_the_first_forward_unpacks_the_weights_is_a_note(tmp_path: Path) -> None:
    folder = CHECKPOINTS / ID / "w4a16-group-sym"
    judged = judge_whole(folder, baseline_of(folder), tmp_path)
    assert judged.results["memory.footprint"].outcome is Outcome.PASS
    assert "unpacks these weights at the first forward" in str(judged.measurements["notes"])
    assert judged.results["loading.quantized"].outcome is Outcome.PASS


def test_weights_that_are_rounded_as_they_run_are_expected_where_the_config_plans_them(tmp_path: Path) -> None:
    folder = CHECKPOINTS / ID / DENSE
    judged = judge_whole(folder, baseline_of(folder), tmp_path)
    assert not judged.ids(Outcome.FAIL) | judged.ids(Outcome.ERROR), judged.text()
    assert judged.ids(Outcome.WARN) == {"config.present"}
    for check_id in ("layers.classes", "loading.quantized", "memory.footprint", "roundtrip.checkpoint"):
        assert judged.results[check_id].outcome is Outcome.PASS


@pytest.mark.parametrize("name", [name for name in BROKEN_UPSTREAM if is_broken(name)])
def test_what_these_versions_cannot_load_is_said_with_the_tensor_or_the_key(name: str, tmp_path: Path) -> None:
    folder = CHECKPOINTS / ID / name
    judged = judge_whole(folder, baseline_of(folder), tmp_path)
    assert judged.results["loading.keys"].outcome is Outcome.FAIL, "loads now: move it to the healthy ones"
    assert BROKEN_UPSTREAM[name][1] in judged.results["loading.keys"].findings[0].message
    static = [item.id for item in CHECKS.values() if item.depth is Depth.STATIC]
    assert not {judged.results[check_id].outcome for check_id in static} & {Outcome.FAIL, Outcome.ERROR}


def scales_in_float32(damaged: Damaged) -> None:
    for name, tensor in list(damaged.tensors.items()):
        if name.endswith("_scale"):
            values = (tensor.view("<u2").astype(np.uint32) << 16).view(np.float32)
            damaged.put(name, "F32", tensor.shape, values.tobytes())


def zero_points_of_zeros(damaged: Damaged) -> None:
    for name, tensor in list(damaged.tensors.items()):
        if name.endswith("weight_scale"):
            zeros = bytes(len(tensor.data) // 2)
            damaged.put(name.replace("weight_scale", "weight_zero_point"), "I8", tensor.shape, zeros)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        pytest.param("w8a8-dynamic", scales_in_float32, id="scales in float32 take the model's dtype"),
        pytest.param("fp8-static", scales_in_float32, id="as do those of activations"),
        pytest.param("w8a8-dynamic", zero_points_of_zeros, id="zero points of older writers are dropped"),
    ],
)
def test_other_spellings_of_a_healthy_file_are_predicted_as_well(
    name: str, change: Callable[[Damaged], None], tmp_path: Path
) -> None:
    with damage(CHECKPOINTS / ID / name, tmp_path / "model") as damaged:
        change(damaged)
    structure = look(tmp_path / "model")
    assert structure.before.footprint == structure.predicted_footprint
    assert places("layers.classes", structure) == set()


def made_dense(model: Any) -> None:
    """What a library would do that passes over one module: a plain linear layer of 16 bit in its place."""
    import torch

    old = model.get_submodule(Q)
    model.set_submodule(Q, torch.nn.Linear(old.in_features, old.out_features, bias=False, dtype=torch.bfloat16))


def cast_codes(model: Any) -> None:
    """Codes loaded into a floating-point parameter, as a loader does that casts everything to the model's dtype."""
    import torch

    module = model.get_submodule(Q)
    module.weight = torch.nn.Parameter(module.weight.to(torch.bfloat16), requires_grad=False)


@pytest.mark.parametrize("change", [made_dense, cast_codes])
def test_a_module_that_is_dense_in_memory_is_named(change: Callable[[Any], None]) -> None:
    folder = CHECKPOINTS / ID / "fp8-static"
    assert places("layers.classes", look(folder)) == set()
    structure = look(folder, change)
    assert places("layers.classes", structure) == {Q}
    assert structure.before.footprint != structure.predicted_footprint
    assert structure.before.quantized_modules == len(structure.modules) - 1


def test_codes_in_another_dtype_are_named() -> None:
    import torch

    def change(model: Any) -> None:
        module = model.get_submodule(Q)
        module.weight = torch.nn.Parameter(module.weight.view(torch.int8), requires_grad=False)

    assert places("dtypes.loaded", look(CHECKPOINTS / ID / "fp8-static")) == set()
    assert places("dtypes.loaded", look(CHECKPOINTS / ID / "fp8-static", change)) == {Q}


def test_a_config_that_asks_for_dense_weights_is_no_quantized_model(tmp_path: Path) -> None:
    with damage(CHECKPOINTS / ID / "w4a16-group-sym", tmp_path / "model") as damaged:
        damaged.quantization["run_compressed"] = False
    judged = judge_whole(tmp_path / "model", baseline_of(CHECKPOINTS / ID / "w4a16-group-sym"), tmp_path / "scratch")
    assert {"layers.classes", "loading.quantized"} <= judged.ids(Outcome.FAIL), judged.text()
