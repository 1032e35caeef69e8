"""The child process: judges one cell and streams results, one JSON line each, to a pipe of its own.

``python -m checker.worker FD`` reads one job from standard input. Standard output and error belong to the libraries (and
to whatever a checkpoint makes them print); the parent keeps them in a file and never parses them.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import BinaryIO

from checker.domain import CheckError, CheckResult, ErrorKind, Finding, Json, Measurement, Outcome, Severity
from checker.errors import NotApplicable, Unavailable
from checker.facts import ORDER, ArtifactFacts, RoundtripFacts
from checker.protocol import EVENT, JOB, Doing, Ended, Finished, Job, Known, Started
from checker.registry import Check, Limits, all_checks, resolve_limits
from checker.subject import Subject

MOST_FINDINGS = 100  # of one check; a model with every layer broken is told in fewer lines

Send = Callable[[Started | Finished | Known | Doing | Ended], None]


def main() -> None:
    """Judge the job on standard input and report to the file descriptor given as the only argument."""
    pipe = os.fdopen(int(sys.argv[1]), "wb", buffering=0)
    job = JOB.validate_json(sys.stdin.buffer.readline())
    if job.visible_gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = job.visible_gpus
    judge(job, lambda event: _send(pipe, event))


def _send(pipe: BinaryIO, event: Started | Finished | Known | Doing | Ended) -> None:
    pipe.write(EVENT.dump_json(event) + b"\n")


def judge(job: Job, send: Send) -> None:
    """Run the job's checks in the order in which their facts are gathered, and send what each one says."""
    wanted = set(job.checks)
    table = all_checks()
    depth = job.cell.settings.depth
    checks = sorted((item for item in table if item.id in wanted), key=lambda item: _rank(item, job))
    roundtrip = any(need.kind is RoundtripFacts for item in checks for need in item.needs)
    with Subject(job=job, say=lambda what: send(Doing(what=what)), needs_roundtrip=roundtrip) as subject:
        for item in checks:
            if _rank(item, job)[0] > 1 and not subject.blocked:
                subject.blocked = _reason_not_to_load(table, subject)
            send(Started(check=item.id))
            finished = run_check(item, subject)
            send(finished)
            if item.id == checks[0].id:
                send(_known(subject))
        if any(depth.includes(item.depth) and _rank(item, job)[0] > 1 for item in checks):
            send(_known(subject, loaded=True))
    send(Ended())


def _rank(item: Check, job: Job) -> tuple[int, str]:
    """Position of the dearest facts that the check will get at this depth; checks of equal rank go by id."""
    kinds = [need.kind for need in item.needs if need.kind in ORDER and (not need.optional or _is_deep(job))]
    return max((ORDER.index(kind) for kind in kinds), default=0), item.id


def _is_deep(job: Job) -> bool:
    return job.cell.settings.depth.value != "static"


def run_check(item: Check, subject: Subject) -> Finished:
    """One check's result. Whatever a probe or a check raises becomes data; the other checks go on."""
    begin = time.perf_counter()
    findings: list[Finding] = []
    measurements: dict[str, Json] = {}
    skip_reason, error = None, None
    try:
        for said in _verdict(item, subject):
            if isinstance(said, Measurement):
                measurements[said.key] = said.value
            else:
                findings.append(said)
    except NotApplicable as reason:
        skip_reason = str(reason) if not findings else None
    except Unavailable as reason:
        error = CheckError(kind=reason.kind, message=str(reason), detail=subject.detail)
    except MemoryError:
        error = CheckError(kind=ErrorKind.OUT_OF_MEMORY, message="the worker ran out of memory; give it more")
    except Exception as exception:  # noqa: BLE001 - the other boundary: one check must not end the cell
        message = f"{type(exception).__name__}: {exception}".splitlines()[0][:400]
        error = CheckError(kind=ErrorKind.INTERNAL, message=message, detail=traceback.format_exc())
    result = CheckResult(
        id=item.id,
        seconds=time.perf_counter() - begin,
        findings=tuple(_capped(findings)),
        skip_reason=skip_reason,
        error=error,
    )
    return Finished(result=result, measurements=measurements)


def _verdict(item: Check, subject: Subject) -> Iterator[Finding | Measurement]:
    arguments: list[object] = []
    for need in item.needs:
        if need.kind is Limits:
            method = subject.method
            arguments.append(resolve_limits(item, method.limits if method else {}, subject.job.cell.settings.limits))
        elif need.optional and not _is_deep(subject.job):
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
