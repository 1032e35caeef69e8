"""Libraries as an axis, from the matrix to the report: real pip, wheels made here, and no index."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import LOAD, STATIC, Done, check_reports, errors, quant_verify, read_report
from wheels import only_from, write_wheel

PLAIN, TOY = "a/nf4", "a/nf4@qvtoy-1.0"
MATRIX = """\
    defaults: {depth: static, libraries: [{}, {qvtoy: "1.0"}]}
    models:
      - {name: a, checkpoints: {nf4: ./models/nf4}}
    """


@pytest.fixture
def index(work: Path) -> Path:
    """Two packages, of which the first needs the second."""
    folder = work / "index"
    write_wheel(folder, "qvtoy", "1.0", requires=["qvtoy-dep>=2", "torch>=1"])
    write_wheel(folder, "qvtoy-dep", "2.1")
    return folder


def run(work: Path, *arguments: object) -> Done:
    extra = only_from(work / "index", QUANT_VERIFY_CACHE=str(work / "cache"))
    return quant_verify("run", "--report-dir", "out", *arguments, cwd=work, **extra)


def libraries(work: Path) -> dict[str, dict[str, str] | None]:
    return {cell["id"]: cell["measurements"].get("libraries") for cell in read_report(work / "out")["cells"]}


def test_each_cell_runs_with_its_libraries(work, matrix, index):
    matrix(MATRIX)
    done = run(work)
    assert done.code == 0, done
    check_reports(work / "out", {PLAIN: STATIC, TOY: STATIC})
    assert libraries(work) == {PLAIN: None, TOY: {"qvtoy": "1.0", "qvtoy-dep": "2.1"}}


def test_the_cache_is_enough_offline_and_parts_of_the_axis_can_be_chosen(work, matrix, index):
    matrix(MATRIX)
    assert run(work, "--only", "a/nf4@*").code == 0
    assert [*libraries(work)] == [TOY]
    for wheel in index.iterdir():
        wheel.unlink()
    assert run(work, "--offline", "--shard", "2/2").code == 0
    assert libraries(work) == {TOY: {"qvtoy": "1.0", "qvtoy-dep": "2.1"}}


def test_offline_without_the_cache_that_cell_is_not_verified(work, matrix, index):
    matrix(MATRIX)
    done = run(work, "--offline")
    assert done.code == 3, done
    report = check_reports(work / "out", {PLAIN: STATIC, TOY: STATIC})
    assert errors(report, PLAIN) == {}
    missed = errors(report, TOY)
    assert len(missed) == STATIC
    assert {error["kind"] for error in missed.values()} == {"network"}
    assert "qvtoy 1.0 is not in the cache" in missed["config.present"]["message"]
    assert {cell["attempts"] for cell in report["cells"]} == {1}


def test_what_cannot_be_installed_is_not_verified(work, matrix, index):
    matrix(MATRIX.replace("1.0", "7.7"))
    done = run(work)
    assert done.code == 3, done
    missed = errors(read_report(work / "out"), "a/nf4@qvtoy-7.7")
    assert {error["kind"] for error in missed.values()} == {"not-run"}
    assert "pip says: No matching distribution found for qvtoy==7.7" in missed["config.present"]["message"]


def test_a_model_is_loaded_with_what_is_laid_over(work, matrix, index):
    """An upgrade that breaks loading: the same file passes with the installed libraries and is told without."""
    write_wheel(
        index, "bitsandbytes", "99.0", files={"bitsandbytes/__init__.py": "raise ImportError('the toy of version 99')"}
    )
    matrix(MATRIX.replace("depth: static", "depth: load, device: cpu").replace('qvtoy: "1.0"', 'bitsandbytes: "99.0"'))
    done = run(work)
    report = check_reports(work / "out", {PLAIN: LOAD, "a/nf4@bitsandbytes-99.0": LOAD})
    outcomes = {cell["id"]: cell["outcome"] for cell in report["cells"]}
    assert outcomes[PLAIN] == "pass", done
    assert outcomes["a/nf4@bitsandbytes-99.0"] in {"fail", "error"}
    broken = next(cell for cell in report["cells"] if "@" in cell["id"])
    assert "the toy of version 99" in json.dumps(broken["checks"])
    assert libraries(work)["a/nf4@bitsandbytes-99.0"] == {"bitsandbytes": "99.0"}


def test_the_plan_needs_no_network(work, matrix):
    matrix(MATRIX)
    nowhere = only_from(work / "nowhere", QUANT_VERIFY_CACHE=str(work / "cache"))
    done = quant_verify("plan", cwd=work, **nowhere)
    assert done.code == 0, done
    assert json.loads(done.out)["include"][0]["cells"] == f"{PLAIN},{TOY}"
    assert not (work / "cache").exists()


def test_a_mistake_is_told_before_anything_runs(work, matrix):
    matrix(MATRIX.replace('qvtoy: "1.0"', "torch: 2.12.0, bitsandbytes: 0.50"))
    done = quant_verify("run", cwd=work)
    assert done.code == 2, done
    assert "quant-verify.yml:2: defaults.libraries.bitsandbytes: must be a version in quotes" in done.err
