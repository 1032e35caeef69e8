"""GGUF files of llama.cpp: recipes and types, and faults planted in the files' bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from decoding import CHECKPOINTS, baseline_of, fixtures_of, method_of, open_fixture
from models import Judged, judge_files
from planted import FAIL, WARN

from checker.checkpoint.gguf import read_gguf
from checker.checkpoint.gguf_types import TYPES
from checker.domain import Outcome, Severity
from checker.methods._gguf_recipes import DEFAULT_TYPES, bits_of, plausible

GGUF = method_of("gguf")
NAMES = fixtures_of("gguf")
KINDS = {dtype: number for number, dtype in TYPES.items()}
QUERY = "blk.0.attn_q.weight"
Change = Callable[[bytearray], None]


@pytest.mark.parametrize("name", NAMES)
def test_the_recipe_that_the_file_names_is_the_one_its_tensors_have(name: str):
    _, weights = open_fixture("gguf", name)
    recipe = {weight.attributes["file_type"] for weight in weights.values()}
    assert recipe == {next((CHECKPOINTS / "gguf" / name).glob("*.gguf")).stem.removeprefix("model-")}


@pytest.mark.parametrize("name", NAMES)
def test_all_matrices_but_routers_and_short_rows_are_quantized(name: str):
    judged = judge_files(CHECKPOINTS / "gguf" / name, baseline_of(CHECKPOINTS / "gguf" / name))
    assert not judged.ids(Outcome.FAIL) | judged.ids(Outcome.WARN) | judged.ids(Outcome.ERROR), judged.text()


def test_recipes_mix_types():
    _, weights = open_fixture("gguf", "q4_k_m")
    types = {weight.module: weight.attributes["quant_type"] for weight in weights.values()}
    assert types["blk.1.ffn_down"] == "Q6_K"  # rows of 256 values
    assert types["blk.0.ffn_down"] == "Q4_K"
    assert types["blk.0.attn_q"] == "Q5_0"  # rows of 128
    assert types["output"] == "Q8_0"


@pytest.mark.parametrize(
    ("recipe", "row", "shares", "expected"),
    [  # shares of the values, as llama.cpp made them of rows of 512 and 128 values
        ("Q4_K_M", 512, {"Q4_K": 48, "Q6_K": 8}, True),
        ("Q6_K", 512, {"Q4_K": 48, "Q6_K": 8}, False),
        ("Q5_K_M", 512, {"Q4_K": 51, "Q5_K": 5}, False),
        ("Q3_K_L", 512, {"Q3_K": 32, "Q5_K": 24}, True),
        ("Q2_K", 512, {"Q2_K": 32, "Q3_K": 24}, True),
        ("IQ3_M", 512, {"IQ3_S": 39, "Q4_K": 17}, True),
        ("Q4_0", 512, {"Q4_0": 40, "Q4_1": 16}, True),
        ("Q8_0", 512, {"Q4_K": 48, "Q6_K": 8}, False),
        ("MXFP4_MOE", 512, {"Q8_0": 56}, True),
        ("Q4_K_M", 128, {"Q5_0": 11, "Q8_0": 1}, True),  # what stands in for Q4_K in short rows
        ("Q4_K_M", 512, {"Q5_0": 11, "Q8_0": 1}, False),
        ("Q5_1", 128, {"Q5_0": 12}, False),
        ("Q3_K_M", 128, {"Q4_0": 8, "Q5_0": 2, "Q5_1": 2, "Q4_K": 2}, True),
        ("IQ4_XS", 96, {"IQ4_NL": 12}, True),
        ("TQ2_0", 128, {"Q4_0": 12, "TQ2_0": 2}, True),
        ("F16", 512, {"Q4_K": 1}, False),
        ("Q4_K_M", 512, {}, False),
        ("unheard of", 512, {"Q4_K": 1}, False),
    ],
)
def test_what_a_recipe_may_hold(recipe: str, row: int, shares: dict[str, int], expected: bool):
    assert plausible(recipe, [(kind, row, count) for kind, count in shares.items()]) is expected


def test_the_number_in_a_types_name_is_its_bits():
    assert {kind: bits_of(kind) for kind in ("Q4_K", "IQ2_XXS", "TQ1_0", "Q8_0", "MXFP4")} == {
        "Q4_K": 4, "IQ2_XXS": 2, "TQ1_0": 2, "Q8_0": 8, "MXFP4": 4,
    }  # fmt: skip
    assert all(bits_of(kind) for kind in DEFAULT_TYPES.values())


def judged(fixture: str, change: Change, folder: Path, *, baseline: bool = False) -> Judged:
    """What the checks say of a copy whose only file was changed."""
    healthy = CHECKPOINTS / "gguf" / fixture
    path = next(healthy.glob("*.gguf"))
    raw = bytearray(path.read_bytes())
    change(raw)
    (folder / path.name).write_bytes(raw)
    return judge_files(folder, baseline_of(healthy) if baseline else None)


def _entry(raw: bytearray, name: str) -> int:
    """Where the number of dimensions of a tensor's entry stands."""
    return raw.index(struct.pack("<Q", len(name)) + name.encode()) + 8 + len(name)


def recipe(number: int) -> Change:
    def change(raw: bytearray) -> None:
        key = b"general.file_type"
        place = raw.index(key) + len(key) + 4
        raw[place : place + 4] = struct.pack("<I", number)

    return change


def kind(name: str, dtype: str) -> Change:
    """The entry names another type; the data stay."""

    def change(raw: bytearray) -> None:
        place = _entry(raw, name)
        (dimensions,) = struct.unpack_from("<I", raw, place)
        struct.pack_into("<I", raw, place + 4 + 8 * dimensions, KINDS[dtype])

    return change


def offset(name: str, by: int) -> Change:
    def change(raw: bytearray) -> None:
        place = _entry(raw, name)
        (dimensions,) = struct.unpack_from("<I", raw, place)
        (before,) = struct.unpack_from("<Q", raw, place + 8 + 8 * dimensions)
        struct.pack_into("<Q", raw, place + 8 + 8 * dimensions, before + by)

    return change


def width(name: str, value: int) -> Change:
    def change(raw: bytearray) -> None:
        struct.pack_into("<Q", raw, _entry(raw, name) + 4, value)

    return change


def cut(count: int) -> Change:
    def change(raw: bytearray) -> None:
        del raw[-count:]

    return change


def magic(raw: bytearray) -> None:
    raw[:4] = b"GGML"


def rename(raw: bytearray) -> None:
    place = raw.index(b"blk.0.attn_q.weight")
    raw[place : place + 19] = b"blk.0.attn_k.weight"


def counts(raw: bytearray) -> None:
    struct.pack_into("<Q", raw, 8, 1 << 60)


ROWS: list[tuple[str, str, Change, str, tuple[Severity, str]]] = [
    ("says Q8_0", "q4_k_m", recipe(7), "config.truthful", (FAIL, "output.weight")),
    ("says Q5_K_M", "q4_k_m", recipe(17), "config.truthful", (FAIL, "output.weight")),
    ("says F16", "moe-q8_0", recipe(1), "config.truthful", (FAIL, "output.weight")),
    (
        "another type, larger",
        "q4_k_m",
        kind(QUERY, "GGUF_Q8_0"),
        "files.valid",
        (FAIL, "model-Q4_K_M.gguf: blk.0.attn_v.weight"),
    ),
    ("type of longer blocks", "q4_k_m", kind(QUERY, "GGUF_Q4_K"), "files.valid", (FAIL, f"model-Q4_K_M.gguf: {QUERY}")),
    ("moved", "q4_k_m", offset(QUERY, 32), "files.valid", (FAIL, f"model-Q4_K_M.gguf: {QUERY}")),
    ("rows of no whole blocks", "q4_k_m", width(QUERY, 100), "files.valid", (FAIL, f"model-Q4_K_M.gguf: {QUERY}")),
    ("rows too wide", "q4_k_m", width(QUERY, 1 << 62), "files.valid", (FAIL, f"model-Q4_K_M.gguf: {QUERY}")),
    ("cut short", "q4_k_m", cut(5000), "files.valid", (FAIL, "model-Q4_K_M.gguf: blk.1.ffn_up.weight")),
    ("another format", "q4_k_m", magic, "files.valid", (FAIL, "model-Q4_K_M.gguf")),
    ("two of a name", "q4_k_m", rename, "files.valid", (FAIL, "model-Q4_K_M.gguf: blk.0.attn_k.weight")),
    ("hostile counts", "q4_k_m", counts, "files.valid", (FAIL, "model-Q4_K_M.gguf")),
]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_planted_fault_is_found_and_named(row: tuple[str, str, Change, str, tuple[Severity, str]], tmp_path: Path):
    _, fixture, change, check, expected = row
    result = judged(fixture, change, tmp_path)
    assert expected in {(item.severity, item.where) for item in result.results[check].findings}, result.text()


def left_dense(path: Path, *names: str) -> None:
    """Write a file anew in which some matrices are F16."""
    header, raw = read_gguf(path), path.read_bytes()
    tensors = list(header.tensors.values())
    first = tensors[0].name.encode()
    keys = raw[24 : raw.index(struct.pack("<Q", len(first)) + first)]
    entries, data = b"", b""
    for item in tensors:
        dense = item.name in names
        name, shape = item.name.encode(), item.shape[::-1]
        kind_and_place = struct.pack("<IQ", KINDS["F16" if dense else item.dtype], len(data))
        entries += (
            struct.pack("<Q", len(name)) + name + struct.pack(f"<I{len(shape)}Q", len(shape), *shape) + kind_and_place
        )
        part = bytes(2 * item.numel) if dense else raw[item.begin : item.end]
        data += part + bytes(-len(part) % 32)
    head = raw[:24] + keys + entries
    path.write_bytes(head + bytes(-len(head) % 32) + data)


@pytest.mark.parametrize(
    ("fixture", "names", "expected"),
    [
        ("q4_k_m", (QUERY,), (FAIL, "blk.0.attn_q")),
        ("moe-q8_0", ("blk.1.ffn_up_exps.weight",), (FAIL, "blk.1.ffn_up_exps")),
        ("q4_k_m", (QUERY, "blk.1.attn_q.weight"), (WARN, "blk.0.attn_q")),  # all of a kind: perhaps meant
    ],
)
def test_matrices_left_dense_are_found(
    fixture: str, names: tuple[str, ...], expected: tuple[Severity, str], tmp_path: Path
):
    path = next((CHECKPOINTS / "gguf" / fixture).glob("*.gguf"))
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    left_dense(copy, *names)
    result = judge_files(tmp_path)
    assert result.results["files.valid"].outcome is Outcome.PASS
    found = {(item.severity, item.where) for item in result.results["layers.coverage"].findings}
    assert expected in found, result.text()


def test_embedding_and_head_may_have_any_type(tmp_path: Path):
    path = next((CHECKPOINTS / "gguf" / "q4_k_m").glob("*.gguf"))
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    left_dense(copy, "token_embd.weight", "output.weight")
    result = judge_files(tmp_path)
    assert not result.ids(Outcome.FAIL) | result.ids(Outcome.WARN), result.text()
