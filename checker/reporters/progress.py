"""What is going on, on stderr: a live display on a terminal, one line per check elsewhere.

Cells may run side by side, but the lines of one cell stay together: the cell that started first writes as it goes,
the others wait for their turn.
"""

from __future__ import annotations

import time
import typing
from types import TracebackType

from checker.domain import CellResult, CheckResult, Outcome
from checker.reporters import figures
from checker.reporters.escape import shorten, terminal
from checker.reporters.terminal import STYLES, WORDS, counts, encodable, words

if typing.TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.text import Text

_ID_WIDTH = 22  # of most check ids, so that the columns line up
_LINE_LIMIT = 160


class Progress:
    """Told of every event of a run, in any order across cells; a context manager, so that the display always ends.

    ``quiet`` shows nothing. ``verbose`` shows every finding, and on a terminal every check too.
    """

    def __init__(
        self, console: Console, *, total: int | None = None, quiet: bool = False, verbose: bool = False
    ) -> None:
        self._console = console
        self._total = total
        self._quiet = quiet
        self._verbose = verbose
        # FORCE_COLOR makes rich take a CI log for a terminal, so the stream is asked as well
        self._interactive = console.is_interactive and console.file.isatty()
        self._grouped = verbose or not self._interactive  # else only verdicts are written, above the live display
        self._outcomes: list[Outcome] = []
        self._running: dict[str, tuple[float, str]] = {}  # cell id: when it started, the check it is in
        self._queue: dict[str, list[Text]] = {}  # lines by cell in the order they started; the first writes at once
        self._finished: set[str] = set()
        self._live: Live | None = None

    def __enter__(self) -> typing.Self:
        """Start the live display where there is a terminal to show it."""
        if self._interactive and not self._quiet:
            from rich.live import Live
            from rich.spinner import Spinner

            spinner = Spinner("dots" if self._console.encoding.startswith("utf") else "line", style="cyan")
            self._live = Live(
                console=self._console,
                get_renderable=lambda: self._display(spinner),
                transient=True,
                refresh_per_second=8,
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the display away and write what still waits for its turn."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._finished.update(self._queue)
        self._drain()

    def cell_started(self, cell_id: str) -> None:
        """A worker took the cell up."""
        self._running[cell_id] = (time.monotonic(), "")
        if self._grouped:
            self._write(cell_id, words((terminal(cell_id), "bold")))

    def check_started(self, cell_id: str, check_id: str) -> None:
        """The cell is in this check now."""
        started, _ = self._running.get(cell_id, (time.monotonic(), ""))
        self._running[cell_id] = (started, check_id)

    def check_finished(self, cell_id: str, check: CheckResult) -> None:
        """The check has an outcome."""
        if not self._grouped:
            return
        tag = (f"  {WORDS[check.outcome]:<7}", STYLES[check.outcome])
        spent = "" if check.outcome is Outcome.SKIP else figures.duration(check.seconds)
        line = f"{terminal(check.id):<{_ID_WIDTH}} {spent:>7}"
        remarks = _remarks(check)
        if self._verbose and len(remarks) > 1:
            self._write(cell_id, words(tag, line))
            for remark in remarks:
                self._write(cell_id, words(f"         {terminal(remark)}"))
            return
        remark = shorten(terminal(remarks[0]), _LINE_LIMIT) if remarks else ""
        more = f" (and {len(remarks) - 1} more)" if len(remarks) > 1 else ""
        self._write(cell_id, words(tag, f"{line}  {remark}{more}".rstrip()))

    def cell_finished(self, result: CellResult) -> None:
        """The cell has a verdict, and hands its turn on."""
        cell_id = result.cell.id
        self._running.pop(cell_id, None)
        self._outcomes.append(result.outcome)
        verdict = (f"{WORDS[result.outcome]:<7}", STYLES[result.outcome])
        tail = f"{counts(result)} in {figures.duration(result.seconds)}" if result.checks else "no checks"
        if self._grouped:
            self._write(cell_id, words("  ", verdict, (tail, "dim"), "\n"))
        else:
            self._write(cell_id, words(verdict, f"{terminal(cell_id)}  ", (tail, "dim")))
        self._finished.add(cell_id)
        self._drain()

    def note(self, cell_id: str, text: str) -> None:
        """Something worth a line that is no check: a download, a second attempt."""
        name = "" if self._grouped else f"{terminal(cell_id)}: "
        self._write(cell_id, words((f"{'  ' if self._grouped else ''}{'note':<7}{name}{terminal(text)}", "dim")))

    def _write(self, cell_id: str, line: Text) -> None:
        if self._quiet:
            return
        if self._grouped:
            self._queue.setdefault(cell_id, []).append(line)
            self._drain()
        else:
            self._print(line)

    def _drain(self) -> None:
        """Write the lines of the cell whose turn it is, and of those behind it as long as they are finished."""
        while self._queue:
            cell_id, lines = next(iter(self._queue.items()))
            for line in lines:
                self._print(line)
            lines.clear()
            if cell_id not in self._finished:
                return
            del self._queue[cell_id]

    def _print(self, line: Text) -> None:
        line.plain = encodable(self._console, line.plain)
        self._console.print(line, soft_wrap=True, highlight=False)

    def _display(self, spinner: RenderableType) -> RenderableType:
        from rich.console import Group
        from rich.table import Table

        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=1)
        grid.add_column(no_wrap=True, overflow="ellipsis")
        grid.add_column(no_wrap=True, overflow="ellipsis", style="cyan")
        grid.add_column(justify="right", no_wrap=True, style="dim")
        now = time.monotonic()
        for cell_id, (started, check_id) in list(self._running.items()):
            grid.add_row(spinner, words(terminal(cell_id)), words(terminal(check_id)), figures.duration(now - started))
        total = "" if self._total is None else f" of {self._total}"
        failed = sum(outcome in {Outcome.FAIL, Outcome.ERROR} for outcome in self._outcomes)
        tail = f", {failed} not passed" if failed else ""
        return Group(grid, words((f"  {len(self._outcomes)}{total} cells done{tail}", "dim")))


def _remarks(check: CheckResult) -> list[str]:
    """Why a check is not a pass, the most important reason first."""
    remarks = []
    if check.error is not None:
        remarks.append(f"{check.error.kind.value}: {check.error.message}")
    if check.skip_reason is not None:
        remarks.append(check.skip_reason)
    for finding in figures.ranked(check.findings):
        waived = "waived: " if finding.waived is not None else ""
        remarks.append(waived + figures.sentence(finding))
    return remarks
