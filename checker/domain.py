"""The words of design §2 as plain frozen data: cells go in, findings and results come out.

Nothing here knows a file format, a library or a model. ``CheckResult.outcome`` is derived from its data, so that a
result can never contradict itself.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, Literal, TypeAlias

Json: TypeAlias = Any  # what json.loads returns; a recursive alias costs more in mypy than it finds


class Severity(StrEnum):
    """How much a finding weighs; there are two, because a third would need a legend."""

    WARN = "warn"
    FAIL = "fail"


class Outcome(StrEnum):
    """What became of a check or of a cell, worst first: the order in which a cell takes its outcome from its checks."""

    FAIL = "fail"
    ERROR = "error"
    WARN = "warn"
    PASS = "pass"
    SKIP = "skip"


class Depth(StrEnum):
    """How far to go: files only; load and inspect; run, save and reload."""

    STATIC = "static"
    LOAD = "load"
    FULL = "full"

    def includes(self, other: Depth) -> bool:
        """Whether a check of depth ``other`` belongs to a run of this depth."""
        order = list(Depth)
        return order.index(other) <= order.index(self)


class ErrorKind(StrEnum):
    """Why something could not be verified (report.json, design §8)."""

    NOT_RUN = "not-run"
    CRASH = "crash"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out-of-memory"
    NETWORK = "network"
    GATED = "gated"
    INTERNAL = "internal"


class ExitCode(IntEnum):
    """The process exit codes of design §5; no option turns one into another."""

    PASSED = 0
    FAILED = 1
    USAGE = 2
    UNVERIFIED = 3
    NOTHING_CHECKED = 4
    HANGUP = 129
    INTERRUPTED = 130
    TERMINATED = 143


@dataclass(frozen=True, kw_only=True, slots=True)
class Location:
    """A line of a file, 1-based, as an annotation needs it."""

    file: str
    line: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """The two bars of one metric; which side of a bar is bad is known by the check that reads it."""

    warn: float | None = None
    fail: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """A text to continue, and the beginnings that count as known good, by device class (``"*"``: any)."""

    text: str
    chat: bool = False
    max_new_tokens: int = 10
    accept: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiver:
    """A known finding that does not count, for a reason and until a day (inclusive). Globs; ``*`` matches ``/``."""

    cells: str
    check: str
    where: str = "*"
    reason: str
    until: dt.date
    location: Location | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRef:
    """Where a model is: a folder, or a Hub repository with an optional revision."""

    kind: Literal["folder", "hub"]
    name: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}" if self.revision else self.name

    @property
    def pinned(self) -> bool:
        """Whether the revision is a full commit, which nothing can change under a verdict."""
        return re.fullmatch(r"[0-9a-f]{40}", self.revision or "") is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Everything about a cell that ``defaults``, a model or an override may set (design §6)."""

    depth: Depth = Depth.FULL
    device: str = "auto"
    timeout: float | None = None  # seconds; None: no limit
    gpus: int = 1
    runs_on: tuple[str, ...] = ()
    select: tuple[str, ...] = ()  # globs of check ids; empty: all of the depth
    ignore: tuple[str, ...] = ()
    require: tuple[str, ...] = ()  # globs of check ids that may not be skipped
    limits: Mapping[str, Limit] = field(default_factory=dict)  # by "check.metric", e.g. "weights.error.R"
    prompts: tuple[Prompt, ...] = ()
    trust_remote_code: bool = False
    weights: Literal["auto", "sampled", "full", "off"] = "auto"
    architecture: bool = False  # compare with the module tree built without weights; command line only


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """What a verdict is about: a quantization to make of a baseline, or a checkpoint made elsewhere.

    Exactly one of ``quantization`` (a ``quantization_config`` as in config.json) and ``checkpoint`` is set.
    ``libraries`` are packages, by name, at exact versions, that the worker finds before those installed.
    """

    id: str
    baseline: ModelRef | None = None
    checkpoint: ModelRef | None = None
    quantization: Mapping[str, Json] | None = None
    libraries: Mapping[str, str] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)
    origin: Location | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Waived:
    """The waiver that covers a finding, as far as a report shows it."""

    reason: str
    until: dt.date


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing wrong with a model. ``message`` is one non-empty line; ``where`` a tensor or module name, or ""."""

    message: str
    severity: Severity = Severity.FAIL
    where: str = ""
    observed: Json = None
    limit: Json = None
    unit: str = ""
    hint: str = ""
    waived: Waived | None = None

    def __post_init__(self) -> None:
        if not self.message.strip() or "\n" in self.message:
            raise ValueError(f"a finding's message must be one non-empty line, not {self.message!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """A figure worth reporting whether or not anything is wrong; goes to ``measurements[key]`` of the cell."""

    key: str
    value: Json


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckError:
    """Why a check has no verdict. ``detail`` is a traceback or similar, shown only with ``--verbose``."""

    kind: ErrorKind
    message: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckResult:
    """What one check said about one cell."""

    id: str
    seconds: float = 0.0
    findings: tuple[Finding, ...] = ()
    skip_reason: str | None = None
    error: CheckError | None = None

    @property
    def outcome(self) -> Outcome:
        """Derived, in the order error, skip, fail, warn, pass; a waived finding does not count."""
        counted = {finding.severity for finding in self.findings if finding.waived is None}
        if self.error is not None:
            return Outcome.ERROR
        if self.skip_reason is not None:
            return Outcome.SKIP
        if Severity.FAIL in counted:
            return Outcome.FAIL
        return Outcome.WARN if Severity.WARN in counted else Outcome.PASS


@dataclass(frozen=True, kw_only=True, slots=True)
class CellResult:
    """Everything known about one cell, complete or not."""

    cell: Cell
    checks: tuple[CheckResult, ...] = ()
    measurements: Mapping[str, Json] = field(default_factory=dict)
    method: str | None = None
    device: str | None = None
    baseline_revision: str | None = None
    checkpoint_revision: str | None = None
    attempts: int = 1
    seconds: float = 0.0

    @property
    def outcome(self) -> Outcome:
        """The worst of its checks; a cell of which nothing was checked is a skip."""
        outcomes = {check.outcome for check in self.checks}
        return next((outcome for outcome in Outcome if outcome in outcomes), Outcome.SKIP)


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """Versions and device, for the report's reader who asks what changed since yesterday."""

    python: str
    packages: Mapping[str, str] = field(default_factory=dict)
    device: str = "cpu"
    driver: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResult:
    """One run over a matrix or a list of checkpoints, complete or not: what every reporter renders.

    ``cells`` holds every cell of this shard, also those not run yet (their checks are ``error``/``not-run``);
    ``planned`` the ids of the whole run, so that ``merge`` can tell what is absent.
    """

    environment: Environment
    planned: tuple[str, ...]
    cells: tuple[CellResult, ...]
    matrix_path: str | None = None
    matrix_sha256: str | None = None
    shard: str | None = None  # "3/7"
    fail_on: Severity = Severity.FAIL
    interrupted: ExitCode | None = None

    @property
    def exit_code(self) -> ExitCode:
        """Design §5: an interrupt, then 1 over 3; nothing checked is 4, except in an empty shard."""
        outcomes = [cell.outcome for cell in self.cells]
        failing = {Outcome.FAIL, Outcome.WARN} if self.fail_on is Severity.WARN else {Outcome.FAIL}
        checks = [check.outcome for cell in self.cells for check in cell.checks]
        if self.interrupted is not None:
            return self.interrupted
        if failing & {*checks}:
            return ExitCode.FAILED
        if Outcome.ERROR in checks:
            return ExitCode.UNVERIFIED
        if not outcomes and self.shard is not None:
            return ExitCode.PASSED
        return ExitCode.NOTHING_CHECKED if {*outcomes} <= {Outcome.SKIP} else ExitCode.PASSED
