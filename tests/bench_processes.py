"""Measuring whole processes: time, and the largest resident set of any process of the run."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
COMMAND = (sys.executable, str(ROOT / "entrypoint.py"))
RUNS = 5
MEGABYTE = 1e6
TIMEOUT = 128 + 9  # the code of a process that was ended for taking too long


@dataclass
class Measured:
    """One process tree that has ended."""

    code: int
    seconds: float
    parent_bytes: int = 0
    largest_bytes: int = 0
    private_bytes: int = 0  # of the largest process, without pages of mapped files
    output: str = ""
    errors: str = ""


def measure(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    timeout: float | None = None,
    watch: bool = True,
) -> Measured:
    """Run a command once, watching the memory of it and of its children, which itself takes a part of a core."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | dict(environment or {})
    )
    peaks: dict[int, int] = {}
    private: dict[int, int] = {}
    watcher = threading.Thread(target=_watch if watch else lambda *_: None, args=(process, peaks, private))
    watcher.start()
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        output, errors = process.communicate()
    seconds = time.perf_counter() - begin
    watcher.join()
    return Measured(
        code=process.returncode if process.returncode >= 0 else TIMEOUT,
        seconds=seconds,
        parent_bytes=peaks.get(process.pid, 0),
        largest_bytes=max(peaks.values(), default=0),
        private_bytes=max(private.values(), default=0),
        output=output,
        errors=errors,
    )


def _watch(process: subprocess.Popen[str], peaks: dict[int, int], private: dict[int, int]) -> None:
    parent = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            for one in (parent, *parent.children(recursive=True)):
                memory = one.memory_info()
                peaks[one.pid] = max(peaks.get(one.pid, 0), memory.rss)
                private[one.pid] = max(private.get(one.pid, 0), memory.rss - memory.shared)
        except psutil.Error:
            pass
        time.sleep(0.002)


def ours(*arguments: str) -> Measured:
    """Run quant-verify once."""
    return measure((*COMMAND, *arguments))


def median(*arguments: str, runs: int = RUNS) -> Measured:
    """Run quant-verify several times; see ``middle``."""
    return middle([ours(*arguments) for _ in range(runs)])


def middle(results: Sequence[Measured]) -> Measured:
    """The run of median time; its memory is the largest of all runs."""
    ordered = sorted(results, key=lambda result: result.seconds)
    found = ordered[len(ordered) // 2]
    found.seconds = statistics.median(result.seconds for result in ordered)
    found.largest_bytes = max(result.largest_bytes for result in ordered)
    found.parent_bytes = max(result.parent_bytes for result in ordered)
    return found


def imports_torch(*arguments: str) -> bool:
    """Whether any process of a run imports torch: every interpreter lists its imports, workers included."""
    result = measure((*COMMAND, *arguments), environment={"PYTHONPROFILEIMPORTTIME": "1"})
    return re.search(r"\|\s+torch$", result.errors, re.MULTILINE) is not None


def table(*rows: tuple[str, ...], right: int = 0) -> str:
    """A markdown table; the first row is its head, the last ``right`` columns are numbers."""
    head, *body = rows
    line = ("---",) * (len(head) - right) + ("--:",) * right
    return "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |\n" for row in (head, line, *body))


def progress(text: str) -> None:
    """One line on stderr."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
