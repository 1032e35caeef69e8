"""Schedules cells over workers and reports what happens as it happens; never judges and never imports torch."""

from __future__ import annotations

import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace

from checker.checkpoint.hub import may_ask, token_to_send
from checker.checkpoint.network import Network, open_network
from checker.checkpoint.resolve import Resolved, resolve, resolve_remote
from checker.domain import Cell, CheckError, CheckResult, Depth, ErrorKind, Json, ModelRef
from checker.errors import Unavailable, UsageError
from checker.process import WorkerDied, WorkerProcess, take_ahead
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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Trouble:
    """Why an attempt at a cell did not come to a good end."""

    error: CheckError
    check: str | None = None  # in which it happened; None: before the first
    fatal: bool = True  # the checks after it were never reached


class Runner:
    """Runs cells, several at a time when there are several GPUs. Iterate over it; ``close`` ends every worker."""

    def __init__(self, planned: Sequence[tuple[Cell, Sequence[str]]], options: RunOptions) -> None:
        self._planned, self._options = planned, options
        self._updates: queue.SimpleQueue[Update | Future[None] | None] = queue.SimpleQueue()
        self._workers: set[WorkerProcess] = set()
        self._spare: list[WorkerProcess] = []  # each has imported torch
        self._ahead = take_ahead()  # has not
        self._lock = threading.Condition()
        self._free_gpus = list(options.gpus)
        self._futures: list[Future[None]] = []
        self._stopped = False
        self._closed = False

    def __iter__(self) -> Iterator[Update]:
        waiting = sum(depth_of(cell) for cell, _ in self._planned)
        pool = ThreadPoolExecutor(max_workers=self._options.jobs)  # no "with": it would wait for a download to end
        try:
            for cell, checks in self._planned:
                waiting -= depth_of(cell)
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
        """End every worker, also those that ignore a polite request, and do not wait for the threads."""
        with self._lock:
            self._closed = True
            workers, spare = [*self._workers], [*self._spare, *filter(None, [self._ahead])]
            self._ahead = None
            self._spare.clear()
            self._lock.notify_all()
        for worker in [*workers, *spare]:
            worker.kill()
        for worker in spare:
            worker.close()  # the others are closed by the threads that read from them

    def wait(self, seconds: float) -> None:
        """Give the threads time to remove what lies in scratch folders."""
        wait([future for future in self._futures if not future.cancelled()], timeout=seconds)

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
        return kind in RETRIED and not hopeless and not self._closed

    def _attempt(self, cell: Cell, checks: tuple[str, ...], *, more: bool) -> _Trouble | None:
        """Fetch what the cell needs and judge it in a fresh worker; returns the infrastructure's fault, if any."""
        try:
            network = open_network() if self._reads_ranges(cell) else None
            baseline = self._fetch(cell, cell.baseline, network)
            checkpoint = self._fetch(cell, cell.checkpoint, network)
        except (Unavailable, UsageError) as reason:  # the latter: a folder that was there when the run began
            kind = reason.kind if isinstance(reason, Unavailable) else ErrorKind.NOT_RUN
            return _Trouble(error=CheckError(kind=kind, message=str(reason)))
        scratch = tempfile.mkdtemp(prefix="quant-verify-")
        gpus = self._take_gpus(cell)
        job = Job(
            cell=cell,
            checks=checks,
            baseline=str(baseline.folder) if baseline else None,
            checkpoint=str(checkpoint.folder) if checkpoint else None,
            scratch=scratch,
            checkpoint_file=checkpoint.file if checkpoint else None,
            hub_files=tuple(checkpoint.files) if checkpoint else (),
            visible_gpus=",".join(gpus) if gpus and ":" not in cell.settings.device else None,
            trust_remote_code=self._trusts(cell),
            baseline_repository=baseline.repository if baseline else None,
            checkpoint_repository=checkpoint.repository if checkpoint else None,
        )
        if network is not None and (job.baseline_repository or job.checkpoint_repository):
            job = replace(job, network=replace(network, token=token_to_send()))
        try:
            return self._judge(job, more=more)
        finally:
            self._give_gpus(gpus)
            shutil.rmtree(scratch, ignore_errors=True)

    def _reads_ranges(self, cell: Cell) -> bool:
        """Whether the cell's repositories are read by ranges instead of being downloaded.

        Not to load a model, for every byte of it, or with its Python code: that must not run in a worker with a token.
        """
        static = not depth_of(cell) and cell.settings.weights != "full" and not self._trusts(cell)
        on_hub = any(ref is not None and ref.kind == "hub" for ref in (cell.baseline, cell.checkpoint))
        return static and on_hub and not self._options.offline and may_ask()

    def _fetch(self, cell: Cell, ref: ModelRef | None, network: Network | None) -> Resolved | None:
        if ref is None:
            return None
        if ref.kind == "hub":
            doing = f"reading {ref}" if network is not None else f"fetching {ref}"
            self._updates.put(Update(cell_id=cell.id, doing=doing))
        if ref.kind == "hub" and network is not None:
            resolved = resolve_remote(ref, network)
        else:
            resolved = resolve(ref, offline=self._options.offline, allow_code=self._trusts(cell))
        which = "baseline_revision" if ref is cell.baseline else "checkpoint_revision"
        self._updates.put(Update(cell_id=cell.id, known={which: resolved.revision}))
        return resolved

    def _trusts(self, cell: Cell) -> bool:
        return self._options.trust_remote_code and cell.settings.trust_remote_code

    def _judge(self, job: Job, *, more: bool) -> _Trouble | None:
        worker = self._worker(preload=depth_of(job.cell), online=job.network is not None)
        if more:
            self._prepare_next()
        current: str | None = None
        trouble: _Trouble | None = None
        cell_id = job.cell.id
        try:
            for event in worker.judge(job, job.cell.settings.timeout):
                if isinstance(event, Started):
                    current = event.check
                    self._updates.put(Update(cell_id=cell_id, started=current))
                elif isinstance(event, Finished):
                    if event.result.id not in job.checks:
                        raise WorkerDied(ErrorKind.INTERNAL, "a worker reported a check that it was not asked for")
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
            error = CheckError(kind=death.kind, message=str(death), detail=death.detail)
            trouble = _Trouble(error=error, check=current)
        finally:
            with self._lock:
                self._workers.discard(worker)
            worker.close()
        return trouble

    def _worker(self, *, preload: bool, online: bool) -> WorkerProcess:
        with self._lock:
            if self._closed:
                raise RuntimeError("the run has ended; nobody is left who would end another worker")
            worker = self._waiting(preload=preload, online=online) or WorkerProcess(preload=preload, online=online)
            if not worker.alive:  # killed while it waited; that is no fault of this cell
                worker.close()
                worker = WorkerProcess(preload=preload, online=online)
            self._workers.add(worker)
            return worker

    def _waiting(self, *, preload: bool, online: bool) -> WorkerProcess | None:
        """A worker that was started before its job was known, if one fits."""
        if preload:
            return self._spare.pop() if self._spare else None
        ahead, self._ahead = (None, self._ahead) if online else (self._ahead, None)
        return ahead

    def _prepare_next(self) -> None:
        """Start the next worker now: it imports torch while this one works."""
        with self._lock:
            if not self._spare and not self._closed:
                self._spare.append(WorkerProcess(preload=True))

    def _take_gpus(self, cell: Cell) -> list[str]:
        """Names of as many GPUs as the cell asks for, waiting until they are free."""
        if not self._options.gpus or not depth_of(cell) or cell.settings.device == "cpu":
            return []
        candidates = self._options.gpus
        wanted = min(cell.settings.gpus, len(candidates))
        if index := cell.settings.device.partition(":")[2]:  # cuda:N is that one and no other
            candidates = candidates[int(index) :][:1]
            wanted = len(candidates)
        with self._lock:
            while not self._closed:
                taken = [gpu for gpu in self._free_gpus if gpu in candidates][:wanted]
                if len(taken) == wanted:
                    self._free_gpus = [gpu for gpu in self._free_gpus if gpu not in taken]
                    return taken
                self._lock.wait()
        return []

    def _give_gpus(self, gpus: list[str]) -> None:
        with self._lock:
            self._free_gpus.extend(gpus)
            self._lock.notify_all()


def depth_of(cell: Cell) -> bool:
    """Whether a cell needs torch."""
    return cell.settings.depth is not Depth.STATIC or cell.quantization is not None
