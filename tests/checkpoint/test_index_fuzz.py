"""Fuzz of the index: whatever it says, reading ends; and what is accepted here, its loaders can read as we do."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import safetensors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_files import MAP, ONE, TWO, sharded

from checker.checkpoint import Checkpoint, open_checkpoint
from checker.checkpoint.index import INDEX
from checker.domain import Severity

BOUNDED = settings(
    max_examples=120,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
SOUND = {"metadata": {"total_size": 12}, "weight_map": MAP}
SHARDS = [
    *(ONE, TWO, "", ".", "..", "/", "model.safetensors", f"./{ONE}", f"sub/../{ONE}", f"../{ONE}", f"/etc/{ONE}"),
    *(
        ONE.upper(),
        f"{ONE} ",
        f"{ONE}\n",
        f"{ONE}\0",
        ONE.replace("-", "\\"),
        "pytorch_model.bin",
        "x" * 300,
        "\u202e.bin",
    ),
    *(INDEX, "config.json", "link.safetensors", "folder.safetensors", "pipe.safetensors", "absent.safetensors"),
]
NAMES = st.one_of(st.sampled_from(["a", "b", "c", "d", "", "a\n", "::error::a", "weight_map"]), st.text(max_size=3))
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.sampled_from([12, -1, 10**400, 1e308])
)
ANY = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=6,
)
SCRAPS = st.sampled_from(
    [
        b"{",
        b"}",
        b'"',
        b":",
        b",",
        b"[",
        b"\\",
        b"\\ud800",
        b"\xff",
        b"\0",
        b"-0",
        b"NaN",
        b'"a":1,',
        b"9" * 400,
        b"[" * 200,
    ]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two sound shards, and names that lead elsewhere."""
    root = tmp_path_factory.mktemp("index")
    (root / "outside.safetensors").write_bytes(b"")
    made = sharded(root / "checkpoint")
    (made / "link.safetensors").symlink_to(root / "outside.safetensors")
    (made / "folder.safetensors").mkdir()
    os.mkfifo(made / "pipe.safetensors")
    return made


def read(folder: Path, raw: bytes) -> Checkpoint:
    (folder / INDEX).write_bytes(raw)
    checkpoint = open_checkpoint(folder)
    for problem in checkpoint.problems:
        assert all(text.isprintable() for text in (problem.file, problem.where, problem.message, problem.hint))
    return checkpoint


def assert_read_as_loaders_do(checkpoint: Checkpoint, folder: Path) -> None:
    """If nothing fails, an ordinary reader of the index finds the same tensors, in the files inside the folder."""
    if any(problem.severity is Severity.FAIL for problem in checkpoint.problems):
        return
    index = json.loads((folder / INDEX).read_bytes())  # as transformers.utils.hub.get_checkpoint_shard_files reads it
    sorted(set(index["weight_map"].values()))
    dict(index["metadata"])
    for name, shard in index["weight_map"].items():
        path = folder / shard
        assert path.resolve().parent == folder.resolve()
        with safetensors.safe_open(path, "np") as opened:
            assert name in opened.keys()  # noqa: SIM118 - it is no mapping
    assert checkpoint.tensors.keys() == index["weight_map"].keys()


@st.composite
def edited_bytes(draw) -> bytes:
    """A sound index in which a few bytes were replaced, inserted or removed."""
    raw = bytearray(json.dumps(SOUND, indent=draw(st.sampled_from([None, 2]))).encode())
    for _ in range(draw(st.integers(0, 3))):
        place, width = draw(st.integers(0, len(raw))), draw(st.integers(0, 4))
        raw[place : place + width] = draw(st.one_of(SCRAPS, st.binary(max_size=2)))
    return bytes(raw)


@st.composite
def edited_fields(draw) -> bytes:
    """A valid index whose entries point anywhere, in any order, or are none."""
    weight_map = dict(draw(st.permutations([*MAP.items()])))
    weight_map |= draw(st.dictionaries(NAMES, st.one_of(st.sampled_from(SHARDS), SCALARS), max_size=2))
    for name in draw(st.lists(st.sampled_from([*MAP]), max_size=1)):
        weight_map.pop(name, None)
    metadata = draw(st.one_of(st.just({"total_size": 12}), ANY, st.fixed_dictionaries({"total_size": ANY})))
    index = {"metadata": metadata, "weight_map": draw(st.one_of(st.just(weight_map), st.just(weight_map), ANY))}
    return json.dumps(index).encode("utf-8", "surrogatepass")


@BOUNDED
@given(raw=edited_bytes())
def test_edited_bytes(raw, folder):
    assert_read_as_loaders_do(read(folder, raw), folder)


@BOUNDED
@given(raw=edited_fields())
def test_edited_fields(raw, folder):
    assert_read_as_loaders_do(read(folder, raw), folder)


@BOUNDED
@given(value=ANY)
def test_any_json(value, folder):
    assert_read_as_loaders_do(read(folder, json.dumps(value).encode("utf-8", "surrogatepass")), folder)


def test_the_sound_index_is_accepted(folder):
    """What the other tests would not notice: that nothing is accepted at all."""
    checkpoint = read(folder, json.dumps(SOUND).encode())
    assert {problem.severity for problem in checkpoint.problems} <= {Severity.WARN}  # files that nothing refers to
    assert checkpoint.tensors.keys() == MAP.keys()
