"""The index against the shards (rows X01 to X14, S37, S38)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from raw_files import MAP, ONE, TWO, healthy, problem_saying, sharded, single, write_index

from checker.checkpoint import open_checkpoint
from checker.checkpoint.index import INDEX
from checker.domain import Severity

FAIL, WARN = Severity.FAIL, Severity.WARN


@pytest.mark.parametrize("make", [sharded, single])
def test_a_healthy_checkpoint_has_no_problem(make, tmp_path):
    checkpoint = open_checkpoint(make(tmp_path))

    assert checkpoint.problems == ()
    assert checkpoint.complete
    assert {*checkpoint.tensors} == {"a", "b", "c"}
    assert checkpoint.total_bytes == 12


def x01(folder: Path) -> None:
    (folder.parent / "x.safetensors").write_bytes(healthy("c"))
    write_index(folder, {**MAP, "c": "../x.safetensors"})


def x02(folder: Path) -> None:
    (folder.parent / "x.safetensors").write_bytes(healthy("c"))
    write_index(folder, {**MAP, "c": str(folder.parent / "x.safetensors")})


def s38(folder: Path) -> None:
    (folder / TWO).rename(folder.parent / "x.safetensors")
    (folder / TWO).symlink_to(folder.parent / "x.safetensors")


def x04(folder: Path) -> None:
    (folder / TWO).write_bytes(healthy("c")[:-1])


def linked_folder(folder: Path) -> None:
    outside = folder.parent / "outside"
    outside.mkdir()
    (folder / TWO).rename(outside / "x.safetensors")
    (folder / "sub").symlink_to(outside)
    write_index(folder, {**MAP, "c": "sub/x.safetensors"})


def without_metadata(folder: Path) -> None:
    (folder / INDEX).write_text(json.dumps({"weight_map": MAP}))


def twice(folder: Path) -> None:
    (folder / TWO).write_bytes(healthy("c", "a"))
    write_index(folder, MAP, total_size=16)


def fifo(folder: Path) -> None:
    (folder / TWO).unlink()
    os.mkfifo(folder / TWO)


def loop(folder: Path) -> None:
    (folder / TWO).unlink()
    (folder / TWO).symlink_to(TWO)


def as_folder(folder: Path) -> None:
    (folder / TWO).unlink()
    (folder / TWO).mkdir()


def maps(weight_map: object) -> Callable[[Path], None]:
    return lambda folder: write_index(folder, weight_map)


ROWS: dict[str, tuple[Callable[[Path], object], str, str, str, Severity]] = {
    "X01-parent": (x01, INDEX, "../x.safetensors", "no plain path inside", FAIL),
    "X01-dots-inside": (maps({**MAP, "c": f"sub/../{TWO}"}), INDEX, f"sub/../{TWO}", "no plain path", FAIL),
    "X02-absolute": (x02, INDEX, "", "no plain path inside", FAIL),
    "X02-drive": (maps({**MAP, "c": "C:\\x.safetensors"}), INDEX, "C:\\x.safetensors", "no plain path", FAIL),
    "X02-nul": (maps({**MAP, "c": "x\0.safetensors"}), INDEX, "x\\x00.safetensors", "no plain path", FAIL),
    "X02-long": (maps({**MAP, "c": f"{'x' * 5_000}.safetensors"}), "x" * 160 + "…", "", "cannot be read", FAIL),
    "X03-shard-missing": (lambda folder: (folder / TWO).unlink(), TWO, "", "is missing", FAIL),
    "X04-shard-cut": (x04, TWO, "c", "1 bytes are missing", FAIL),
    "X05-index-cut": (lambda folder: (folder / INDEX).write_text('{"weight_map": {"a"'), INDEX, "", "not valid", FAIL),
    "X06-no-metadata": (without_metadata, INDEX, "metadata", "no metadata", FAIL),
    "X07-map-a-list": (maps([ONE, TWO]), INDEX, "weight_map", "not an object", FAIL),
    "X07-map-empty": (maps({}), INDEX, "weight_map", "maps no tensor", FAIL),
    "X07-shard-a-number": (maps({**MAP, "d": 1}), INDEX, "d", "not a file name", FAIL),
    "X08-ghost": (maps({**MAP, "ghost": TWO}), INDEX, "ghost", "is not stored in", FAIL),
    "X09-not-in-index": (maps({"a": ONE, "c": TWO}), INDEX, "b", "the index omits it", FAIL),
    "X10-wrong-shard": (maps({**MAP, "b": TWO}), INDEX, "b", "the index says", FAIL),
    "X11-stored-twice": (twice, TWO, "a", f"is stored in {ONE} and in {TWO}", FAIL),
    "X12-pickle": (maps({**MAP, "c": "x.bin"}), INDEX, "x.bin", "is a pickle", FAIL),
    "X12-other-file": (maps({**MAP, "c": "config.json"}), INDEX, "config.json", "not a safetensors file", FAIL),
    "X13-total-size": (
        lambda folder: write_index(folder, MAP, total_size=48),
        INDEX,
        "metadata.total_size",
        "48 bytes in total",
        WARN,
    ),
    "X14-unused-shard": (
        lambda folder: (folder / "model-00003.safetensors").write_bytes(healthy("z")),
        "model-00003.safetensors",
        "",
        "nothing refers to",
        WARN,
    ),
    "S37-pipe": (fifo, TWO, "", "is a named pipe", FAIL),
    "S37-loop": (loop, TWO, "", "cannot be read", FAIL),
    "S37-folder": (as_folder, TWO, "", "is a folder", FAIL),
    "S38-link-out": (s38, TWO, "", "leaves the checkpoint", FAIL),
    "S38-linked-folder": (linked_folder, "sub/x.safetensors", "", "lies outside the checkpoint", FAIL),
}


@pytest.mark.parametrize(("spoil", "file", "where", "says", "severity"), ROWS.values(), ids=ROWS.keys())
def test_a_disagreement_is_a_problem_that_names_it(spoil, file, where, says, severity, tmp_path):
    folder = sharded(tmp_path / "model")
    spoil(folder)
    problem = problem_saying(open_checkpoint(folder), says)

    assert problem.severity is severity
    assert problem.file == file
    assert problem.where == where or not where


@pytest.mark.parametrize("row", ["X01-parent", "X02-absolute", "S38-link-out", "S38-linked-folder", "X12-pickle"])
def test_nothing_outside_the_checkpoint_is_read(row, tmp_path):
    folder = sharded(tmp_path / "model")
    ROWS[row][0](folder)
    checkpoint = open_checkpoint(folder)

    assert "c" not in checkpoint.tensors
    assert {"a", "b"} <= {*checkpoint.tensors}
    assert not checkpoint.complete


def test_a_missing_shard_does_not_make_ghosts_of_its_tensors(tmp_path):
    folder = sharded(tmp_path)
    (folder / TWO).unlink()
    checkpoint = open_checkpoint(folder)

    assert [problem.file for problem in checkpoint.problems] == [TWO]
    assert not checkpoint.complete


def test_many_ghosts_are_counted(tmp_path):
    folder = sharded(tmp_path)
    write_index(folder, {**MAP, **{f"ghost.{i}": ONE for i in range(500)}})
    problems = open_checkpoint(folder).problems

    assert len(problems) == 21
    assert "480 more tensors that no shard stores" in problems[-1].message


@pytest.mark.parametrize("total", [12, 12.0, 12.4, None, "12", True])
def test_total_size_need_not_be_exact_nor_there(total, tmp_path):
    folder = sharded(tmp_path)
    write_index(folder, MAP, total_size=total)
    assert open_checkpoint(folder).problems == ()
