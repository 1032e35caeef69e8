"""One run to the full depth, of cells quantized on the spot and of a published checkpoint, seen from every side."""

from __future__ import annotations

import re
import threading
import xml.etree.ElementTree as ET

import psutil
import pytest
from command_line import FULL, Done, check_reports, finish, quant_verify, running

MATRIX = """\
version: 1
quantizations:
  nf4: {quant_method: bitsandbytes, load_in_4bit: true, bnb_4bit_quant_type: nf4, bnb_4bit_use_double_quant: true,
        bnb_4bit_compute_dtype: bfloat16}
  int8: {quant_method: bitsandbytes, load_in_8bit: true}
models:
  - baseline: ./models/dense
    name: tiny
    quantizations: [nf4, int8]
    checkpoints: {published: ./models/nf4}
"""
CELLS = {"tiny/nf4": FULL, "tiny/int8": FULL, "tiny/published": FULL}
PARENT_LIMIT = 150e6  # bytes


@pytest.fixture(scope="module")
def full(shelf, tmp_path_factory):
    """The run, its folder, and the most memory that the parent held."""
    work = tmp_path_factory.mktemp("full")
    (work / "models").symlink_to(shelf)
    (work / "quant-verify.yml").write_text(MATRIX)
    most = 0
    extra = {"GITHUB_ACTIONS": "true", "GITHUB_WORKSPACE": str(work), "GITHUB_STEP_SUMMARY": str(work / "step.md")}
    with running("run", cwd=work, PYTHONPROFILEIMPORTTIME="1", **extra) as process:
        parent = psutil.Process(process.pid)

        def watch():
            nonlocal most
            while process.poll() is None:
                try:
                    most = max(most, parent.memory_info().rss)
                except psutil.Error:
                    return
                pause.wait(0.02)

        pause = threading.Event()
        watcher = threading.Thread(target=watch)
        watcher.start()
        done = finish(process)
        watcher.join()
    return done, work, most


def test_all_pass_and_every_report_says_so(full):
    done, work, _ = full
    assert done.code == 0, done
    report = check_reports(work / "quant-verify-report", CELLS)
    assert report["totals"] == {"cells": 3, "pass": 3, "warn": 0, "fail": 0, "error": 0, "skip": 0}
    for cell in report["cells"]:
        assert cell["outcome"] == "pass"
        assert cell["attempts"] == 1
        assert cell["device"] == "cpu"
        assert {check["outcome"] for check in cell["checks"]} == {"pass", "skip"}
        assert cell["origin"] == {"file": "quant-verify.yml", "line": 10 if "published" in cell["id"] else 9}
    root = ET.parse(work / "quant-verify-report/junit.xml").getroot()
    assert not list(root.iter("failure"))
    assert not list(root.iter("error"))
    assert "Exit code 0" in done.out


def test_cells_quantized_here_and_published_ones_measure_the_same(full):
    _, work, _ = full
    cells = {cell["id"]: cell for cell in check_reports(work / "quant-verify-report", CELLS)["cells"]}
    here, published = (cells[name]["measurements"]["memory.ratio"] for name in ("tiny/nf4", "tiny/published"))
    assert here == published


def test_the_step_summary_is_the_summary(full):
    _, work, _ = full
    assert (work / "step.md").read_text() == (work / "quant-verify-report/summary.md").read_text()


def test_nothing_to_annotate_is_no_annotation(full):
    assert full[0].commands == []


def test_the_parent_stays_small(full):
    assert 0 < full[2] < PARENT_LIMIT


def imported(done: Done) -> set[str]:
    """Top-level modules by ``-X importtime``, which writes to the stderr of its own process only."""
    return {match[1].partition(".")[0] for match in re.finditer(r"^import time:.*\|\s+(\S+)$", done.err, re.MULTILINE)}


HEAVY = {"torch", "transformers", "accelerate", "bitsandbytes"}


def test_a_full_run_imports_no_torch_in_the_parent(full):
    assert "click" in imported(full[0])
    assert not HEAVY & imported(full[0])


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["explain"], ["methods"], ["plan"], ["check", "./models/nf4"], ["init", "--force"]],
    ids=" ".join,
)
def test_light_commands_import_no_torch_at_all(work, matrix, arguments):
    """Stand-ins that leave a mark come first on the path of parent and worker alike."""
    matrix("models: [{name: a, checkpoints: [./absent]}]")
    stubs = work / "stubs"
    stubs.mkdir()
    for name in HEAVY:
        mark = stubs / f"{name}.imported"
        (stubs / f"{name}.py").write_text(
            f"open({str(mark)!r}, 'w').close()\nraise ImportError('not here', name={name!r})\n"
        )
    done = quant_verify(*arguments, cwd=work, PYTHONPATH=str(stubs))
    assert done.code == 0, done
    assert not list(stubs.glob("*.imported"))


def test_without_torch_load_says_what_to_install(work):
    stubs = work / "stubs"
    stubs.mkdir()
    (stubs / "torch.py").write_text("raise ImportError('not here', name='torch')\n")
    done = quant_verify("check", "./models/nf4", "--depth", "load", cwd=work, PYTHONPATH=str(stubs))
    assert done.code == 3, done
    assert "torch is not installed; pip install 'quant-verify[torch]'" in done.out


def test_without_bitsandbytes_load_says_what_to_install(work):
    stubs = work / "stubs"
    stubs.mkdir()
    (stubs / "bitsandbytes.py").write_text(
        "raise ModuleNotFoundError('No module named bitsandbytes', name='bitsandbytes')\n"
    )
    done = quant_verify("check", "./models/nf4", "--depth", "load", cwd=work, PYTHONPATH=str(stubs))
    assert done.code == 3, done
    assert "bitsandbytes" in done.out
    assert "pip install" in done.out
