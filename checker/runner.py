"""Schedules cells over workers and reports what happens as it happens; never judges and never imports torch."""

from __future__ import annotations

import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from checker.checkpoint.resolve import Resolved, resolve
from checker.domain import Cell, CheckError, CheckResult, Depth, ErrorKind, Json, ModelRef
from checker.errors import Unavailable
from checker.process import WorkerDied, WorkerProcess
from checker.protocol import Doing, Finished, Job, Known, Started

RETRIED = (ErrorKind.CRASH, ErrorKind.OUT_OF_MEMORY, ErrorKind.NETWORK)  # infrastructure, tried once more


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """What holds for the whole run."""

    jobs: int = 1
    gpus: tuple[str, ...] = ()  # names for CUDA_VISIBLE_DEVICES; empty: leave it as it is
    offline: bool = False
    trust_remote_code: bool = False


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


class Runner:
    """Runs cells, several at a time when there are several GPUs. Iterate over it; ``close`` ends every worker."""

    def __init__(self, planned: Sequence[tuple[Cell, Sequence[str]]], options: RunOptions) -> None:
        self._planned, self._options = planned, options
        self._updates: queue.SimpleQueue[Update | Future[None]] = queue.SimpleQueue()
        self._workers: set[WorkerProcess] = set()
        self._spare: list[WorkerProcess] = []
        self._lock = threading.Condition()
        self._free_gpus = list(options.gpus)
        self._closed = False

    def __iter__(self) -> Iterator[Update]:
        waiting = sum(depth_of(cell) for cell, _ in self._planned)
        with ThreadPoolExecutor(max_workers=self._options.jobs) as pool:
            try:
                for cell, checks in self._planned:
                    waiting -= depth_of(cell)
                    future = pool.submit(self._run_cell, cell, tuple(checks), more=waiting > 0)
                    future.add_done_callback(self._updates.put)
                left = len(self._planned)
                while left:
                    update = self._updates.get()
                    if isinstance(update, Future):
                        update.result()  # a mistake of ours in a thread must not pass for a finished cell
                        left -= 1
                    else:
                        yield update
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
                self.close()

    def close(self) -> None:
        """End every worker, also those that ignore a polite request."""
        with self._lock:
            self._closed = True
            workers = [*self._workers, *self._spare]
            self._lock.notify_all()
        for worker in workers:
            worker.close()

    def _run_cell(self, cell: Cell, checks: tuple[str, ...], *, more: bool) -> None:
        begin = time.monotonic()
        self._updates.put(Update(cell_id=cell.id))
        attempts = 1
        try:
            error = self._attempt(cell, checks, more=more)
            if error is not None and error.kind in RETRIED and not self._closed:
                attempts = 2
                self._updates.put(Update(cell_id=cell.id, retrying=True, died=error))
                error = self._attempt(cell, checks, more=more)
        finally:
            self._updates.put(Update(cell_id=cell.id, ended=time.monotonic() - begin, attempts=attempts))

    def _attempt(self, cell: Cell, checks: tuple[str, ...], *, more: bool) -> CheckError | None:
        """Fetch what the cell needs and judge it in a fresh worker; returns the infrastructure's error, if any."""
        try:
            baseline, checkpoint = self._fetch(cell, cell.baseline), self._fetch(cell, cell.checkpoint)
        except Unavailable as reason:
            error = CheckError(kind=reason.kind, message=str(reason))
            self._updates.put(Update(cell_id=cell.id, died=error))
            return error
        scratch = tempfile.mkdtemp(prefix="quant-verify-")
        gpus = self._take_gpus(cell)
        job = Job(
            cell=cell,
            checks=checks,
            baseline=str(baseline.folder) if baseline else None,
            checkpoint=str(checkpoint.folder) if checkpoint else None,
            scratch=scratch,
            hub_files=tuple(checkpoint.files) if checkpoint else (),
            visible_gpus=",".join(gpus) if gpus else None,
            trust_remote_code=self._options.trust_remote_code and cell.settings.trust_remote_code,
        )
        try:
            return self._judge(job, more=more)
        finally:
            self._give_gpus(gpus)
            shutil.rmtree(scratch, ignore_errors=True)

    def _fetch(self, cell: Cell, ref: ModelRef | None) -> Resolved | None:
        if ref is None:
            return None
        if ref.kind == "hub":
            self._updates.put(Update(cell_id=cell.id, doing=f"fetching {ref}"))
        resolved = resolve(ref, offline=self._options.offline)
        which = "baseline_revision" if ref is cell.baseline else "checkpoint_revision"
        self._updates.put(Update(cell_id=cell.id, known={which: resolved.revision}))
        return resolved

    def _judge(self, job: Job, *, more: bool) -> CheckError | None:
        worker = self._worker(preload=depth_of(job.cell))
        if more:
            self._prepare_next()
        current: str | None = None
        last: CheckError | None = None
        cell_id = job.cell.id
        try:
            for event in worker.judge(job, job.cell.settings.timeout):
                if isinstance(event, Started):
                    current = event.check
                    self._updates.put(Update(cell_id=cell_id, started=current))
                elif isinstance(event, Finished):
                    last = event.result.error or last
                    measurements = dict(event.measurements)
                    self._updates.put(Update(cell_id=cell_id, finished=event.result, measurements=measurements))
                elif isinstance(event, Known):
                    known = {"method": event.method, "device": event.device}
                    self._updates.put(Update(cell_id=cell_id, known=known))
                elif isinstance(event, Doing):
                    self._updates.put(Update(cell_id=cell_id, doing=event.what))
        except WorkerDied as death:
            last = CheckError(kind=death.kind, message=str(death), detail=death.detail)
            self._updates.put(Update(cell_id=cell_id, started=current, died=last))
        finally:
            with self._lock:
                self._workers.discard(worker)
            worker.close()
        return last

    def _worker(self, *, preload: bool) -> WorkerProcess:
        with self._lock:
            worker = self._spare.pop() if self._spare and preload else WorkerProcess(preload=preload)
            self._workers.add(worker)
            return worker

    def _prepare_next(self) -> None:
        """Start the next worker now: it imports torch while this one works."""
        with self._lock:
            if not self._spare and not self._closed:
                self._spare.append(WorkerProcess(preload=True))

    def _take_gpus(self, cell: Cell) -> list[str]:
        """Names of as many GPUs as the cell asks for, waiting until they are free."""
        if not self._options.gpus or not depth_of(cell) or cell.settings.device == "cpu":
            return []
        wanted = min(cell.settings.gpus, len(self._options.gpus))
        with self._lock:
            while len(self._free_gpus) < wanted and not self._closed:
                self._lock.wait()
            taken, self._free_gpus = self._free_gpus[:wanted], self._free_gpus[wanted:]
            return taken

    def _give_gpus(self, gpus: list[str]) -> None:
        with self._lock:
            self._free_gpus.extend(gpus)
            self._lock.notify_all()


def depth_of(cell: Cell) -> bool:
    """Whether a cell needs torch."""
    return cell.settings.depth is not Depth.STATIC or cell.quantization is not None


def scratch_root() -> Path:
    """Where quantized copies are written while a cell is judged."""
    return Path(tempfile.gettempdir())
