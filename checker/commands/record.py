"""``record``: the references of a matrix's baselines, and the texts of its quantized models, into the repository."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from checker.commands.options import RunArguments, split
from checker.commands.run import arguments_of, suite_of
from checker.commands.suite import require_folders, run_suite
from checker.commands.vocabulary import vocabulary
from checker.domain import Cell, CellResult, Depth, ExitCode, ModelRef, Outcome, RunResult
from checker.environment import package_versions, visible_gpus
from checker.errors import UsageError
from checker.matrix import load_matrix
from checker.matrix.select import only
from checker.provision import RunOptions
from checker.references import KNOWN_GOOD, name_of, names_of, prompts_of
from checker.reporters import figures
from checker.runner import Runner

Asked = tuple[tuple[str, bool, int], ...]

JUDGED = ("outputs.*",)
FORGIVEN = "outputs.known-good"  # what is recorded now replaces what was expected


def record_matrix(matrix: str, options: Mapping[str, Any]) -> ExitCode:
    """``quant-verify record``.

    Raises:
        UsageError: the matrix names no folder for references.
    """
    arguments = arguments_of({**options, "depth": "full", "select": JUDGED})
    loaded = load_matrix(matrix, vocabulary(), forced=arguments.forced())
    if loaded.references is None:
        raise UsageError(f"{loaded.path} names no folder to record into; add a line 'references: ./references' to it")
    cells = only(loaded.cells, split(arguments.only)) if arguments.only else loaded.cells
    require_folders(cells)
    written = _record_references(cells, loaded.references, arguments)
    run, code = run_suite(suite_of(loaded), arguments)
    if run.interrupted is not None:
        return code
    kept = _record_texts(run, loaded.references)
    _say(f"{figures.plural(written, 'reference')} and {figures.plural(kept, 'text')} in {loaded.references}")
    return code


def _record_references(cells: Sequence[Cell], folder: Path, arguments: RunArguments) -> int:
    """Make the reference of every baseline, for every set of prompts; returns how many there are.

    Raises:
        Unavailable: one could not be made.
    """
    options = RunOptions(gpus=visible_gpus(), offline=arguments.offline, trust_remote_code=arguments.trust_remote_code)
    targets = list(_targets(cells, folder))
    runner = Runner([], options)
    try:
        for number, (cell, target) in enumerate(targets, 1):
            _say(f"{number} of {len(targets)}: running {cell.baseline}")
            runner.record(cell, target)
            _say(f"wrote {target} ({figures.size(target.stat().st_size)})")
    finally:
        runner.close()
    return len(targets)


def _targets(cells: Sequence[Cell], folder: Path) -> Iterator[tuple[Cell, Path]]:
    """One cell for each reference to make, and the file: the first set of prompts of a baseline gets the plain name.

    Raises:
        UsageError: two baselines would be recorded under one name.
    """
    seen: dict[Path, tuple[ModelRef, set[Asked]]] = {}
    for cell in cells:
        if cell.baseline is None:
            continue
        special, plain = names_of(folder, cell)
        baseline, sets = seen.setdefault(plain, (cell.baseline, set()))
        if baseline != cell.baseline:
            raise UsageError(f"two baselines are called {name_of(baseline)}; rename a folder, or split the matrix")
        if (asked := _asked(cell)) not in sets:
            special.unlink(missing_ok=True)  # of an earlier state of the matrix
            yield cell, special if sets else plain
            sets.add(asked)


def _asked(cell: Cell) -> Asked:
    """What a cell's models continue, without what they may answer."""
    return tuple((prompt.text, prompt.chat, prompt.max_new_tokens) for prompt in prompts_of(cell))


def _record_texts(run: RunResult, folder: Path) -> int:
    """Add the texts of every model that does not fail; returns how many there were."""
    from checker.facts import KnownText
    from checker.known_good import add

    count, versions = 0, package_versions()
    for cell in run.cells:
        texts = cell.measurements.get("texts")
        if not isinstance(texts, list) or not _is_good(cell):
            if cell.cell.settings.depth is Depth.FULL:
                _say(f"{cell.cell.id}: no text was recorded, for the model is not in order; see above")
            continue
        known = [
            KnownText(
                prompt=text["prompt"],
                chat=bool(text.get("chat")),
                text=text["text"],
                tokens=tuple(text["tokens"]),
                device=(cell.device or "cpu").partition(":")[0],
                versions={name: versions[name] for name in ("torch", "transformers") if name in versions},
            )
            for text in texts
            if text.get("text") is not None and text.get("tokens")
        ]
        add(folder / KNOWN_GOOD, cell.cell.id, known)
        count += len(known)
    return count


def _is_good(cell: CellResult) -> bool:
    return not any(check.outcome in (Outcome.FAIL, Outcome.ERROR) and check.id != FORGIVEN for check in cell.checks)


def _say(text: str) -> None:
    from checker.reporters import escape

    sys.stderr.write(f"quant-verify: {escape.log(text)}\n")
