"""Running cells to a verdict: what ``run``, ``check`` and ``demo`` share."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from checker.board import Board, RunFacts
from checker.checkpoint.gguf_files import is_gguf
from checker.commands import outputs
from checker.commands.deliver import Said, at_least_unverified, deliver, warn
from checker.commands.options import RunArguments, split, worker_count
from checker.domain import Cell, ExitCode, RunResult, Waiver
from checker.environment import describe, visible_gpus
from checker.errors import MatrixError, Mistake, Unavailable, UsageError
from checker.provision import RunOptions
from checker.registry import selected_checks
from checker.runner import Runner, Update

if TYPE_CHECKING:
    from rich.console import Console

    from checker.reporters.progress import Progress


SCRATCH_SECONDS = 3.0  # for threads to tidy up after the reports are written


@dataclass(frozen=True, kw_only=True, slots=True)
class Suite:
    """The cells to judge and where they come from."""

    cells: tuple[Cell, ...]
    waivers: tuple[Waiver, ...] = ()
    matrix_path: str | None = None
    matrix_sha256: str | None = None
    references: Path | None = None  # the folder of recorded ones


def run_suite(suite: Suite, arguments: RunArguments) -> tuple[RunResult, ExitCode]:
    """Judge the cells that ``--only`` and ``--shard`` leave, with reports and progress as the arguments say.

    Shows the verdict and returns it with the exit code, which is that of the run unless a report could not be written.

    Raises:
        UsageError: a selection that matches nothing, an option that makes no sense.
    """
    from checker.reporters.progress import Progress

    board, runner = _prepare(suite, arguments)
    reports = Reports(arguments)

    def stop(code: ExitCode) -> None:
        board.interrupted = code
        runner.stop()

    with signals(stop):
        reports.write(board.result())  # the plan, so that a run killed at once leaves a list of what it meant to do
        with Progress(_stderr(), quiet=arguments.quiet, verbose=arguments.verbose) as progress:
            for update in runner:
                if _take_in(update, board, progress):
                    reports.write(board.result())
        tell_unused(() if arguments.partial or board.interrupted is not None else board.unused_waivers())
        run = board.result()
        reports.write(run)
        code = show(run, arguments)
        runner.wait(SCRATCH_SECONDS)
    return run, code if reports.failure is None else at_least_unverified(code)


def tell_unused(waivers: Iterable[Waiver]) -> None:
    """Say which waivers are of no use, each with its place in the matrix."""
    for waiver in waivers:
        place = f"{waiver.location.file}:{waiver.location.line}: " if waiver.location else ""
        warn(f"{place}the waiver of {waiver.check} on {waiver.cells} covers nothing; remove it")


def _prepare(suite: Suite, arguments: RunArguments) -> tuple[Board, Runner]:
    from checker.matrix.select import only, shard

    cells = only(suite.cells, split(arguments.only)) if arguments.only else suite.cells
    planned_ids = tuple(cell.id for cell in cells)
    numbers = arguments.shard_numbers()
    cells = shard(cells, *numbers) if numbers else cells
    if arguments.require_pinned:
        require_pinned(cells)
    require_folders(cells)
    planned = [(cell, checks_of(cell)) for cell in cells]
    gpus = visible_gpus()
    options = RunOptions(
        jobs=worker_count(arguments.jobs, gpus),
        gpus=gpus,
        offline=arguments.offline,
        trust_remote_code=arguments.trust_remote_code,
    )
    facts = RunFacts(
        environment=describe(),
        planned=planned_ids,
        matrix_path=suite.matrix_path,
        matrix_sha256=suite.matrix_sha256,
        shard=arguments.shard,
        fail_on=arguments.severity,
    )
    return Board(facts, planned, suite.waivers), Runner(planned, options, suite.references)


def _take_in(update: Update, board: Board, progress: Progress) -> bool:
    """Enter one update into board and progress; whether there is something new to report."""
    cell_id = update.cell_id
    if update.known is not None:
        board.update(cell_id, **update.known)
    elif update.retrying and update.died is not None:
        board.again(cell_id, f"tried twice, for the first attempt ended early: {update.died.message}")
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
    """The report files and outputs, rewritten as results arrive; what cannot be written does not stop the run.

    ``failure`` is why the latest state could not be written; the verdict still goes to stdout.
    """

    def __init__(self, arguments: RunArguments) -> None:
        self._folder = arguments.folder()
        self.failure: Unavailable | None = None

    def write(self, run: RunResult) -> None:
        """Write the reports of what is known now; only the first of several failures in a row is told."""
        failure = _failure(lambda: self._write_reports(run))
        failure = _failure(lambda: outputs.write_run(run, None if failure else self._folder)) or failure
        if failure is not None and self.failure is None:
            warn(str(failure))
        self.failure = failure

    def _write_reports(self, run: RunResult) -> None:
        from checker.reporters import write_reports

        if self._folder is not None:
            write_reports(run, self._folder)


def _failure(write: Callable[[], None]) -> Unavailable | None:
    try:
        write()
    except Unavailable as failure:
        return failure
    return None


@contextlib.contextmanager
def signals(stop: Callable[[ExitCode], None]) -> Iterator[None]:
    """The first SIGINT, SIGTERM or SIGHUP calls ``stop``; later ones find the reports being written, and do nothing.

    Nothing is raised: a signal may come at any line, also in the middle of a report. Nor are later ones set to be
    ignored, for Python prints a traceback when one is on its way at that moment.
    """
    codes = {
        signal.SIGINT: ExitCode.INTERRUPTED,
        signal.SIGTERM: ExitCode.TERMINATED,
        signal.SIGHUP: ExitCode.HANGUP,
    }

    first: list[int] = []

    def heard(number: int, _frame: FrameType | None) -> None:
        if not first:
            first.append(number)
            stop(codes[signal.Signals(number)])

    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # nohup
        del codes[signal.SIGHUP]
    before = {number: signal.getsignal(number) for number in codes}
    for number in before:
        signal.signal(number, heard)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def checks_of(cell: Cell) -> tuple[str, ...]:
    """Ids of the checks that a cell's settings select."""
    settings = cell.settings
    opted = ("--architecture",) if settings.architecture else ()
    return tuple(item.id for item in selected_checks(settings.depth, settings.select, settings.ignore, opted))


def require_folders(cells: Sequence[Cell]) -> None:
    """Refuse a run over folders that are not there, before anything is judged.

    Raises:
        MatrixError: names every such folder and its place.
    """
    in_image = os.environ.get("QUANT_VERIFY_IN_IMAGE") == "1"
    mounted = ", whether the container has that folder (docker run --volume)," if in_image else ","
    mistakes = [
        Mistake(
            f"the folder {ref.name} does not exist; check the path{mounted} or write hf:ORG/NAME for the Hub",
            cell.origin,
        )
        for cell in cells
        for ref in (cell.baseline, cell.checkpoint)
        if ref is not None and ref.kind == "folder" and not _is_there(ref.name)
    ]
    if mistakes:
        raise MatrixError(list(dict.fromkeys(mistakes)))


def _is_there(name: str) -> bool:
    """Whether a folder, or the GGUF file that a reference may name as well, is there."""
    return os.path.isdir(name) or (is_gguf(name) and os.path.isfile(name))  # noqa: PTH112, PTH113 - for any name


def require_pinned(cells: Sequence[Cell]) -> None:
    """Refuse a Hub reference whose revision is not a full commit: a branch or a tag can change under the verdict.

    Raises:
        UsageError: names the first such reference and its place.
    """
    for cell in cells:
        for ref in (cell.baseline, cell.checkpoint):
            if ref is not None and ref.kind == "hub" and not ref.pinned:
                place = f"{cell.origin.file}:{cell.origin.line}: " if cell.origin else ""
                raise UsageError(f"{place}{ref} is not pinned; --require-pinned wants a full commit after @")


def show(run: RunResult, arguments: RunArguments) -> ExitCode:
    """The verdict on stdout, annotations and step summary where a workflow wants them; returns the exit code."""

    def markdown() -> str:
        from checker.reporters import summary

        return summary.render(run)

    said = Said("verdict", lambda: _print(run, arguments), markdown)
    return deliver(run.exit_code, said, annotate=arguments.annotate())


def _print(run: RunResult, arguments: RunArguments) -> None:
    from rich.console import Console

    from checker.reporters import github, json_v1, terminal

    if arguments.format == "json":
        sys.stdout.write(json_v1.render(run).replace("##[", "##\\u005b"))  # the runner obeys it anywhere in a line
    else:
        terminal.render_table(run, Console(file=sys.stdout, highlight=False), verbose=arguments.verbose)
    if arguments.annotate():
        sys.stdout.write(github.render(run, os.environ.get("GITHUB_WORKSPACE")))
    sys.stdout.flush()


def _stderr() -> Console:
    from rich.console import Console

    class Stderr(Console):
        """A console whose reader may go away; rich would then end the process with 1, which reads as a failed check."""

        def on_broken_pipe(self) -> None:
            self.quiet = True

    # some runners give a step a terminal, but what is read there is a log
    in_workflow = os.environ.get("GITHUB_ACTIONS") == "true"
    return Stderr(stderr=True, highlight=False, force_interactive=False if in_workflow else None)
