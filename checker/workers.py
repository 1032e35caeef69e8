"""The worker processes of one run and the GPUs they work on: started ahead, handed out, ended."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from checker.domain import Settings
from checker.process import WorkerProcess, take_ahead


class Workers:
    """Hands out fresh workers, each for one job, and ends whatever is left. Safe to use from several threads."""

    def __init__(self, gpus: Sequence[str]) -> None:
        self._gpus = tuple(gpus)
        self._free = list(gpus)
        self._working: set[WorkerProcess] = set()
        ahead = take_ahead()
        self._spare = [ahead] if ahead is not None and ahead.preload else []  # each has imported torch
        self._ahead = ahead if ahead is not None and not ahead.preload else None  # has not
        self._lock = threading.Condition()
        self.closed = False

    @contextmanager
    def one(self, *, preload: bool, online: bool = False, overlay: str | None = None) -> Iterator[WorkerProcess]:
        """A worker for one job; ended afterwards."""
        with self._lock:
            if self.closed:
                raise RuntimeError("the run has ended; nobody is left who would end another worker")
            worker = self._waiting(preload=preload, online=online) if overlay is None else None
            if worker is not None and not worker.alive:  # killed while it waited; that is no fault of this cell
                worker.close()
                worker = None
            worker = worker or WorkerProcess(preload=preload, online=online, overlay=overlay)
            self._working.add(worker)
        try:
            yield worker
        finally:
            with self._lock:
                self._working.discard(worker)
            worker.close()

    def _waiting(self, *, preload: bool, online: bool) -> WorkerProcess | None:
        """A worker that was started before its job was known, if one fits."""
        if preload:
            return self._spare.pop() if self._spare else None
        ahead, self._ahead = (None, self._ahead) if online else (self._ahead, None)
        return ahead

    def dismiss_spare(self) -> None:
        """End the worker that was started ahead: no cell needs torch."""
        with self._lock:
            spare, self._spare = self._spare, []
        for worker in spare:
            worker.close()

    def prepare_next(self, *, both: bool = False) -> None:
        """Start the next worker now: it imports torch while another one works. ``both``: also one without torch."""
        with self._lock:
            if not self._spare and not self.closed:
                self._spare.append(WorkerProcess(preload=True))
            if both and self._ahead is None and not self.closed:
                self._ahead = WorkerProcess(preload=False)

    @contextmanager
    def gpus_for(self, settings: Settings, *, needed: bool) -> Iterator[list[str]]:
        """Names of as many GPUs as a cell asks for, once they are free; none when it needs none."""
        taken = self._take(settings) if needed and self._gpus and settings.device != "cpu" else []
        try:
            yield taken
        finally:
            with self._lock:
                self._free.extend(taken)
                self._lock.notify_all()

    def _take(self, settings: Settings) -> list[str]:
        candidates = self._gpus
        wanted = min(settings.gpus, len(candidates))
        if index := settings.device.partition(":")[2]:  # cuda:N is that one and no other
            candidates = candidates[int(index) :][:1]
            wanted = len(candidates)
        with self._lock:
            while not self.closed:
                taken = [gpu for gpu in self._free if gpu in candidates][:wanted]
                if len(taken) == wanted:
                    self._free = [gpu for gpu in self._free if gpu not in taken]
                    return taken
                self._lock.wait()
        return []

    def close(self) -> None:
        """End every worker, also those that ignore a polite request, and do not wait for the threads."""
        with self._lock:
            self.closed = True
            working, spare = [*self._working], [*self._spare, *filter(None, [self._ahead])]
            self._ahead = None
            self._spare.clear()
            self._lock.notify_all()
        for worker in [*working, *spare]:
            worker.kill()
        for worker in spare:
            worker.close()  # the others are closed by the threads that read from them
