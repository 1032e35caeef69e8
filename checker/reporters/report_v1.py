"""The reader of report.json, version 1: as strict as the writer, because a report may come from somebody else's job.

A report says some things twice (outcomes, totals, exit code). Ours are derived and cannot contradict themselves; one
that was edited can, and is refused.
"""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from itertools import zip_longest
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveInt, ValidationError

from checker.domain import (
    Cell,
    CellResult,
    CheckError,
    CheckResult,
    Depth,
    Environment,
    ErrorKind,
    ExitCode,
    Finding,
    Json,
    Location,
    ModelRef,
    RunResult,
    Settings,
    Severity,
    Waived,
)
from checker.errors import UsageError
from checker.reporters import escape, json_v1

_INTERRUPTS = (ExitCode.HANGUP, ExitCode.INTERRUPTED, ExitCode.TERMINATED)
_SHOWN = 60  # characters of a foreign value in our messages


def _message(text: str) -> str:
    if not text.strip() or "\n" in text:
        raise ValueError("must be one non-empty line")
    return text


def _present(text: str) -> str:  # pydantic's own length limit refuses lone surrogates
    if not text:
        raise ValueError("must not be empty")
    return text


def _date(text: str) -> str:
    dt.date.fromisoformat(text)
    return text


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class _Waived(_Strict):
    reason: str
    until: Annotated[str, AfterValidator(_date)]

    def build(self) -> Waived:
        return Waived(reason=self.reason, until=dt.date.fromisoformat(self.until))


class _Finding(_Strict):
    severity: Literal["warn", "fail"]
    message: Annotated[str, AfterValidator(_message)]
    where: str
    observed: Json
    limit: Json
    unit: str
    hint: str
    waived: _Waived | None

    def build(self) -> Finding:
        waived = self.waived
        return Finding(
            message=self.message,
            severity=Severity(self.severity),
            where=self.where,
            observed=self.observed,
            limit=self.limit,
            unit=self.unit,
            hint=self.hint,
            waived=None if waived is None else waived.build(),
        )


class _Error(_Strict):
    kind: Literal["not-run", "crash", "timeout", "out-of-memory", "network", "gated", "internal"]
    message: str

    def build(self) -> CheckError:
        return CheckError(kind=ErrorKind(self.kind), message=self.message)


class _Check(_Strict):
    id: str
    outcome: Literal["pass", "warn", "fail", "error", "skip"]
    seconds: NonNegativeFloat
    skip_reason: str | None
    error: _Error | None
    findings: list[_Finding]

    def build(self) -> CheckResult:
        return CheckResult(
            id=self.id,
            seconds=self.seconds,
            findings=tuple(finding.build() for finding in self.findings),
            skip_reason=self.skip_reason,
            error=None if self.error is None else self.error.build(),
        )


class _Model(_Strict):
    ref: Annotated[str, AfterValidator(_present)]
    revision: str | None

    def build(self) -> ModelRef:
        return json_v1.model_of(self.ref)


class _Origin(_Strict):
    file: str
    line: int

    def build(self) -> Location:
        return Location(file=self.file, line=self.line)


class _Cell(_Strict):
    id: str
    baseline: _Model | None
    checkpoint: _Model | None
    method: str | None
    depth: Literal["static", "load", "full"]
    device: str | None
    attempts: PositiveInt
    origin: _Origin | None
    outcome: Literal["pass", "warn", "fail", "error", "skip"]
    seconds: NonNegativeFloat
    checks: list[_Check]
    measurements: dict[str, Json]

    def build(self) -> CellResult:
        baseline, checkpoint, origin = self.baseline, self.checkpoint, self.origin
        return CellResult(
            cell=Cell(
                id=self.id,
                baseline=None if baseline is None else baseline.build(),
                checkpoint=None if checkpoint is None else checkpoint.build(),
                settings=Settings(depth=Depth(self.depth)),
                origin=None if origin is None else origin.build(),
            ),
            checks=tuple(check.build() for check in self.checks),
            measurements=self.measurements,
            method=self.method,
            device=self.device,
            baseline_revision=None if baseline is None else baseline.revision,
            checkpoint_revision=None if checkpoint is None else checkpoint.revision,
            attempts=self.attempts,
            seconds=self.seconds,
        )


class _Tool(_Strict):
    version: str


class _Environment(_Strict):
    python: str
    packages: dict[str, str]
    device: str
    driver: str | None


class _Matrix(_Strict):
    path: str | None
    sha256: str | None


class _Totals(_Strict):
    cells: int
    passed: Annotated[int, Field(alias="pass")]
    warn: int
    fail: int
    error: int
    skip: int


class _Report(_Strict):
    schema_: Annotated[Literal["quant-verify/report/1"], Field(alias="schema")]
    tool: _Tool
    environment: _Environment
    matrix: _Matrix
    shard: Annotated[str, Field(pattern=r"^\d+/\d+$")] | None
    planned: list[str]
    fail_on: Literal["warn", "fail"]
    totals: _Totals
    exit_code: int
    cells: list[_Cell]

    def build(self) -> RunResult:
        environment = self.environment
        return RunResult(
            environment=Environment(
                python=environment.python,
                packages=environment.packages,
                device=environment.device,
                driver=environment.driver,
            ),
            planned=tuple(self.planned),
            cells=tuple(cell.build() for cell in self.cells),
            matrix_path=self.matrix.path,
            matrix_sha256=self.matrix.sha256,
            shard=self.shard,
            fail_on=Severity(self.fail_on),
            interrupted=next((code for code in _INTERRUPTS if code == self.exit_code), None),
        )


def read(text: str, source: str) -> RunResult:
    """See ``json_v1.read_report``."""
    data = _parsed(text, source)
    if not isinstance(data, dict) or data.get("schema") != json_v1.SCHEMA:
        found = data.get("schema") if isinstance(data, dict) else type(data).__name__
        raise UsageError(f"{source}: schema: expected {json_v1.SCHEMA!r}, found {_shown(found)}")
    try:
        run = _Report.model_validate(data).build()
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        key = escape.one_line(".".join(str(part) for part in first["loc"]))
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise UsageError(f"{source}: {key}: {first['msg']}, found {_shown(first['input'])}{more}") from error
    rebuilt = json_v1.envelope(run) | {"tool": data["tool"], "cells": [json_v1.cell_dict(cell) for cell in run.cells]}
    place = _difference(data, rebuilt)
    if place is not None:
        raise UsageError(f"{source}: {escape.one_line(place)}: contradicts the rest of the report")
    return run


def _parsed(text: str, source: str) -> Json:
    try:
        return json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{source}: not JSON: {error}") from error


def _without_duplicates(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    table = dict(pairs)
    if len(table) != len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"key {_shown(twice)} stands twice in one object")
    return table


def _no_constant(name: str) -> Json:
    raise ValueError(f"{name} is no JSON number")


def _shown(value: Json) -> str:
    text = ascii(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _difference(left: Json, right: Json, key: str = "") -> str | None:
    """The key of the first place where two JSON values differ."""
    if isinstance(left, dict) and isinstance(right, dict):
        pairs = [(name, left.get(name), right.get(name)) for name in {**left, **right}]
    elif isinstance(left, list) and isinstance(right, list):
        pairs = [(str(index), *pair) for index, pair in enumerate(zip_longest(left, right))]
    else:
        return None if left == right else key
    found = (_difference(one, other, f"{key}.{name}".removeprefix(".")) for name, one, other in pairs)
    return next((item for item in found if item is not None), None)
