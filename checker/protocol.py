"""What passes between parent and worker: one job in, JSON lines out, validated on arrival; never pickle.

A worker may be hijacked by what it loads, so nothing it says is believed before it fits these types, and no line may be
longer than ``LONGEST_LINE``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from checker.checkpoint.network import Network, Repository
from checker.domain import Cell, CheckResult, Json

LONGEST_LINE = 16 << 20  # bytes; the per-layer figures of 30,000 layers fit


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """Everything a worker needs to judge one cell; all files are there already, but for those of a repository."""

    cell: Cell
    checks: tuple[str, ...]
    baseline: str | None  # folder
    checkpoint: str | None  # folder; None: quantize the baseline into scratch
    scratch: str  # an empty folder of this cell
    checkpoint_file: str | None = None  # the one GGUF file of its folder that is meant
    hub_files: tuple[str, ...] = ()  # names in the Hub repository, pickles among them
    visible_gpus: str | None = None  # CUDA_VISIBLE_DEVICES
    trust_remote_code: bool = False  # matrix and command line both allow it
    baseline_repository: Repository | None = None  # its folder lacks the large files: ranges of them are read
    checkpoint_repository: Repository | None = None
    network: Network | None = None  # leave, and the token, to read those; None: the worker is offline


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """A check begins; whatever kills the worker from here on is charged to it."""

    kind: Literal["started"] = "started"
    check: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """A check has a result."""

    kind: Literal["finished"] = "finished"
    result: CheckResult
    measurements: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """What the worker learned about the cell as a whole."""

    kind: Literal["known"] = "known"
    method: str | None = None
    device: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Doing:
    """What takes so long, for the live progress."""

    kind: Literal["doing"] = "doing"
    what: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """Every check was run; without this line the worker died."""

    kind: Literal["ended"] = "ended"


Event = Annotated[Started | Finished | Known | Doing | Ended, Field(discriminator="kind")]
EVENT: TypeAdapter[Started | Finished | Known | Doing | Ended] = TypeAdapter(Event)
JOB: TypeAdapter[Job] = TypeAdapter(Job)


def parse_event(line: bytes) -> Started | Finished | Known | Doing | Ended:
    """One event from a worker's line.

    Raises:
        ValueError: the line is no event; the message does not quote it, for it may be hostile.
    """
    try:
        return EVENT.validate_json(line)
    except ValidationError as error:
        raise ValueError(f"a worker said something that is no event ({error.error_count()} mistakes)") from None
