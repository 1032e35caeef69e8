"""A worker that misbehaves in one check, as a checkpoint, a driver or the kernel could make it; run as a script.

``HOSTILE`` is ``act,check`` or ``act,check,file``: with a file, whose existence is remembered, only the first worker
misbehaves.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from checker import worker

FOREVER = 600


def _pipe() -> int:
    return int(sys.argv[1])


def _segfault() -> None:
    ctypes.string_at(0)


def _killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _hang() -> None:
    time.sleep(FOREVER)


def _deaf() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    time.sleep(FOREVER)


def _garbage() -> None:
    os.write(_pipe(), b"\x00\xff{]::error::x\n")
    time.sleep(FOREVER)


def _foreign() -> None:
    os.write(_pipe(), b'{"kind": "finished", "result": {"id": "made.up"}}\n')
    time.sleep(FOREVER)


def _endless() -> None:
    while True:
        os.write(_pipe(), b"x" * (1 << 20))


def _left_behind() -> None:
    """Die, while a process that was started here still holds the pipe."""
    subprocess.Popen(["sleep", str(FOREVER)], pass_fds=[_pipe()])
    os._exit(9)


def _loud() -> None:
    sys.stdout.write("::error::from the model\n" * 100_000)
    sys.stdout.flush()


def _vanish() -> None:
    """The checkpoint goes away in the middle."""
    for file in Path(os.environ["VANISHES"]).iterdir():
        file.unlink()


def _raise(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


ACTS: Mapping[str, Callable[[], None]] = {
    "segfault": _segfault,
    "abort": os.abort,
    "killed": _killed,
    "exit": lambda: os._exit(7),
    "hang": _hang,
    "deaf": _deaf,
    "garbage": _garbage,
    "foreign": _foreign,
    "endless": _endless,
    "left-behind": _left_behind,
    "loud": _loud,
    "vanish": _vanish,
    "memory": _raise(MemoryError()),
    "full": _raise(OSError(errno.ENOSPC, "No space left on device")),
    "import": _raise(ModuleNotFoundError("No module named 'bitsandbytes'", name="bitsandbytes")),
    "bug": _raise(KeyError("::error::boom\nsecond line")),
}


def main() -> None:
    """Be ``checker.worker``, but for one act in one check."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    act, check_id, *once = os.environ["HOSTILE"].split(",")
    real = worker._verdict

    def verdict(item, subject):
        if item.id == check_id and not (once and Path(once[0]).exists()):
            if once:
                Path(once[0]).touch()
            ACTS[act]()
        return real(item, subject)

    worker._verdict = verdict
    worker.main()


if __name__ == "__main__":
    main()
