"""What ``record`` keeps of a run beside references and texts: how long each cell took. Nothing is run here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from checker.commands import record
from checker.commands.options import RunArguments
from checker.domain import CellResult, CheckResult, Environment, ExitCode, RunResult

MATRIX = """\
version: 1
defaults: {depth: full}
models: [{name: m, checkpoints: {a: org/a, b: org/b, still: org/c}}]
overrides: [{cells: m/still, depth: static}]
references: ./references
"""


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[RunArguments]:
    """A matrix in the working folder, and the arguments of every run, which takes 12.3 s for each cell."""
    (tmp_path / "quant-verify.yml").write_text(MATRIX)
    monkeypatch.chdir(tmp_path)
    seen: list[RunArguments] = []

    def run(suite, arguments):
        seen.append(arguments)
        cells = tuple(CellResult(cell=cell, checks=(CheckResult(id="x"),), seconds=12.3) for cell in suite.cells)
        ids = tuple(cell.id for cell in suite.cells)
        return RunResult(environment=Environment(python="3"), planned=ids, cells=cells), ExitCode.PASSED

    monkeypatch.setattr(record, "run_suite", run)
    monkeypatch.setattr(record, "_record_references", lambda *_: (0, 0))
    return seen


def costs() -> dict[str, float]:
    found: dict[str, float] = json.loads(Path("references/costs.json").read_text())["seconds"]
    return found


def test_what_each_cell_took_is_written_and_what_others_took_stays(told):
    Path("references").mkdir()
    Path("references/costs.json").write_text(
        json.dumps({"schema": "quant-verify/costs/1", "seconds": {"other/x": 7, "m/a": 90, "m/b": 12}})
    )
    assert record.record_matrix("quant-verify.yml", {}) is ExitCode.PASSED
    assert costs() == {"m/a": 12, "m/b": 12, "other/x": 7}
    before = Path("references/costs.json").stat()
    assert record.record_matrix("quant-verify.yml", {}) is ExitCode.PASSED
    assert Path("references/costs.json").stat() == before, "nothing changed, nothing is written"


def test_a_damaged_file_is_written_anew_and_told(told, capsys):
    Path("references").mkdir()
    Path("references/costs.json").write_text("<<<<<<< HEAD")
    assert record.record_matrix("quant-verify.yml", {"only": ("m/a",)}) is ExitCode.PASSED
    assert costs() == {"m/a": 12}
    assert "references/costs.json cannot be used: it is not JSON, or a key stands twice in it; it is written anew" in (
        capsys.readouterr().err
    )


def test_a_part_is_run_as_a_part(told):
    """Or waivers of the other cells would be said to be of no use."""
    record.record_matrix("quant-verify.yml", {})
    record.record_matrix("quant-verify.yml", {"only": ("m/b",)})
    assert [(arguments.only, arguments.partial) for arguments in told] == [(("m/a", "m/b"), True), (("m/b",), True)]
    Path("quant-verify.yml").write_text(MATRIX.replace("depth: static", "depth: full"))
    record.record_matrix("quant-verify.yml", {})
    assert (told[-1].only, told[-1].partial) == ((), False)
