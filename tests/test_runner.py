"""Scheduling: attempts, GPUs, the worker started ahead, and the end of a run. Workers are stand-ins here."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from checker import provision
from checker import workers as staff
from checker.checkpoint.resolve import Resolved
from checker.domain import Cell, CheckError, CheckResult, Depth, ErrorKind, ModelRef, Settings
from checker.errors import Unavailable, UsageError
from checker.process import WorkerDied
from checker.protocol import Doing, Ended, Finished, Job, Known, Started
from checker.provision import RunOptions
from checker.runner import Runner, Update

CHECKS = ("a.one", "a.two")


class FakeWorker:
    """Says what the next script says; keeps what was asked of it."""

    made: ClassVar[list[FakeWorker]] = []
    scripts: ClassVar[list[list[object]]] = []
    lock: ClassVar[threading.Lock] = threading.Lock()

    alive = True

    def __init__(self, *, preload: bool, online: bool = False, overlay: str | None = None) -> None:
        self.preload, self.killed, self.closed, self.job = preload, threading.Event(), False, None
        self.online, self.overlay = online, overlay
        self.made.append(self)

    def work(self, job: Job, timeout: float | None, spent: float) -> Iterator[object]:
        self.job, self.timeout, self.spent = job, timeout, spent
        with self.lock:
            script = self.scripts.pop(0) if self.scripts else []
        for event in script:
            if isinstance(event, WorkerDied):
                raise event
            if callable(event):
                event(self)
            else:
                yield event
        if self.killed.is_set():
            raise WorkerDied(ErrorKind.CRASH, "the worker was ended by signal SIGKILL")
        yield Ended()

    def kill(self) -> None:
        self.killed.set()

    def close(self) -> None:
        self.kill()
        self.closed = True


@pytest.fixture(autouse=True)
def workers(monkeypatch) -> list[FakeWorker]:
    monkeypatch.setattr(FakeWorker, "made", [])
    monkeypatch.setattr(FakeWorker, "scripts", [])
    monkeypatch.setattr(staff, "WorkerProcess", FakeWorker)
    monkeypatch.setattr(provision, "resolve", lambda ref, **_: Resolved(folder=Path(ref.name), revision=None))
    return FakeWorker.made


def cell(name: str = "a/b", kind: str = "folder", **settings: object) -> Cell:
    return Cell(id=name, checkpoint=ModelRef(kind=kind, name="./m"), settings=Settings(**settings))


def run(*cells: Cell, scripts: tuple[list[object], ...] = (), **options: object) -> list[Update]:
    FakeWorker.scripts.extend(scripts)
    return list(Runner([(item, CHECKS) for item in cells], RunOptions(**options)))


def finished(check: str, error: CheckError | None = None) -> Finished:
    return Finished(result=CheckResult(id=check, error=error), measurements={"m": 1})


def crash(kind: ErrorKind = ErrorKind.CRASH) -> WorkerDied:
    return WorkerDied(kind, "it died", "last words")


def dead(updates: list[Update]) -> list[tuple[str | None, ErrorKind, bool]]:
    return [(item.started, item.died.kind, item.retrying) for item in updates if item.died is not None]


def test_every_event_becomes_one_update(workers):
    script = [Started(check="a.one"), Doing(what="reading"), Known(method="m"), finished("a.one")]
    updates = run(cell(timeout=7.0), scripts=(script,))
    assert updates[0] == Update(cell_id="a/b")
    assert updates[1].known == {"checkpoint_revision": None}
    assert [item.started for item in updates if item.started] == ["a.one"]
    assert [item.doing for item in updates if item.doing] == ["reading"]
    assert [item.finished.id for item in updates if item.finished] == ["a.one"]
    assert updates[-1].ended is not None
    assert updates[-1].attempts == 1
    assert workers[0].closed
    assert workers[0].timeout == 7.0
    assert not Path(workers[0].job.scratch).exists()


def test_a_crash_is_tried_once_more_and_told_once():
    twice = ([Started(check="a.one"), crash()], [Started(check="a.two"), crash()])
    updates = run(cell(), scripts=twice)
    assert dead(updates) == [(None, ErrorKind.CRASH, True), ("a.two", ErrorKind.CRASH, False)]
    assert updates[-1].attempts == 2


def test_a_second_attempt_that_works_leaves_no_death():
    updates = run(cell(), scripts=([crash()], [finished("a.one")]))
    assert dead(updates) == [(None, ErrorKind.CRASH, True)]


@pytest.mark.parametrize("kind", [ErrorKind.TIMEOUT, ErrorKind.INTERNAL, ErrorKind.NOT_RUN])
def test_what_would_only_happen_again_is_not_tried_again(kind, workers):
    assert dead(run(cell(), scripts=([Started(check="a.one"), crash(kind)],))) == [("a.one", kind, False)]
    assert len(workers) == 1


def test_an_error_of_a_check_is_tried_again_even_when_others_follow(workers):
    memory = CheckError(kind=ErrorKind.OUT_OF_MEMORY, message="no memory")
    rest = CheckError(kind=ErrorKind.NOT_RUN, message="gathering failed before")
    updates = run(cell(), scripts=([finished("a.one", memory), finished("a.two", rest)], [finished("a.one")]))
    assert dead(updates) == [(None, ErrorKind.OUT_OF_MEMORY, True)]
    assert len(workers) == 2


def test_a_worker_may_report_only_what_it_was_asked(workers):
    updates = run(cell(), scripts=([finished("made.up")],))
    assert dead(updates) == [(None, ErrorKind.INTERNAL, False)]
    assert not [item for item in updates if item.finished]


@pytest.mark.parametrize(("offline", "attempts"), [(False, 2), (True, 1)])
def test_the_network_gets_a_second_chance_unless_it_is_forbidden(monkeypatch, workers, offline, attempts):
    asked = []

    def resolve(ref, **options):
        asked.append(options)
        raise Unavailable("no network", ErrorKind.NETWORK)

    monkeypatch.setattr(provision, "resolve", resolve)
    updates = run(cell(kind="hub"), offline=offline)
    assert len(asked) == updates[-1].attempts == attempts
    assert asked[0] == {"offline": offline, "allow_code": False}
    assert dead(updates)[-1] == (None, ErrorKind.NETWORK, False)
    assert workers == []


def test_a_folder_that_vanished_costs_its_cell_alone(monkeypatch):
    def resolve(ref, **_):
        raise UsageError("the folder does not exist")

    monkeypatch.setattr(provision, "resolve", resolve)
    assert [kind for _, kind, _ in dead(run(cell("a/x"), cell("b/y")))] == [ErrorKind.NOT_RUN] * 2


@pytest.mark.parametrize("allowed", [(True, True), (True, False), (False, True)])
def test_remote_code_needs_both_the_matrix_and_the_command_line(monkeypatch, workers, allowed):
    asked = []
    monkeypatch.setattr(
        provision, "resolve", lambda ref, **options: asked.append(options) or Resolved(folder=Path(), revision=None)
    )
    run(cell(trust_remote_code=allowed[0]), trust_remote_code=allowed[1])
    assert workers[0].job.trust_remote_code is asked[0]["allow_code"] is all(allowed)


def test_the_next_worker_starts_while_this_one_works(workers):
    seen = []
    run(cell("a/x"), cell("b/y"), cell("c/z", depth=Depth.STATIC), scripts=([lambda _: seen.append(len(workers))],))
    assert seen == [2], "one at work, one ahead"
    assert [item.preload for item in workers] == [True, True, False]
    assert all(item.closed for item in workers)


def divided(*scripts: list[object], **settings: object) -> list[Update]:
    """A run over two cells that have a half of the files and a half of the model each."""
    FakeWorker.scripts.extend(scripts)
    cells = [cell("a/x", **settings), cell("b/y", **settings)]
    return list(Runner([(item, ("config.keys", "loading.keys")) for item in cells], RunOptions()))


def test_the_worker_of_the_model_starts_before_that_of_the_files_and_works_after_it(workers):
    seen: list[list[bool]] = []

    def look(_: FakeWorker) -> None:
        seen.append([item.preload for item in workers])

    updates = divided([look, finished("config.keys")], [look, finished("loading.keys")])
    assert seen[0] == [True, False], "the model's imports torch while the files are judged"
    assert seen[1] == [True, False, True, False], "those of the next cell start when the files are done"
    assert [item.job.stage for item in workers] == ["model", "files", "model", "files"]
    assert [item.job.checks for item in workers[:2]] == [("loading.keys",), ("config.keys",)]
    assert workers[0].job.scratch == workers[1].job.scratch
    assert [item.finished.id for item in updates if item.finished] == ["config.keys", "loading.keys"]
    assert all(item.closed for item in workers)


def test_both_halves_share_the_time_limit(workers):
    divided([lambda _: time.sleep(0.2)], timeout=7.0)
    model, files = workers[:2]
    assert (model.timeout, files.timeout) == (7.0, 7.0)
    assert files.spent < 0.15
    assert 0.2 <= model.spent < 7


def test_a_crash_over_the_files_keeps_the_model_from_being_loaded_and_is_tried_once_more(workers):
    updates = divided([Started(check="config.keys"), crash()], [Started(check="config.keys"), crash()])
    assert dead(updates) == [(None, ErrorKind.CRASH, True), ("config.keys", ErrorKind.CRASH, False)]
    jobs = [item.job.stage for item in workers if item.job is not None and item.job.cell.id == "a/x"]
    assert jobs == ["files", "files"]


def test_a_crash_over_the_model_judges_the_files_again(workers):
    """The second attempt is a whole one: its scratch folder is new."""
    files, model = [finished("config.keys")], [finished("loading.keys")]
    updates = divided(files, [crash()], files, model)
    assert dead(updates) == [(None, ErrorKind.CRASH, True)]
    done = [item.finished.id for item in updates if item.finished and item.cell_id == "a/x"]
    assert done == ["config.keys", "config.keys", "loading.keys"]


@pytest.mark.parametrize(
    ("kind", "goes_on"),
    [(ErrorKind.CRASH, True), (ErrorKind.TIMEOUT, False), (ErrorKind.INTERNAL, False)],
    ids=str,
)
def test_a_worker_that_dies_when_all_is_judged_costs_nothing(workers, kind, goes_on):
    """It was about to hand over what it had gathered, which the other worker can gather as well."""
    updates = divided([finished("config.keys"), crash(kind)], [finished("loading.keys")])
    first = [item for item in updates if item.cell_id == "a/x"]
    assert bool(dead(first)) is not goes_on
    assert [item.finished.id for item in first if item.finished] == ["config.keys", "loading.keys"][: 1 + goes_on]


def test_a_worker_that_was_killed_while_it_waited_is_replaced(workers):
    def kill(_: FakeWorker) -> None:
        workers[0].alive = False

    updates = divided([kill, finished("config.keys")], [finished("loading.keys")])
    assert dead(updates) == []
    assert [item.finished.id for item in updates if item.finished] == ["config.keys", "loading.keys"]
    assert workers[0].job is None


def test_the_worker_of_the_files_is_ended_before_that_of_the_model_begins(workers):
    closed: list[bool] = []
    divided([finished("config.keys")], [lambda _: closed.append(workers[1].closed)])
    assert closed == [True]


def test_no_worker_imports_torch_for_checks_of_files(workers):
    list(Runner([(cell("a/x"), ("config.keys",)), (cell("b/y"), ("weights.codes",))], RunOptions()))
    assert [item.preload for item in workers] == [False, False]


def test_an_error_that_is_worth_another_try_may_be_of_either_half(workers):
    memory = CheckError(kind=ErrorKind.OUT_OF_MEMORY, message="no memory")
    updates = divided([finished("config.keys", memory)], [finished("loading.keys")])
    assert dead(updates) == [(None, ErrorKind.OUT_OF_MEMORY, True)]


def test_static_cells_start_nothing_ahead(workers):
    run(cell("a/x", depth=Depth.STATIC), cell("b/y", depth=Depth.STATIC))
    assert [item.preload for item in workers] == [False, False]


def test_cells_share_the_gpus_and_none_is_used_twice(workers):
    busy: set[str] = set()
    most = 0
    lock = threading.Lock()

    def work(worker: FakeWorker) -> None:
        nonlocal most
        mine = set(worker.job.visible_gpus.split(","))
        with lock:
            assert not busy & mine, "two cells on one GPU"
            busy.update(mine)
            most = max(most, len(busy))
        time.sleep(0.03)
        with lock:
            busy.difference_update(mine)

    cells = [cell(f"a/{n}", gpus=2 if n % 3 == 0 else 1) for n in range(9)]
    updates = run(*cells, scripts=tuple([work] for _ in cells), jobs=3, gpus=("GPU-a", "GPU-b", "GPU-c"))
    assert not dead(updates)
    assert 1 < most <= 3
    widths = {item.job.cell.id: len(item.job.visible_gpus.split(",")) for item in workers if item.job}
    assert widths == {item.id: item.settings.gpus for item in cells}


@pytest.mark.parametrize(
    ("settings", "visible"),
    [
        ({}, "0"),
        ({"device": "cuda"}, "0"),
        ({"device": "cpu"}, None),
        ({"depth": Depth.STATIC}, None),
        ({"device": "cuda:1"}, None),
        ({"device": "cuda:7"}, None),
        ({"gpus": 8}, "0,1"),
    ],
)
def test_which_gpus_a_worker_sees(workers, settings, visible):
    """Of ``cuda:1`` all stay visible, else it would be another one that bears this number."""
    run(cell(**settings), gpus=("0", "1"))
    assert workers[0].job.visible_gpus == visible


def test_cells_on_one_named_gpu_take_turns():
    together = 0

    def work(_worker: FakeWorker) -> None:
        nonlocal together
        together += 1
        assert together == 1
        time.sleep(0.02)
        together -= 1

    cells = [cell(f"a/{n}", device="cuda:1") for n in range(4)]
    assert not dead(run(*cells, scripts=tuple([work] for _ in cells), jobs=4, gpus=("0", "1")))


def test_stop_ends_the_iteration_and_every_worker(workers):
    FakeWorker.scripts.extend([lambda worker: worker.killed.wait(20)] for _ in range(4))
    subject = Runner([(cell(f"a/{n}"), CHECKS) for n in range(4)], RunOptions(jobs=2))
    threading.Timer(0.2, subject.stop).start()
    begin = time.monotonic()
    assert len([item for item in subject if item.ended is None]) >= 2
    subject.wait(3)
    assert time.monotonic() - begin < 2
    assert all(item.closed for item in workers)
    assert len([item for item in workers if item.job]) == 2, "nothing is started after the end"


def test_stop_does_not_wait_for_a_download(monkeypatch, workers):
    release = threading.Event()
    monkeypatch.setattr(
        provision, "resolve", lambda ref, **_: release.wait(20) and Resolved(folder=Path(), revision=None)
    )
    subject = Runner([(cell(), CHECKS)], RunOptions())
    threading.Timer(0.1, subject.stop).start()
    begin = time.monotonic()
    list(subject)
    subject.wait(0.1)
    assert time.monotonic() - begin < 2
    release.set()
    subject.wait(5)
    assert workers == [], "the download came too late"


def test_a_mistake_of_ours_does_not_pass_for_a_finished_cell():
    with pytest.raises(ZeroDivisionError):
        run(cell(), scripts=([lambda _: 1 / 0],))
