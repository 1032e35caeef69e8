"""Schedules cells over workers and reports what happens as it happens; never judges and never imports torch."""

from __future__ import annotations

import queue
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from checker.domain import Cell, CheckError, CheckResult, ErrorKind, Json
from checker.errors import Unavailable, UsageError
from checker.process import WorkerDied, WorkerProcess
from checker.protocol import Doing, Failed, Finished, Job, Known, ReferenceJob, Started
from checker.provision import Provision, RunOptions, needs_torch
from checker.references import References, identity_of, reference_job
from checker.stages import Stage, stages, takes_model
from checker.workers import Workers

RETRIED = (ErrorKind.CRASH, ErrorKind.OUT_OF_MEMORY, ErrorKind.NETWORK)  # infrastructure, tried once more


@dataclass(frozen=True, kw_only=True, slots=True)
class Update:
    """Something happened to a cell: exactly one of the optional fields is set, or none when the cell begins."""

    cell_id: str
    started: str | None = None  # a check begins
    finished: CheckResult | None = None
    measurements: dict[str, Json] | None = None
    doing: str | None = None
    known: dict[str, str | None] | None = None
    died: CheckError | None = None  # the worker is gone; ``started`` names the check it was in
    retrying: bool = False
    ended: float | None = None  # seconds the cell took
    attempts: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class _Trouble:
    """Why an attempt at a cell did not come to a good end."""

    error: CheckError
    check: str | None = None  # in which it happened; None: before the first
    fatal: bool = True  # the checks after it were never reached


class Runner:
    """Runs cells, several at a time when there are several GPUs. Iterate over it; ``close`` ends every worker.

    ``references`` is the folder of recorded references, if the matrix names one.
    """

    def __init__(
        self, planned: Sequence[tuple[Cell, Sequence[str]]], options: RunOptions, references: Path | None = None
    ) -> None:
        self._planned, self._options = planned, options
        self._updates: queue.SimpleQueue[Update | Future[None] | None] = queue.SimpleQueue()
        self._workers = Workers(options.gpus)
        self._provision = Provision(
            options=options,
            references=References(make=self._make_reference, folder=references),
            say=lambda cell_id, what: self._updates.put(Update(cell_id=cell_id, doing=what)),
            note=lambda cell_id, known: self._updates.put(Update(cell_id=cell_id, known=known)),
            ended=lambda: self._workers.closed,
        )
        self._futures: list[Future[None]] = []
        self._stopped = False
        if planned and not any(takes_model(cell, checks) for cell, checks in planned):
            self._workers.dismiss_spare()

    def __iter__(self) -> Iterator[Update]:
        waiting = sum(_takes_spare(cell, checks) for cell, checks in self._planned)
        pool = ThreadPoolExecutor(max_workers=self._options.jobs)  # no "with": it would wait for a download to end
        try:
            for cell, checks in self._planned:
                waiting -= _takes_spare(cell, checks)
                future = pool.submit(self._run_cell, cell, tuple(checks), more=waiting > 0)
                future.add_done_callback(self._updates.put)
                self._futures.append(future)
            left = len(self._planned)
            while left and not self._stopped:
                update = self._updates.get()
                if isinstance(update, Future):
                    update.result()  # a mistake of ours in a thread must not pass for a finished cell
                    left -= 1
                elif update is not None:
                    yield update
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            self.close()

    def stop(self) -> None:
        """End the iteration after the present update; may be called by a signal handler, at any moment."""
        self._stopped = True
        self._updates.put(None)

    def close(self) -> None:
        """End every worker, and do not wait for the threads."""
        self._workers.close()

    def wait(self, seconds: float) -> None:
        """Give the threads time to remove what lies in scratch folders."""
        wait([future for future in self._futures if not future.cancelled()], timeout=seconds)

    def record(self, cell: Cell, target: Path) -> None:
        """Make the reference of a cell's baseline in the small form, without judging anything.

        Raises:
            Unavailable: its files cannot be had, or it does not run.
        """
        baseline = self._provision.baseline_of(cell)
        job = reference_job(cell, baseline, identity_of(cell, baseline), target)
        self._make_reference(replace(job, full=False), cell)

    def _run_cell(self, cell: Cell, checks: tuple[str, ...], *, more: bool) -> None:
        begin = time.monotonic()
        self._updates.put(Update(cell_id=cell.id))
        attempts = 1
        trouble = self._attempt(cell, checks, more=more)
        if trouble is not None and self._worth_another(trouble.error.kind):
            attempts = 2
            self._updates.put(Update(cell_id=cell.id, retrying=True, died=trouble.error))
            trouble = self._attempt(cell, checks, more=more)
        if trouble is not None and trouble.fatal:
            self._updates.put(Update(cell_id=cell.id, started=trouble.check, died=trouble.error))
        self._updates.put(Update(cell_id=cell.id, ended=time.monotonic() - begin, attempts=attempts))

    def _worth_another(self, kind: ErrorKind) -> bool:
        hopeless = kind is ErrorKind.NETWORK and self._options.offline
        return kind in RETRIED and not hopeless and not self._workers.closed

    def _attempt(self, cell: Cell, checks: tuple[str, ...], *, more: bool) -> _Trouble | None:
        """Fetch what the cell needs and judge it in fresh workers; returns the infrastructure's fault, if any."""
        scratch = tempfile.mkdtemp(prefix="quant-verify-")
        try:
            job = self._provision.job_for(cell, checks, scratch)
            with self._workers.gpus_for(cell.settings, needed=needs_torch(cell)) as gpus:
                visible = ",".join(gpus) if gpus and ":" not in cell.settings.device else None
                return self._judge(replace(job, visible_gpus=visible), more=more)
        except (Unavailable, UsageError) as reason:  # the latter: a folder that was there when the run began
            kind = reason.kind if isinstance(reason, Unavailable) else ErrorKind.NOT_RUN
            return _Trouble(error=CheckError(kind=kind, message=str(reason)))
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _judge(self, job: Job, *, more: bool) -> _Trouble | None:
        begin, trouble = time.monotonic(), None
        *before, last = stages(job)
        with self._worker(last) as worker:  # that of the model comes first: it imports torch while files are judged
            for stage in before:
                with self._worker(stage) as other:
                    trouble = self._listen(other, stage.job, 0.0)
            if trouble is not None and trouble.fatal:
                return trouble
            if more:
                self._workers.prepare_next(both=bool(before))  # cells of a matrix are mostly alike
            if worker.alive:
                return self._listen(worker, last.job, time.monotonic() - begin) or trouble
        with self._worker(last) as worker:  # the other was killed while it waited, which is no fault of this cell
            return self._listen(worker, last.job, time.monotonic() - begin) or trouble

    def _worker(self, stage: Stage) -> AbstractContextManager[WorkerProcess]:
        job = stage.job
        return self._workers.one(preload=stage.preload, online=job.network is not None, overlay=job.overlay)

    def _listen(self, worker: WorkerProcess, job: Job, spent: float) -> _Trouble | None:
        """Pass on what a worker says of a cell, until it has said all or is gone."""
        current: str | None = None
        trouble: _Trouble | None = None
        cell_id, left = job.cell.id, set(job.checks)
        try:
            for event in worker.work(job, job.cell.settings.timeout, spent):
                if isinstance(event, Started):
                    current = event.check
                    self._updates.put(Update(cell_id=cell_id, started=current))
                elif isinstance(event, Finished):
                    if event.result.id not in job.checks:
                        raise WorkerDied(ErrorKind.INTERNAL, "a worker reported a check that it was not asked for")
                    left.discard(event.result.id)
                    error = event.result.error
                    if error is not None and error.kind in RETRIED:
                        trouble = trouble or _Trouble(error=error, check=event.result.id, fatal=False)
                    measurements = dict(event.measurements)
                    self._updates.put(Update(cell_id=cell_id, finished=event.result, measurements=measurements))
                elif isinstance(event, Known):
                    known = {"method": event.method, "device": event.device}
                    self._updates.put(Update(cell_id=cell_id, known=known))
                elif isinstance(event, Doing):
                    self._updates.put(Update(cell_id=cell_id, doing=event.what))
        except WorkerDied as death:
            if job.stage == "files" and not left and death.kind is ErrorKind.CRASH:
                return trouble  # it had judged everything; what it meant to leave is gathered again
            error = CheckError(kind=death.kind, message=str(death), detail=death.detail)
            trouble = _Trouble(error=error, check=current)
        return trouble

    def _make_reference(self, job: ReferenceJob, cell: Cell) -> None:
        """Have a worker of its own make a reference, and be gone before the quantized model is loaded.

        Raises:
            Unavailable: it could not; after a second try where the infrastructure was to blame.
        """
        for left in (1, 0):
            try:
                self._try_reference(job, cell)
            except Unavailable as reason:
                if not left or not self._worth_another(reason.kind):
                    raise
            else:
                return

    def _try_reference(self, job: ReferenceJob, cell: Cell) -> None:
        trust = self._options.trust_remote_code and cell.settings.trust_remote_code
        with (
            self._workers.gpus_for(cell.settings, needed=True) as gpus,
            self._workers.one(preload=True) as worker,
        ):
            self._workers.prepare_next()  # for the cell itself
            visible = ",".join(gpus) if gpus and ":" not in cell.settings.device else None
            job = replace(job, visible_gpus=visible, trust_remote_code=trust)
            try:
                for event in worker.work(job, cell.settings.timeout):
                    if isinstance(event, Failed):
                        raise Unavailable(event.error.message, event.error.kind)
                    if isinstance(event, Doing):
                        self._updates.put(Update(cell_id=cell.id, doing=event.what))
            except WorkerDied as death:
                raise Unavailable(str(death), death.kind) from None


def _takes_spare(cell: Cell, checks: Sequence[str]) -> bool:
    """Whether a worker that was started ahead fits: with torch, and with the installed libraries."""
    return takes_model(cell, checks) and not cell.libraries
