"""fouroversix: decoded as the library decodes, for both types and all rules of scales, and faults planted in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from decoding import CHECKPOINTS, baseline_of, fixtures_of, method_of, open_fixture, recognise
from float_formats import (
    Fault,
    assert_equals_library,
    assert_finds,
    assert_level,
    change,
    declare,
    dense,
    drop,
    judge_fault,
    retype,
    shift,
    swap_nibbles,
    together,
    undeclared,
)
from models import Damaged, judge_files

from checker.methods._float_numbers import unswizzle

Q, UP = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj"
DOWN = "model.layers.0.mlp.down_proj"
VALUES, SCALES = "quantized_weight_values", "quantized_weight_scale_factors"
AMAX, METADATA = "quantized_weight_amax", "quantized_weight_metadata"
PACKED = [name for name in fixtures_of("fouroversix") if name != "master-weights"]


@pytest.mark.parametrize("name", PACKED)
def test_decodes_as_the_library_does(name: str):
    assert_equals_library("fouroversix", name, exponent_only=True)


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("mxfp4", 0.9),  # as of compressed-tensors: 0.889 to 0.913
        ("nvfp4-static6", 0.74),  # as of compressed-tensors: 0.687 to 0.751
        ("nvfp4-mse", 0.57),  # the better of two scales for each block
    ],
)
def test_the_error_is_that_of_the_format(name: str, level: float):
    assert_level("fouroversix", name, level)


def test_a_module_with_settings_of_its_own_is_in_its_own_format():
    _, weights = open_fixture("fouroversix", "overrides")
    kinds = {weight.module: weight.attributes["quant_type"] for weight in weights.values()}
    assert kinds.pop(DOWN) == "mxfp4"
    assert set(kinds.values()) == {"nvfp4"}


def test_master_weights_pack_nothing_and_that_is_said():
    folder = CHECKPOINTS / "fouroversix" / "master-weights"
    judged = judge_files(folder, baseline_of(folder))
    assert "keep_master_weights" in judged.results["config.present"].findings[0].message


def test_it_is_known_by_headers_alone():
    checkpoint, weights = open_fixture("fouroversix", "mxfp4")
    assert {weight.dense for weight in recognise(method_of("fouroversix"), checkpoint)} == set(weights)


def test_tiles_of_scales_are_read_as_the_library_reads_them():
    """``from_blocked`` of fouroversix/quantize/dequantize_utils.py, in its own words."""
    rng = np.random.default_rng(0)
    for rows, columns in ((128, 4), (256, 12), (384, 8)):
        flat = rng.integers(0, 256, rows * columns).astype(np.uint8)
        wanted = flat.reshape(-1, 32, 4, 4).swapaxes(1, 2).reshape(-1, columns // 4, 128, 4).swapaxes(1, 2)
        np.testing.assert_array_equal(unswizzle(flat, rows, columns), wanted.reshape(rows, columns))


def in_rows(array: np.ndarray) -> None:
    """Scales written row by row instead of in tiles."""
    array[...] = unswizzle(array, 256, 8).reshape(-1)


def lie(*numbers: int) -> Fault:
    return change(f"{Q}.{METADATA}", "<i8", lambda array: array.__setitem__(slice(None), numbers))


FAULTS: dict[str, tuple[str, Fault, str, str]] = {
    "scales are lost": ("nvfp4-mse", drop(f"{Q}.{SCALES}"), "layers.complete", f"{Q}.{SCALES}"),
    "amax is lost": ("nvfp4-mse", drop(f"{Q}.{AMAX}"), "layers.complete", f"{Q}.{AMAX}"),
    "metadata are lost": ("nvfp4-mse", drop(f"{Q}.{METADATA}"), "layers.complete", f"{Q}.{METADATA}"),
    "codes are lost": ("nvfp4-mse", drop(f"{Q}.{VALUES}"), "layers.complete", f"{Q}.{VALUES}"),
    "metadata of another shape": ("nvfp4-mse", lie(64, 256, 64, 256, 1, 1), "layers.complete", f"{Q}.{METADATA}"),
    "metadata that say padded": ("nvfp4-mse", lie(96, 128, 128, 128, 1, 1), "layers.complete", f"{Q}.{METADATA}"),
    "amax of another dtype": ("nvfp4-mse", retype(f"{Q}.{AMAX}", "BF16", 2), "layers.complete", f"{Q}.{AMAX}"),
    "codes of another dtype": ("nvfp4-mse", retype(f"{Q}.{VALUES}", "I8", 1), "dtypes.storage", f"{Q}.{VALUES}"),
    "scales that are NaN": (
        "nvfp4-mse",
        change(f"{Q}.{SCALES}", "u1", lambda array: array.__setitem__(slice(0, 9), 0x7F)),
        "weights.scales",
        Q,
    ),
    "amax of zero": ("nvfp4-mse", change(f"{Q}.{AMAX}", "<f4", lambda array: array.fill(0)), "weights.scales", Q),
    "scales of another row": ("nvfp4-mse", change(f"{Q}.{SCALES}", "u1", shift), "weights.error", Q),
    "scales in rows, not in tiles": ("nvfp4-static6", change(f"{UP}.{SCALES}", "u1", in_rows), "weights.error", UP),
    "halves of bytes swapped": ("mxfp4", change(f"{Q}.{VALUES}", "u1", swap_nibbles), "weights.error", Q),
    "another rule of scales declared": ("nvfp4-static6", declare(scale_rule="mse"), "weights.scales", Q),
    "another rule the other way": ("nvfp4-mse", declare(scale_rule="static_6"), "weights.error", Q),
    "another type declared": (
        "nvfp4-mse",
        declare(dtype="mxfp4", scale_rule="static_6"),
        "config.truthful",
        f"{DOWN}.{VALUES}",
    ),
    "settings of a module are lost": (
        "overrides",
        declare(module_config_overrides=None),
        "config.truthful",
        f"{DOWN}.{VALUES}",
    ),
    "a layer left dense": (
        "nvfp4-mse",
        dense(f"{UP}.weight", [256, 128], *(f"{UP}.{part}" for part in (VALUES, SCALES, AMAX, METADATA))),
        "layers.coverage",
        UP,
    ),
    "a skipped layer is quantized": (
        "nvfp4-mse",
        declare(modules_to_not_convert=["lm_head", Q]),
        "layers.excluded",
        Q,
    ),
    "the config is lost": ("nvfp4-mse", undeclared, "config.present", f"{DOWN}.{VALUES}"),
    "an unknown rule": ("nvfp4-mse", declare(scale_rule="mean"), "config.keys", "quantization_config.scale_rule"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_finds_faults(fault: str, tmp_path: Path):
    name, plant, check, where = FAULTS[fault]
    assert_finds(judge_fault("fouroversix", name, tmp_path, plant), check, where)


def test_names_on_the_skip_list_are_compared_in_full(tmp_path: Path):
    """``k_proj`` alone skips nothing: those layers are then dense without a reason."""
    judged = judge_fault("fouroversix", "nvfp4-mse", tmp_path, declare(modules_to_not_convert=["lm_head", "k_proj"]))
    assert_finds(judged, "layers.coverage", "model.layers.0.self_attn.k_proj")


def hostile(damaged: Damaged) -> None:
    damaged.put(f"{Q}.{METADATA}", "I64", [6], np.array([-1, 1 << 62, 0, -5, 9, 9], "<i8").tobytes())


def test_metadata_are_not_believed(tmp_path: Path):
    judged = judge_fault("fouroversix", "nvfp4-mse", tmp_path, together(hostile))
    assert_finds(judged, "layers.complete", f"{Q}.{METADATA}")
