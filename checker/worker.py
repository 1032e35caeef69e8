"""The child process: judges a cell or a half of it, or makes one reference, and streams results to a pipe of its own.

``python -m checker.worker FD PARENT [preload]`` reads one job from standard input and writes one JSON line for each
event. Standard output and error belong to the libraries (and to whatever a checkpoint makes them print); the parent
keeps them in a file and never parses them.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import gc
import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import BinaryIO

from checker.domain import CheckError, CheckResult, Depth, ErrorKind, Finding, Json, Measurement, Outcome, Severity
from checker.errors import NotApplicable, Unavailable
from checker.facts import ArtifactFacts, RoundtripFacts
from checker.handover import hand_over
from checker.protocol import EVENT, JOB, AnyEvent, Doing, Ended, Failed, Finished, Job, Known, ReferenceJob, Started
from checker.registry import Check, Limits, all_checks, all_methods
from checker.stages import OF_FILES, rank
from checker.subject import Subject

PR_SET_PDEATHSIG = 1  # linux/prctl.h
MOST_FINDINGS = 100  # of one check; a model with every layer broken is told in fewer lines

Send = Callable[[AnyEvent], None]


def main() -> None:
    """Judge the job on standard input and report to the file descriptor given as the first argument."""
    gc.set_threshold(50_000, 20, 50)  # hundreds of thousands of small objects are made and kept
    descriptor, parent, *more = sys.argv[1:]
    _die_with(int(parent))
    pipe = os.fdopen(int(descriptor), "wb", buffering=0)
    if more:
        _preload()
    _make_ready()
    line = sys.stdin.buffer.readline()
    if not line:  # started ahead of a job that never came
        return
    job = JOB.validate_json(line)
    if job.visible_gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = job.visible_gpus
    send = functools.partial(_send, pipe)
    if isinstance(job, ReferenceJob):
        make_reference(job, send)
    else:
        judge(job, send)


def _die_with(parent: int) -> None:
    """A parent that is killed can end nobody; the kernel then does it (on Linux), be it in the middle of a kernel."""
    with contextlib.suppress(OSError, AttributeError):  # no Linux
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we could ask
        sys.exit("the parent is gone")


def _make_ready() -> None:
    """Import what every cell needs while the parent still reads its arguments."""
    all_checks()
    all_methods()
    importlib.import_module("checker.probes.weights")


def _preload() -> None:
    """Import what takes seconds while the worker before this one is at work, or the parent reads its matrix.

    Not bitsandbytes: its import counts the GPUs, and which ones this worker may see comes with the job.
    """
    gc.disable()  # it would look through a million new objects again and again, for a fifth of the time
    with contextlib.suppress(ImportError, OSError, RuntimeError):  # the check that needs it will say so
        importlib.import_module("transformers.modeling_utils")
    gc.freeze()
    gc.enable()


def _send(pipe: BinaryIO, event: AnyEvent) -> None:
    try:
        line = EVENT.dump_json(event)
    except ValueError as error:  # a text or a number that JSON cannot hold: the fault of one check, not of the cell
        if not isinstance(event, Finished):
            return
        flaw = CheckError(kind=ErrorKind.INTERNAL, message=f"its result cannot be sent: {_first_line(error)}")
        line = EVENT.dump_json(Finished(result=CheckResult(id=event.result.id, error=flaw)))
    pipe.write(line + b"\n")


def make_reference(job: ReferenceJob, send: Send) -> None:
    """Make the reference of a baseline; why it could not be made is an event like any other."""

    def work() -> None:
        from checker.probes import reference

        reference.make_reference(job, lambda what: send(Doing(what=what)))

    reason, error = _guarded(work, lambda: "")
    if reason is not None:
        error = CheckError(kind=ErrorKind.NOT_RUN, message=reason)
    if error is not None:
        send(Failed(error=error))
    send(Ended())


def judge(job: Job, send: Send) -> None:
    """Run the job's checks in the order in which their facts are gathered, and send what each one says."""
    wanted = set(job.checks)
    table = all_checks()
    depth = job.cell.settings.depth
    checks = sorted((item for item in table if item.id in wanted), key=lambda item: rank(item, depth))
    roundtrip = any(need.kind is RoundtripFacts for item in checks for need in item.needs)
    libraries = _libraries(job)
    with Subject(job=job, say=lambda what: send(Doing(what=what)), needs_roundtrip=roundtrip) as subject:
        for item in checks:
            if rank(item, depth)[0] > OF_FILES and not subject.blocked:
                subject.blocked = _reason_not_to_load(table, subject)
            send(Started(check=item.id))
            finished = run_check(item, subject)
            if traffic := subject.traffic:  # so far; the last check's is the whole
                finished = replace(finished, measurements={**finished.measurements, "remote": traffic})
            if libraries and item is checks[0]:
                finished = replace(finished, measurements={**finished.measurements, "libraries": libraries})
            send(finished)
            if item.id == checks[0].id:
                send(_known(subject))
        if any(depth.includes(item.depth) and rank(item, depth)[0] > OF_FILES for item in checks):
            send(_known(subject, loaded=True))
        if job.stage == "files":
            subject.blocked = _reason_not_to_load(table, subject)
            _guarded(lambda: hand_over(subject), lambda: "")  # what is not handed over is gathered again
    send(Ended())


def _libraries(job: Job) -> dict[str, str]:
    """Versions of what is laid over the installed packages, as they are imported here."""
    if job.overlay is None:
        return {}
    from checker.overlay import seen

    return seen(job.overlay, job.cell.libraries)


def run_check(item: Check, subject: Subject) -> Finished:
    """One check's result. Whatever a probe or a check raises becomes data; the other checks go on."""
    begin = time.perf_counter()
    findings: list[Finding] = []
    measurements: dict[str, Json] = {}

    def work() -> None:
        for said in _verdict(item, subject):
            if isinstance(said, Measurement):
                measurements[said.key] = said.value
            else:
                findings.append(said)

    skip_reason, error = _guarded(work, lambda: subject.detail)
    result = CheckResult(
        id=item.id,
        seconds=time.perf_counter() - begin,
        findings=tuple(_capped(findings)),
        skip_reason=skip_reason if not findings else None,
        error=error,
    )
    return Finished(result=result, measurements=measurements)


def _guarded(work: Callable[[], None], detail: Callable[[], str]) -> tuple[str | None, CheckError | None]:
    """Do something that may fail in any way: (why it does not apply, why it could not be done), both None when done."""
    try:
        work()
    except NotApplicable as reason:
        return str(reason), None
    except Unavailable as reason:
        return None, CheckError(kind=reason.kind, message=str(reason), detail=detail())
    except Exception as exception:  # noqa: BLE001 - the other boundary: one check must not end the cell
        kind, message = _fault(exception)
        return None, CheckError(kind=kind, message=message, detail=traceback.format_exc())
    return None, None


def _fault(error: Exception) -> tuple[ErrorKind, str]:
    """What an exception that nobody foresaw says about the machine, else that it is a mistake of ours."""
    says = _first_line(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "out of memory" in says.lower():
        message = f"out of memory ({says}); use a larger device, or depth static for this cell"
        return ErrorKind.OUT_OF_MEMORY, message
    if isinstance(error, ImportError):
        message = f"a library is missing ({says}); pip install 'quant-verify[torch]' brings what depth load needs"
        return ErrorKind.NOT_RUN, message
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ErrorKind.NOT_RUN, f"the disk is full ({says}); free some space, or set TMPDIR to a larger disk"
    if isinstance(error, FileNotFoundError):
        return ErrorKind.NOT_RUN, f"a file vanished while it was judged ({says})"
    return ErrorKind.INTERNAL, f"{says}; --verbose shows where"


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:400]


def _verdict(item: Check, subject: Subject) -> Iterator[Finding | Measurement]:
    arguments: list[object] = []
    for need in item.needs:
        if need.kind is Limits:
            arguments.append(subject.limits(item))
        elif need.optional and subject.job.cell.settings.depth is Depth.STATIC:
            arguments.append(None)
        else:
            arguments.append(subject.get(need.kind))
    yield from item.function(*arguments)


def _capped(findings: list[Finding]) -> Iterator[Finding]:
    """The worst findings, failures first, and a last one that counts the rest."""
    findings = sorted(findings, key=lambda finding: finding.severity is not Severity.FAIL)
    yield from findings[:MOST_FINDINGS]
    rest = findings[MOST_FINDINGS:]
    if rest:
        yield replace(rest[0], message=f"and {len(rest)} more like these", where="", observed=None, limit=None, hint="")


def _reason_not_to_load(table: tuple[Check, ...], subject: Subject) -> str:
    """Why the model must not be loaded, if a guarding check fails; guards are judged even when not selected."""
    for item in table:
        if item.guards_load and run_check(item, subject).result.outcome is Outcome.FAIL:
            return f"not loaded: {item.id} fails, and libraries would take such a file at its word"
    return ""


def _known(subject: Subject, *, loaded: bool = False) -> Known:
    try:
        method = subject.method
        artifact = subject.get(ArtifactFacts)
    except (NotApplicable, Unavailable):
        return Known()
    device = None
    if loaded:
        try:
            device = subject.device
        except Unavailable:
            device = None
    return Known(method=method.id if method else artifact.declared_method, device=device)


if __name__ == "__main__":
    main()
