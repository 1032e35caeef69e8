"""Running cells to a verdict: what ``run``, ``check`` and ``demo`` share."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING

from checker.board import Board, RunFacts
from checker.commands.options import RunArguments, split, worker_count
from checker.domain import Cell, ExitCode, RunResult, Waiver
from checker.environment import describe, visible_gpus
from checker.errors import Unavailable, UsageError
from checker.registry import selected_checks
from checker.runner import Runner, RunOptions, Update

if TYPE_CHECKING:
    from rich.console import Console

    from checker.reporters.progress import Progress


@dataclass(frozen=True, kw_only=True, slots=True)
class Suite:
    """The cells to judge and where they come from."""

    cells: tuple[Cell, ...]
    waivers: tuple[Waiver, ...] = ()
    matrix_path: str | None = None
    matrix_sha256: str | None = None


class Interrupted(Exception):
    """A signal asked us to stop; carries the exit code that says which."""

    def __init__(self, code: ExitCode) -> None:
        super().__init__(code.name)
        self.code = code


def run_suite(suite: Suite, arguments: RunArguments) -> RunResult:
    """Judge the cells that ``--only`` and ``--shard`` leave, with reports and progress as the arguments say.

    Raises:
        UsageError: a selection that matches nothing, an option that makes no sense.
    """
    from checker.matrix.select import only, shard
    from checker.reporters.progress import Progress

    cells = only(suite.cells, split(arguments.only)) if arguments.only else suite.cells
    planned_ids = tuple(cell.id for cell in cells)
    numbers = arguments.shard_numbers()
    cells = shard(cells, *numbers) if numbers else cells
    if arguments.require_pinned:
        require_pinned(cells)
    planned = [(cell, checks_of(cell)) for cell in cells]
    gpus = visible_gpus()
    facts = RunFacts(
        environment=describe(),
        planned=planned_ids,
        matrix_path=suite.matrix_path,
        matrix_sha256=suite.matrix_sha256,
        shard=arguments.shard,
        fail_on=arguments.severity,
    )
    board = Board(facts, planned, suite.waivers)
    options = RunOptions(
        jobs=worker_count(arguments.jobs, gpus),
        gpus=gpus,
        offline=arguments.offline,
        trust_remote_code=arguments.trust_remote_code,
    )
    reports = Reports(arguments)
    reports.write(board.result())  # the plan, so that a run killed at once leaves a list of what it meant to do
    with signals(), Progress(_stderr(), quiet=arguments.quiet, verbose=arguments.verbose) as progress:
        _run(Runner(planned, options), board, progress, reports)
    for waiver in board.unused_waivers():
        place = f"{waiver.location.file}:{waiver.location.line}: " if waiver.location else ""
        warn(f"{place}the waiver of {waiver.check} on {waiver.cells} covers nothing; remove it")
    reports.write(board.result())
    if reports.failure is not None:
        raise reports.failure
    return board.result()


def _run(runner: Runner, board: Board, progress: Progress, reports: Reports) -> None:
    try:
        for update in runner:
            if _take_in(update, board, progress):
                reports.write(board.result())
    except Interrupted as signal_:
        board.interrupted = signal_.code
    finally:
        runner.close()


def _take_in(update: Update, board: Board, progress: Progress) -> bool:
    """Enter one update into board and progress; whether there is something new to report."""
    cell_id = update.cell_id
    if update.known is not None:
        board.update(cell_id, **update.known)
    elif update.retrying and update.died is not None:
        board.note(cell_id, f"tried twice: the first worker ended early ({update.died.message})")
        progress.note(cell_id, f"{update.died.message}; trying once more")
    elif update.died is not None:
        for result in board.unverified(cell_id, update.started, update.died):
            progress.check_finished(cell_id, result)
    elif update.finished is not None:
        result = board.finished(cell_id, update.finished, update.measurements or {})
        progress.check_finished(cell_id, result)
    elif update.started is not None:
        progress.check_started(cell_id, update.started)
        return False
    elif update.doing is not None:
        progress.check_started(cell_id, update.doing)
        return False
    elif update.ended is not None:
        board.spent(cell_id, update.ended, update.attempts)
        progress.cell_finished(board.cell(cell_id))
    else:
        progress.cell_started(cell_id)
        return False
    return True


class Reports:
    """The report files, rewritten as results arrive; a folder that cannot be written does not stop the run."""

    def __init__(self, arguments: RunArguments) -> None:
        self._folder = arguments.folder()
        self.failure: Unavailable | None = None

    def write(self, run: RunResult) -> None:
        """Write the reports; the first failure is kept for the end, the verdict still goes to stdout."""
        from checker.reporters import write_reports

        if self._folder is None or self.failure is not None:
            return
        try:
            write_reports(run, self._folder)
        except Unavailable as failure:
            self.failure = failure
            warn(str(failure))


@contextmanager
def signals() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP become ``Interrupted``, once: the reports are written while a second one waits."""
    codes = {
        signal.SIGINT: ExitCode.INTERRUPTED,
        signal.SIGTERM: ExitCode.TERMINATED,
        signal.SIGHUP: ExitCode.HANGUP,
    }

    def stop(number: int, _frame: FrameType | None) -> None:
        for other in codes:
            signal.signal(other, signal.SIG_IGN)
        raise Interrupted(codes[signal.Signals(number)])

    before = {number: signal.signal(number, stop) for number in codes}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def checks_of(cell: Cell) -> tuple[str, ...]:
    """Ids of the checks that a cell's settings select."""
    settings = cell.settings
    return tuple(item.id for item in selected_checks(settings.depth, settings.select, settings.ignore))


def require_pinned(cells: Sequence[Cell]) -> None:
    """Refuse a Hub reference whose revision is not a full commit: a branch or a tag can change under the verdict.

    Raises:
        UsageError: names the first such reference and its place.
    """
    from checker.commands.options import COMMIT

    for cell in cells:
        for ref in (cell.baseline, cell.checkpoint):
            if ref is not None and ref.kind == "hub" and not COMMIT.fullmatch(ref.revision or ""):
                place = f"{cell.origin.file}:{cell.origin.line}: " if cell.origin else ""
                raise UsageError(f"{place}{ref} is not pinned; --require-pinned wants a full commit after @")


def show(run: RunResult, arguments: RunArguments) -> ExitCode:
    """The verdict on stdout, annotations and step summary where a workflow wants them; returns the exit code."""
    from rich.console import Console

    from checker.reporters import github, json_v1, summary, terminal

    if arguments.format == "json":
        sys.stdout.write(json_v1.render(run))
    else:
        terminal.render_table(run, Console(file=sys.stdout, highlight=False), verbose=arguments.verbose)
    sys.stdout.flush()
    if arguments.annotate():
        sys.stdout.write(github.render(run, os.environ.get("GITHUB_WORKSPACE")))
        target = os.environ.get("GITHUB_STEP_SUMMARY")
        if target:
            with open(target, "a", encoding="utf-8") as file:  # noqa: PTH123 - appending, as the runner asks
                file.write(summary.render(run))
    return run.exit_code


def warn(text: str) -> None:
    """One line on stderr, escaped."""
    from checker.reporters import escape

    sys.stderr.write(f"quant-verify: {escape.log(text)}\n")


def _stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False)
