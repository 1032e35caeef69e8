"""One run that holds everything: every outcome, every kind of trouble, and strings that attack every sink."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from reporters_measured import bare, erring, failing, healthy, hostile, run_of

import checker
from checker.domain import (
    Cell,
    CellResult,
    CheckError,
    CheckResult,
    Depth,
    Environment,
    ErrorKind,
    Finding,
    Location,
    ModelRef,
    RunResult,
    Settings,
    Severity,
    Waived,
)

GOLDEN = Path(__file__).parent / "golden"
HOSTILE = (
    "w|x`y``<script>alert(1)</script> @user ##[error]old\n::error::new \x1b[31mred\x00\ud800\u202e\r::stop-commands::t"
)
BASELINE = ModelRef(kind="hub", name="HuggingFaceTB/SmolLM2-135M", revision="12fd25f")
COMMIT = "12fd25f77366fa6b3b4b768ec3050bf629380bac"
STATIC = ("config.present", "config.method", "layers.coverage", "dtypes.storage", "memory.ratio", "weights.scales")


def _passes(*names: str) -> tuple[CheckResult, ...]:
    return tuple(CheckResult(id=name, seconds=0.01 * number) for number, name in enumerate(names))


def _cell(name: str, line: int, depth: Depth = Depth.FULL) -> Cell:
    return Cell(
        id=name,
        baseline=BASELINE,
        quantization={"quant_method": "bitsandbytes", "load_in_4bit": True},
        settings=Settings(depth=depth),
        origin=Location(file="ci/quant-verify.yml", line=line),
    )


def _memory(stored: int, baseline: int = 269_060_552) -> dict[str, float]:
    ratio = stored / baseline
    return {"predicted": ratio, "observed": ratio, "stored_bytes": stored, "baseline_bytes": baseline}


def _layer(number: int, ratio: float) -> dict[str, object]:
    return {"layer": f"model.layers.{number}.mlp.up_proj", "R": ratio, "nrmse": 0.09, "sqnr_db": 20.9}


def _passing() -> CellResult:
    waived = Finding(
        message="2 of 210 linear layers are kept in 16 bits",
        where="model.layers.*.experts",
        observed=2,
        limit=0,
        waived=Waived(reason="transformers#123", until=dt.date(2099, 12, 31)),
    )
    return CellResult(
        cell=_cell("smollm2/nf4", 4),
        checks=(*_passes(*STATIC), CheckResult(id="layers.complete", seconds=1e-05, findings=(waived,))),
        measurements={
            "memory.ratio": _memory(97_000_000),
            "weights": [_layer(3, 1.0123), _layer(4, 0.98)],
            "notes": ["the reference came from the cache"],
        },
        method="bitsandbytes-4bit",
        device="cuda:0",
        baseline_revision=COMMIT,
        seconds=12.3,
    )


def _warning() -> CellResult:
    warning = Finding(
        message="top-1 agreement with the baseline is lower than this error level predicts",
        severity=Severity.WARN,
        observed=0.871234,
        limit=0.9,
        hint="compare with another calibration set",
    )
    return CellResult(
        cell=_cell("smollm2/int8", 4),
        checks=(*_passes(*STATIC), CheckResult(id="outputs.divergence", seconds=3.25, findings=(warning,))),
        measurements={"memory.ratio": _memory(140_000_000), "weights": [_layer(7, 1.4)]},
        method="bitsandbytes-8bit",
        device="cuda:0",
        baseline_revision=COMMIT,
        seconds=75.0,
    )


def _failing() -> CellResult:
    errors = tuple(
        Finding(
            message=f"the error is {number + 2} times what scales and codes predict",
            where=f"model.layers.{number}.mlp.up_proj",
            observed=number + 2.0,
            limit=1.2,
            unit="R",
            hint="the scales do not belong to these codes: quantize this layer again",
        )
        for number in range(12)
    )
    hostile = Finding(
        message=HOSTILE.replace("\n", " "), where=HOSTILE, observed=HOSTILE, limit=[1, "|"], unit="`", hint=HOSTILE
    )
    waived = Finding(
        message="a scale is zero",
        where="lm_head",
        observed=float("nan"),
        waived=Waived(reason=HOSTILE, until=dt.date(2099, 1, 1)),
    )
    warning = Finding(message="3 of 16 codes are unused", severity=Severity.WARN, where="model.norm", observed=3)
    return CellResult(
        cell=_cell("smollm2/w4a16", 5),
        checks=(
            *_passes(*STATIC[:3]),
            CheckResult(id="weights.error", seconds=1.5, findings=(waived, warning, *errors)),
            CheckResult(id="weights.codes", findings=(hostile,)),
            CheckResult(id="weights.scales", findings=(warning,)),
            CheckResult(id="layers.tied", skip_reason="no tied weights"),
        ),
        measurements={
            "memory.ratio": _memory(99_000_000),
            "weights": [_layer(0, float("inf")), _layer(11, 13.0), {"layer": HOSTILE, "R": 2.0}, "odd"],
            "notes": [HOSTILE],
            HOSTILE: HOSTILE,
        },
        method="compressed-tensors",
        device="cuda:0",
        baseline_revision=COMMIT,
        attempts=2,
        seconds=101.4,
    )


def _erring() -> CellResult:
    crash = CheckError(
        kind=ErrorKind.CRASH,
        message="the worker died of signal 11 (SIGSEGV) while loading",
        detail='Traceback (most recent call last):\n  File "x.py", line 1\n::error::injected\nSegmentation fault',
    )
    timeout = CheckError(kind=ErrorKind.TIMEOUT, message="no answer within 1800 s")
    lost = CheckError(kind=ErrorKind.NOT_RUN, message=f"the worker is gone {HOSTILE}")
    names = ("loading.quantized", "layers.classes", "dtypes.loaded", "memory.footprint", "outputs.finite")
    return CellResult(
        cell=_cell(f"smollm2/{HOSTILE}", 9, Depth.LOAD),
        checks=(
            *_passes(*STATIC[:2]),
            CheckResult(id="loading.keys", seconds=2.0, error=crash),
            CheckResult(id="outputs.divergence", seconds=1800.0, error=timeout),
            *(CheckResult(id=name, error=lost) for name in names),
        ),
        baseline_revision=COMMIT,
        seconds=1810.0,
    )


def _skipped() -> CellResult:
    reason = "a static run of a checkpoint without a baseline"
    return CellResult(
        cell=Cell(
            id="published",
            checkpoint=ModelRef(kind="folder", name="models/published"),
            settings=Settings(depth=Depth.STATIC),
        ),
        checks=tuple(CheckResult(id=name, skip_reason=reason) for name in STATIC),
        checkpoint_revision="0" * 64,
    )


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> RunResult:
    """The run that every reporter renders."""
    monkeypatch.setattr(checker, "__version__", "1.2.3")
    cells = (_passing(), _warning(), _failing(), _erring(), _skipped())
    return RunResult(
        environment=Environment(
            python="3.11.7",
            packages={"torch": "2.10.0", "transformers": "5.5.0", "evil|pack`age": HOSTILE},
            device="NVIDIA H200",
            driver="570.1",
        ),
        planned=tuple(cell.cell.id for cell in cells),
        cells=cells,
        matrix_path="ci/quant-verify.yml",
        matrix_sha256="a" * 64,
        shard="1/1",
    )


@pytest.fixture
def measured_run(monkeypatch: pytest.MonkeyPatch) -> RunResult:
    """A run whose cells hold all that can be measured, or nothing of it."""
    monkeypatch.setattr(checker, "__version__", "1.2.3")
    return run_of(healthy(), failing(), erring(), bare(), hostile())


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """Compare a text with the committed file; UPDATE_GOLDEN=1 writes it instead."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if os.environ.get("UPDATE_GOLDEN") == "1":
            path.write_bytes(text.encode())
        assert text == path.read_bytes().decode()

    return compare


@pytest.fixture(autouse=True)
def _plain_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that rich obeys, and that CI sets."""
    for name in ("COLUMNS", "FORCE_COLOR", "LINES", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
