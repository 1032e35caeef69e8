"""The parent's handle on one worker process: start it, give it a job, read its events, end it."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from checker.domain import ErrorKind

if TYPE_CHECKING:  # building the schemas of messages takes longer than starting a worker; they come with the first job
    from checker.protocol import AnyEvent, AnyJob

LAST_WORDS = "--verbose shows its last output"
WORKER = ("-P", "-m", "checker.worker")
LAST_SECONDS = 5.0  # for a worker that has closed its pipe to end
ALIVE_SECONDS = 1.0  # between two looks at whether a silent worker still lives
TAIL_BYTES = 4000  # of a dead worker's output, for --verbose
SECRET = re.compile(r"(^|_)(TOKEN|SECRETS?|PASSWORD|PASSWD|CREDENTIALS?|API_KEY|ACCESS_KEY)(_|$)", re.IGNORECASE)
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
    "PYDANTIC_DISABLE_PLUGINS": "__all__",  # whatever is installed beside us has no say in what is valid
    "TORCHDYNAMO_DISABLE": "1",  # a verdict must not depend on a compiler being there; and its imports take a second
}
ONLINE = {"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0"}


def child_environment(*, online: bool = False, overlay: str | None = None) -> dict[str, str]:
    """The environment of a process that opens foreign files: offline, without tokens, importing what we import.

    ``online`` is for a cell at depth static whose repository is read by ranges. Its worker reads JSON, headers and
    numbers with our own code; it loads no model and runs nothing of the repository. It needs the network, and for a
    private repository the token: that comes in the job (``Network.token``), on standard input and for this worker only,
    so that it is in no environment that a library or another process could read.

    ``overlay`` is a folder of packages that come before all others, also before those installed beside us.
    """
    root = str(Path(__file__).resolve().parent.parent)
    paths = os.pathsep.join(filter(None, [overlay, root, os.environ.get("PYTHONPATH")]))
    kept = {key: value for key, value in os.environ.items() if not SECRET.search(key)}
    return kept | OFFLINE | (ONLINE if online else {}) | {"PYTHONPATH": paths}


class WorkerDied(Exception):
    """The worker ended before its job did; ``kind`` and message say how, ``detail`` holds its last output."""

    def __init__(self, kind: ErrorKind, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.detail = detail


class WorkerProcess:
    """One fresh interpreter in a process group of its own, without tokens, with a pipe of its own.

    Offline, unless ``online``. Started ahead of its job it imports torch while the worker before it still runs.
    ``overlay`` is a folder of packages that it finds before those installed.
    """

    def __init__(self, *, preload: bool, online: bool = False, overlay: str | None = None) -> None:
        self.preload = preload
        self._read, write = os.pipe()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        command = [sys.executable, *WORKER, str(write), str(os.getpid()), *(["preload"] if preload else [])]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            pass_fds=(write,),
            start_new_session=True,
            env=child_environment(online=online, overlay=overlay),
        )
        os.close(write)

    @property
    def pid(self) -> int:
        """Process id, also that of its group."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process still runs; one started ahead may have been killed while it waited."""
        return self._process.poll() is None

    def work(self, job: AnyJob, timeout: float | None, spent: float = 0.0) -> Iterator[AnyEvent]:
        """Give the job and yield the events of the worker, ``Ended`` last; ``spent``: seconds of its time before it.

        Raises:
            WorkerDied: it crashed, was killed, ran out of time, or said something that is no event.
        """
        from checker.protocol import JOB, Ended, parse_event

        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # a worker that is dead already says so below
            self._process.stdin.write(JOB.dump_json(job) + b"\n")
            self._process.stdin.close()
        deadline = None if timeout is None else time.monotonic() + timeout - spent
        for line in self._lines(deadline, timeout):
            try:
                event = parse_event(line)
            except ValueError as error:
                raise WorkerDied(ErrorKind.INTERNAL, str(error), self._tail()) from None
            yield event
            if isinstance(event, Ended):
                return
        raise self._obituary()

    def _lines(self, deadline: float | None, timeout: float | None) -> Iterator[bytes]:
        from checker.protocol import LONGEST_LINE

        buffer = bytearray()
        while True:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                message = f"the cell's time limit of {timeout:g} s ran out; raise timeout, or use a lesser depth"
                raise WorkerDied(ErrorKind.TIMEOUT, message, self._tail())
            dead = self._process.poll() is not None
            wait = ALIVE_SECONDS if left is None else min(left, ALIVE_SECONDS)
            ready, _, _ = select.select([self._read], [], [], wait)
            if not ready:
                if dead:  # and what it left behind still holds the pipe
                    return
                continue
            data = os.read(self._read, 1 << 16)
            if not data:
                return
            buffer += data
            while (end := buffer.find(b"\n")) >= 0:
                yield bytes(buffer[:end])
                del buffer[: end + 1]
            if len(buffer) > LONGEST_LINE:
                raise WorkerDied(ErrorKind.INTERNAL, "a worker sent a line that is too long", self._tail())

    def _obituary(self) -> WorkerDied:
        """How the process ended, in one sentence."""
        try:
            code = self._process.wait(timeout=LAST_SECONDS)
        except subprocess.TimeoutExpired:
            return WorkerDied(ErrorKind.CRASH, "the worker closed its pipe and went on; it was ended", self._tail())
        if code < 0:
            name = signal.Signals(-code).name if -code in {*signal.Signals} else str(-code)
            more = "the system may have been out of memory" if -code == signal.SIGKILL else LAST_WORDS
            return WorkerDied(ErrorKind.CRASH, f"the worker was ended by signal {name}; {more}", self._tail())
        return WorkerDied(ErrorKind.CRASH, f"the worker ended with exit code {code}; {LAST_WORDS}", self._tail())

    def _tail(self) -> str:
        self._log.flush()
        size = os.fstat(self._log.fileno()).st_size
        data = os.pread(self._log.fileno(), TAIL_BYTES, max(0, size - TAIL_BYTES))
        return data.decode("utf-8", errors="backslashreplace").strip()

    def kill(self) -> None:
        """End the whole process group at once, from any thread; whoever iterates over ``work`` learns of it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End the process group and free what belongs to it; harmless when it has ended already."""
        self.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in a driver: go on without it
            self._process.wait(timeout=5)
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        if self._read >= 0:
            os.close(self._read)
            self._read = -1
        self._log.close()


_AHEAD: list[WorkerProcess] = []


def start_ahead(*, preload: bool) -> None:
    """Start a worker before anything else is imported: its imports and ours then take their time together.

    ``preload``: one that imports torch. It ends by itself when this process does, having read no job.
    """
    _AHEAD.append(WorkerProcess(preload=preload))


def take_ahead() -> WorkerProcess | None:
    """The worker that was started ahead, if there is one."""
    return _AHEAD.pop() if _AHEAD else None
