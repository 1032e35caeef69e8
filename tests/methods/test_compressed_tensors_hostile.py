"""compressed-tensors files with headers and settings that no tool writes: judged, never a crash."""

from __future__ import annotations

import math
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from decoding import CHECKPOINTS, baseline_of, fixtures_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models import Damaged, Judged, damage, judge_files

from checker.domain import ErrorKind, Json, Outcome

ID = "compressed-tensors"
SIZES = {"U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E8M0": 1, "BF16": 2, "I16": 2, "F32": 4, "I32": 4, "I64": 8, "F64": 8}
COMPANIONS = ("packed", "scale", "shape", "zero_point", "g_idx", "global_scale")
SETTINGS = ("num_bits", "group_size", "strategy", "symmetric", "block_structure", "type", "actorder", "scale_dtype")
VALUES: tuple[Json, ...] = (
    None, 0, -1, 1, 3, 4, 32, 10**30, 1.5, "x", "group", "channel", "block", "float", True, [1, 1], [0, 1], ["a"], {},
)  # fmt: skip


def assert_judged(judged: Judged) -> None:
    """Every check has come to a verdict, or says which weights it could not decode."""
    for name, result in judged.results.items():
        assert result.error is None or result.error.kind is ErrorKind.NOT_RUN, (name, result.error)


def reshape(file: Damaged, name: str, dtype: str, shape: list[int]) -> None:
    """The tensor in another type and shape, with as many of its bytes as that takes."""
    count = math.prod(shape) * SIZES[dtype]
    data = bytes(file.tensors[name].data)
    file.put(name, dtype, shape, (data * (count // max(len(data), 1) + 1))[:count])


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], database=None)
@given(
    fixture=st.sampled_from([name for name in fixtures_of(ID) if name != "frozen"]),
    companion=st.sampled_from(COMPANIONS),
    dtype=st.sampled_from(sorted(SIZES)),
    shape=st.lists(st.sampled_from([0, 1, 2, 3, 7, 16, 64, 96]), max_size=4),
    change=st.tuples(st.sampled_from(SETTINGS), st.sampled_from(VALUES)) | st.none(),
)
def test_any_header_and_setting_is_judged(
    fixture: str, companion: str, dtype: str, shape: list[int], change: tuple[str, Json] | None
) -> None:
    healthy = CHECKPOINTS / ID / fixture
    with TemporaryDirectory() as folder:
        with damage(healthy, Path(folder) / "damaged") as file:
            ending = f".weight_{companion}"
            name = next((name for name in file.tensors if name.endswith(ending)), "")
            name = name or next(name for name in file.tensors if name.endswith(("_proj.weight", ".weight_packed")))
            if math.prod(shape) < 1 << 20:
                reshape(file, name, dtype, shape)
            if change is not None:
                scheme = next(iter(file.quantization["config_groups"].values()))["weights"]  # type: ignore[union-attr]
                scheme[change[0]] = change[1]
        assert_judged(judge_files(Path(folder) / "damaged", baseline_of(healthy)))


@pytest.mark.parametrize("value", [0, -1, 1 << 40, (1 << 63) - 1])
def test_a_stored_shape_of_any_size_allocates_nothing(value: int, tmp_path: Path) -> None:
    layer = "model.layers.0.self_attn.q_proj"
    with damage(CHECKPOINTS / ID / "w4a16-group-sym", tmp_path / "damaged") as file:
        file.tensors[f"{layer}.weight_shape"].view("<i8")[:] = value
    judged = judge_files(tmp_path / "damaged")
    assert_judged(judged)
    assert judged.results["layers.complete"].outcome is Outcome.FAIL


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("config_groups", [1, 2]),
        ("config_groups", {"a": {"targets": [None], "weights": {"num_bits": [4]}}}),
        ("ignore", "lm_head"),
        ("ignore", [["lm_head"]]),
        ("format", {}),
        ("kv_cache_scheme", 7),
        ("transform_config", {"config_groups": 7}),
        ("quantization_status", []),
    ],
)
def test_settings_of_any_type_are_judged(key: str, value: Json, tmp_path: Path) -> None:
    with damage(CHECKPOINTS / ID / "nvfp4", tmp_path / "damaged") as file:
        file.quantization[key] = value
    assert_judged(judge_files(tmp_path / "damaged"))
