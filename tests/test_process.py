"""A worker process seen from the parent: its environment, its end, and that nothing is left of it."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import psutil
import pytest

from checker import process
from checker.domain import Cell, Depth, ErrorKind, ModelRef, Settings
from checker.process import WorkerDied, WorkerProcess, child_environment
from checker.protocol import Ended, Job, Started

JOB = Job(
    cell=Cell(id="a/b", checkpoint=ModelRef(kind="folder", name="./m"), settings=Settings(depth=Depth.STATIC)),
    checks=("config.present",),
    baseline=None,
    checkpoint="./m",
    scratch="/nonexistent",
)
SAY = "import os, sys, time; say = lambda text: os.write(int(sys.argv[1]), text); line = sys.stdin.readline(); "


@pytest.fixture
def worker(monkeypatch):
    """Start a worker that runs a line of Python in the worker's place."""
    started = []

    def start(code: str) -> WorkerProcess:
        monkeypatch.setattr(process, "WORKER", ("-c", SAY + code))
        started.append(WorkerProcess(preload=False))
        return started[-1]

    yield start
    for item in started:
        item.close()


def death(worker: WorkerProcess, timeout: float | None = 20) -> WorkerDied:
    with pytest.raises(WorkerDied) as caught:
        list(worker.work(JOB, timeout))
    return caught.value


def test_tokens_stay_behind_and_the_worker_is_offline(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("GITHUB_TOKEN", "secret")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    environment = child_environment()
    assert "secret" not in environment.values()
    assert environment["HF_HUB_OFFLINE"] == environment["TRANSFORMERS_OFFLINE"] == "1"


def test_events_arrive_in_order_also_in_pieces(worker):
    pieces = (b'{"kind": "sta', b'rted", "check": "x"}\n{"kind": "ended"}', b"\n")
    code = "; ".join(f"say({piece!r}); time.sleep(0.05)" for piece in pieces)
    assert list(worker(code).work(JOB, None)) == [Started(check="x"), Ended()]


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        ("sys.exit(0)", ErrorKind.CRASH, "the worker ended with exit code 0; --verbose shows its last output"),
        ("os._exit(3)", ErrorKind.CRASH, "the worker ended with exit code 3; --verbose shows its last output"),
        ("os.kill(os.getpid(), 15)", ErrorKind.CRASH, "ended by signal SIGTERM; --verbose shows its last output"),
        ("os.kill(os.getpid(), 9)", ErrorKind.CRASH, "ended by signal SIGKILL; the system may have been out of memory"),
        ("os.kill(os.getpid(), 40)", ErrorKind.CRASH, "ended by signal 40;"),
        ("say(b'hello\\n'); time.sleep(60)", ErrorKind.INTERNAL, "said something that is no event"),
        ("os.close(int(sys.argv[1])); time.sleep(60)", ErrorKind.CRASH, "closed its pipe and went on"),
    ],
)  # fmt: skip
def test_every_way_to_end_has_its_sentence(worker, monkeypatch, code, kind, says):
    monkeypatch.setattr(process, "LAST_SECONDS", 0.5)
    died = death(worker(code))
    assert died.kind is kind
    assert says in str(died)


def test_a_worker_that_says_nothing_runs_out_of_time(worker):
    begin = time.monotonic()
    died = death(worker("time.sleep(60)"), timeout=0.3)
    assert died.kind is ErrorKind.TIMEOUT
    assert "0.3 s ran out" in str(died)
    assert time.monotonic() - begin < 3


def test_what_another_worker_spent_of_the_time_counts(worker):
    begin = time.monotonic()
    with pytest.raises(WorkerDied) as caught:
        list(worker("time.sleep(60)").work(JOB, 50.0, 49.7))
    assert caught.value.kind is ErrorKind.TIMEOUT
    assert "the cell's time limit of 50 s ran out" in str(caught.value)
    assert time.monotonic() - begin < 3


def test_a_worker_that_talks_without_end_runs_out_of_time(worker):
    died = death(worker('[say(b\'{"kind": "doing", "what": "x"}\\n\') for _ in iter(int, 1)]'), timeout=0.5)
    assert died.kind is ErrorKind.TIMEOUT


def test_a_line_too_long_is_cut_off(worker, monkeypatch):
    monkeypatch.setattr("checker.protocol.LONGEST_LINE", 1000)
    assert "a line that is too long" in str(death(worker("say(b'x' * 2000); time.sleep(60)")))


def test_the_last_output_is_kept_but_not_all_of_it(worker):
    died = death(worker("os.write(2, b'y' * 9999 + b'end\\xff'); os._exit(1)"))
    assert died.detail.endswith("end\\xff")
    assert len(died.detail) < process.TAIL_BYTES + 10


def test_a_child_that_holds_the_pipe_does_not_hide_the_death(worker):
    begin = time.monotonic()
    code = "import subprocess; subprocess.Popen(['sleep', '60'], pass_fds=[int(sys.argv[1])]); os._exit(5)"
    assert "exit code 5" in str(death(worker(code), timeout=None))
    assert time.monotonic() - begin < 4


def test_closing_ends_the_whole_group(worker):
    subject = worker(
        "import subprocess; p = subprocess.Popen(['sleep', '60']); say(b'{\"kind\": \"ended\"}\\n'); p.wait()"
    )
    list(subject.work(JOB, None))
    family = [psutil.Process(subject.pid), *psutil.Process(subject.pid).children(recursive=True)]
    assert len(family) == 2
    subject.close()
    subject.close()
    _, alive = psutil.wait_procs(family, timeout=3)
    assert all(item.status() == psutil.STATUS_ZOMBIE for item in alive)


def test_killing_from_elsewhere_wakes_the_reader(worker):
    import threading

    subject = worker("time.sleep(60)")
    threading.Timer(0.3, subject.kill).start()
    assert "SIGKILL" in str(death(subject, timeout=None))


def test_no_descriptor_is_left_open(worker):
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    for _ in range(3):
        subject = worker('say(b\'{"kind": "ended"}\\n\')')
        list(subject.work(JOB, None))
        subject.close()
    assert descriptors() == before


def test_a_worker_whose_parent_is_gone_ends_at_once():
    import subprocess

    read, write = os.pipe()
    root = Path(process.__file__).parent.parent
    command = [sys.executable, "-P", "-m", "checker.worker", str(write), "1"]
    done = subprocess.run(
        command, pass_fds=(write,), cwd=root, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        env=child_environment(), timeout=30,
    )  # fmt: skip
    os.close(read)
    os.close(write)
    assert done.returncode == 1
    assert "the parent is gone" in done.stderr
