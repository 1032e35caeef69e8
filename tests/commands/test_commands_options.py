"""The options as one value: what is said, what is not, and what makes no sense."""

from __future__ import annotations

import pytest

from checker.commands import suite
from checker.commands.deliver import at_least_unverified
from checker.commands.options import RunArguments, split, worker_count
from checker.commands.suite import checks_of, require_folders, require_pinned, signals
from checker.domain import Cell, Depth, ExitCode, Location, ModelRef, Settings, Severity
from checker.errors import MatrixError, UsageError


def test_what_is_not_said_forces_nothing():
    assert RunArguments().forced() == {}
    empty = RunArguments(depth="", select=("",), ignore=(" , ",), weights=None, trust_remote_code=False)
    assert empty.forced() == {}


def test_what_is_said_stands_above_the_matrix():
    said = RunArguments(depth="load", select=("a,b", "c"), device="cuda:1", timeout=3.0, trust_remote_code=True)
    assert said.forced() == {
        "depth": Depth.LOAD,
        "select": ("a", "b", "c"),
        "device": "cuda:1",
        "timeout": 3.0,
        "trust_remote_code": True,
    }


@pytest.mark.parametrize("device", ["", "gpu", "cuda:", "cuda:x", "CPU", "cuda:1,2", "cpu\n"])
def test_a_device_that_is_none(device):
    with pytest.raises(UsageError, match="is none of auto, cpu, cuda, cuda:N"):
        RunArguments(device=device).forced()


@pytest.mark.parametrize("shard", ["", "1", "0/3", "4/3", "1/0", "01/3", "a/b", "1/3/5", "-1/3", "1 / 3"])
def test_a_shard_that_is_none(shard):
    with pytest.raises(UsageError, match="is not of the form I/N"):
        RunArguments(shard=shard).shard_numbers()


def test_shards():
    assert RunArguments().shard_numbers() is None
    assert RunArguments(shard="3/12").shard_numbers() == (3, 12)


@pytest.mark.parametrize(
    ("annotations", "shard", "environment", "expected"),
    [
        ("auto", None, {}, False),
        ("auto", None, {"GITHUB_ACTIONS": "true"}, True),
        ("auto", "1/2", {"GITHUB_ACTIONS": "true"}, False),
        ("always", "1/2", {}, True),
        ("never", None, {"GITHUB_ACTIONS": "true"}, False),
    ],
)
def test_when_to_annotate(annotations, shard, environment, expected):
    assert RunArguments(annotations=annotations, shard=shard).annotate(environment) is expected


@pytest.mark.parametrize(("jobs", "gpus", "count"), [("auto", (), 1), ("auto", ("0", "1"), 2), ("5", ("0",), 5)])
def test_worker_count(jobs, gpus, count):
    assert worker_count(jobs, gpus) == count


@pytest.mark.parametrize("jobs", ["0", "-1", "1.5", "", "many", "²"])
def test_worker_count_refuses(jobs):
    with pytest.raises(UsageError, match="neither auto nor a number"):
        worker_count(jobs, ())


def test_comma_lists():
    assert split(("a, b", "", ",c,,")) == ("a", "b", "c")


def test_severity():
    assert RunArguments(fail_on="warn").severity is Severity.WARN


def cell(kind: str, name: str, revision: str | None = None, line: int = 3) -> Cell:
    ref = ModelRef(kind=kind, name=name, revision=revision)
    return Cell(id="a", checkpoint=ref, origin=Location(file="m.yml", line=line))


@pytest.mark.parametrize("revision", [None, "main", "v1.0", "12fd25f", "A" * 40, "a" * 41])
def test_pinned_means_a_full_commit(revision):
    with pytest.raises(UsageError, match=r"m\.yml:3: org/model.* is not pinned"):
        require_pinned([cell("hub", "org/model", revision)])


def test_pinned_commits_and_folders_pass():
    require_pinned([cell("hub", "org/model", "a" * 40), cell("folder", "./x")])


def test_all_missing_folders_are_named(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("")
    names = [str(tmp_path / name) for name in ("there", "one", "file", "x" * 5000)]
    with pytest.raises(MatrixError) as caught:
        require_folders([cell("folder", name, line=number) for number, name in enumerate(names)])
    assert [mistake.location.line for mistake in caught.value.mistakes] == [1, 2, 3]


def test_in_the_image_a_missing_folder_may_be_one_that_is_not_mounted(monkeypatch):
    monkeypatch.setenv("QUANT_VERIFY_IN_IMAGE", "1")
    with pytest.raises(MatrixError, match="whether the container has that folder"):
        require_folders([cell("folder", "/srv/models/x", line=1)])


@pytest.mark.parametrize("in_workflow", [True, False])
def test_a_log_shows_no_live_display_even_where_the_runner_has_a_terminal(monkeypatch, in_workflow):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.delenv("TTY_INTERACTIVE", raising=False)
    monkeypatch.setenv("GITHUB_ACTIONS", "true" if in_workflow else "")
    console = suite._stderr()
    assert console.is_terminal
    assert console.is_interactive is not in_workflow


def test_a_lost_report_is_never_a_success():
    lost = {code: at_least_unverified(code) for code in ExitCode}
    assert lost[ExitCode.PASSED] is lost[ExitCode.NOTHING_CHECKED] is ExitCode.UNVERIFIED
    assert all(lost[code] is code for code in ExitCode if code not in (ExitCode.PASSED, ExitCode.NOTHING_CHECKED))


def test_checks_of_a_cell():
    ref = ModelRef(kind="folder", name="./m")
    settings = Settings(depth=Depth.STATIC, select=("config.*",), ignore=("*.keys",))
    assert set(checks_of(Cell(id="a", checkpoint=ref, settings=settings))) == {
        "config.method", "config.present", "config.roundtrip", "config.truthful",
    }  # fmt: skip


def test_the_first_signal_counts_and_the_handlers_come_back():
    import os
    import signal

    heard: list[ExitCode] = []
    before = signal.getsignal(signal.SIGTERM)
    with signals(heard.append):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
    assert heard == [ExitCode.TERMINATED]
    assert signal.getsignal(signal.SIGTERM) == before


def test_nohup_is_respected():
    import os
    import signal

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        heard: list[ExitCode] = []
        with signals(heard.append):
            os.kill(os.getpid(), signal.SIGHUP)
        assert heard == []
    finally:
        signal.signal(signal.SIGHUP, before)
