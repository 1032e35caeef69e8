"""What is read is what was written: against the safetensors library and ml_dtypes, type by type."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from raw_files import container, packed
from safetensors.numpy import save_file

from checker.checkpoint import Checkpoint, open_checkpoint
from checker.checkpoint.header import BITS
from checker.errors import NotApplicable, Unavailable

RANDOM = np.random.default_rng(0)
ML_DTYPES = {
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
}
NUMPY = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
    "C64": np.complex64,
}


def one_tensor(folder: Path, code: str, raw: bytes, shape: list[int]) -> Checkpoint:
    (folder / "config.json").write_text("{}")
    header = packed({"pad": ("U8", [3]), "w": (code, shape)})  # three bytes before: nothing is aligned
    (folder / "model.safetensors").write_bytes(container(header, b"pad" + raw))
    checkpoint = open_checkpoint(folder)
    assert checkpoint.problems == ()
    return checkpoint


def values(code: str) -> np.ndarray:
    if code == "BOOL":
        return RANDOM.integers(0, 2, (4, 6)).astype(np.bool_)
    if code in ML_DTYPES:
        return RANDOM.integers(0, 256, (4, 6 * BITS[code] // 8), np.uint8).view(ML_DTYPES[code])
    return (RANDOM.standard_normal((4, 6)) * 100).astype(NUMPY[code])


def saved(folder: Path, tensors: dict[str, np.ndarray], name: str = "model.safetensors") -> None:
    (folder / "config.json").write_text('{"model_type": "llama"}')
    save_file(tensors, folder / name, metadata={"format": "pt"})


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")  # in making the test's own numbers
def test_a_file_of_the_library_is_read_as_written(tmp_path):
    tensors = {
        code.lower(): np.abs(values(code)) if code[0] == "U" else values(code) for code in NUMPY if code != "C64"
    }
    saved(tmp_path, tensors)
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.problems == ()
        assert checkpoint.complete
        assert checkpoint.config == {"model_type": "llama"}
        assert checkpoint.metadata == {"format": "pt"}
        assert checkpoint.tensor_files == ("model.safetensors",)
        assert checkpoint.total_bytes == sum(tensor.nbytes for tensor in tensors.values())
        for name, tensor in tensors.items():
            read = checkpoint.array(name)
            assert read.dtype == tensor.dtype
            np.testing.assert_array_equal(read, tensor)
            np.testing.assert_array_equal(checkpoint.float32(name), tensor.astype(np.float32).ravel())


def test_sharded_files_of_the_library(tmp_path):
    shards = {
        "model-00001-of-00002.safetensors": {"a": values("F32"), "b": values("F16")},
        "model-00002-of-00002.safetensors": {"c": values("I8")},
    }
    for name, tensors in shards.items():
        saved(tmp_path, tensors, name)
    weight_map = {tensor: name for name, tensors in shards.items() for tensor in tensors}
    total = sum(tensor.nbytes for tensors in shards.values() for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    checkpoint = open_checkpoint(tmp_path)

    assert checkpoint.problems == ()
    assert checkpoint.tensor_files == tuple(shards)
    assert checkpoint.total_bytes == total
    for tensors in shards.values():
        for name, tensor in tensors.items():
            np.testing.assert_array_equal(checkpoint.array(name), tensor)


@pytest.mark.parametrize("code", [*ML_DTYPES, *NUMPY])
def test_every_type_of_a_byte_or_more(code, tmp_path):
    tensor = values(code)
    checkpoint = one_tensor(tmp_path, code, tensor.tobytes(), [*tensor.shape])

    array = checkpoint.array("w")
    assert (array.dtype, array.shape) == (tensor.dtype, tensor.shape)
    assert array.tobytes() == tensor.tobytes()
    assert not array.flags.writeable
    assert not array.flags.owndata
    if code != "C64":
        np.testing.assert_array_equal(checkpoint.float32("w"), tensor.astype(np.float32).ravel())
        np.testing.assert_array_equal(checkpoint.float32("w", 5, 11), tensor.astype(np.float32).ravel()[5:11])
        assert checkpoint.float32("w", 20, 99).size == 4
        assert checkpoint.float32("w").dtype == np.float32


@pytest.mark.parametrize("code", ["BF16", "F16", *(code for code in ML_DTYPES if code.startswith("F8"))])
def test_every_bit_pattern_becomes_its_value(code, tmp_path):
    dtype = np.dtype(ML_DTYPES.get(code, np.float16))
    codes = np.arange(256**dtype.itemsize, dtype=f"u{dtype.itemsize}")
    checkpoint = one_tensor(tmp_path, code, codes.tobytes(), [codes.size])
    np.testing.assert_array_equal(checkpoint.float32("w"), codes.view(dtype).astype(np.float32))


def test_numbers_beyond_float32_become_infinite_without_a_warning(tmp_path):
    checkpoint = one_tensor(tmp_path, "F64", np.array([1e300, -1e300, np.nan, 1.5]).tobytes(), [4])
    np.testing.assert_array_equal(checkpoint.float32("w"), np.float32([np.inf, -np.inf, np.nan, 1.5]))


@pytest.mark.parametrize("code", ["F4", "F6_E2M3", "F6_E3M2"])
def test_types_below_a_byte_are_bytes_only(code, tmp_path):
    raw = bytes(range(BITS[code]))
    checkpoint = one_tensor(tmp_path, code, raw, [2, 4])

    assert bytes(checkpoint.read("w")) == raw
    for read in (checkpoint.array, checkpoint.float32):
        with pytest.raises(NotApplicable, match=code):
            read("w")


def test_complex_numbers_have_no_float32(tmp_path):
    checkpoint = one_tensor(tmp_path, "C64", bytes(8), [1])
    with pytest.raises(NotApplicable, match="complex"):
        checkpoint.float32("w")


@pytest.mark.parametrize("shape", [[], [0], [3, 0, 2]])
def test_scalars_and_empty_tensors(shape, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    header = packed({"w": ("BF16", shape)})
    (tmp_path / "model.safetensors").write_bytes(container(header, b"\x80\x3f"[: header["w"]["data_offsets"][1]]))
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.array("w").shape == tuple(shape)
    assert checkpoint.float32("w").tolist() == [1.0] * checkpoint.tensors["w"].numel


def test_reading_is_a_view_of_one_map_per_file(tmp_path):
    checkpoint = one_tensor(tmp_path, "U8", b"1234", [4])
    first, second = checkpoint.read("w"), checkpoint.read("w")

    assert np.shares_memory(first, second)
    assert first.dtype == np.uint8
    assert first.ndim == 1


def test_arrays_outlive_the_checkpoint_and_files_are_let_go(tmp_path):
    def open_files() -> int:
        return len([*Path("/proc/self/fd").iterdir()])

    before = open_files()
    with one_tensor(tmp_path, "U8", b"1234", [4]) as checkpoint:
        data = checkpoint.read("w")
    assert bytes(data) == b"1234"
    del data
    gc.collect()
    assert open_files() == before
    assert bytes(checkpoint.read("w")) == b"1234", "a closed checkpoint opens its files again"


@pytest.mark.parametrize("change", ["shorter", "empty", "gone"])
def test_a_file_that_changes_meanwhile_is_no_verdict_on_the_model(change, tmp_path):
    checkpoint = one_tensor(tmp_path, "U8", b"1234", [4])
    path = tmp_path / "model.safetensors"
    if change == "gone":
        path.unlink()
    else:
        os.truncate(path, 0 if change == "empty" else path.stat().st_size - 1)
    with pytest.raises(Unavailable, match="while it was read"):
        checkpoint.read("w")


def test_only_numpy_is_imported():
    heavy = "{'torch', 'safetensors', 'huggingface_hub', 'ml_dtypes'}"
    program = f"import sys, checker.checkpoint, checker.checkpoint.resolve; print(sorted({heavy} & {{*sys.modules}}))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
