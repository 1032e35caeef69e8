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
from checker.domain import Cell, CheckError, CheckResult, Json, Prompt
from checker.reference import Identity

LONGEST_LINE = 16 << 20  # bytes; the per-layer figures of 30,000 layers fit


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """Everything a worker needs to judge one cell; all files are there already, but for those of a repository."""

    kind: Literal["judge"] = "judge"
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
    reference: str | None = None  # the file
    reference_error: CheckError | None = None  # why there is none although the cell has a baseline
    known_good: str | None = None  # the file of recorded texts
    overlay: str | None = None  # folder of the cell's libraries, first on the worker's path
    stage: Literal["whole", "files", "model"] = "whole"  # what the first leaves in scratch, the second finds there


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceJob:
    """Everything a worker needs to make the reference of one baseline."""

    kind: Literal["reference"] = "reference"
    baseline: str  # folder
    identity: Identity
    prompts: tuple[Prompt, ...]
    target: str  # the file to write
    full: bool  # all log-probabilities, for the cache; or the small form that is recorded
    device: str = "auto"
    gpus: int = 1
    visible_gpus: str | None = None  # CUDA_VISIBLE_DEVICES
    trust_remote_code: bool = False


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
class Failed:
    """A reference could not be made."""

    kind: Literal["failed"] = "failed"
    error: CheckError


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


AnyEvent = Started | Finished | Failed | Known | Doing | Ended
Event = Annotated[AnyEvent, Field(discriminator="kind")]
EVENT: TypeAdapter[AnyEvent] = TypeAdapter(Event)
AnyJob = Job | ReferenceJob
JOB: TypeAdapter[AnyJob] = TypeAdapter(Annotated[AnyJob, Field(discriminator="kind")])


def parse_event(line: bytes) -> AnyEvent:
    """One event from a worker's line.

    Raises:
        ValueError: the line is no event; the message does not quote it, for it may be hostile.
    """
    try:
        return EVENT.validate_json(line)
    except ValidationError as error:
        raise ValueError(f"a worker said something that is no event ({error.error_count()} mistakes)") from None
