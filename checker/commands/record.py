"""``record``: references of a matrix's baselines, texts of its quantized models, and costs, into the repository."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from checker import costs
from checker.commands.deliver import at_least_unverified
from checker.commands.options import RunArguments, split
from checker.commands.run import arguments_of, suite_of
from checker.commands.suite import require_folders, run_suite
from checker.commands.vocabulary import vocabulary
from checker.domain import Cell, CellResult, Depth, ExitCode, Json, ModelRef, Outcome, RunResult
from checker.environment import package_versions, visible_gpus
from checker.errors import Unavailable, UsageError
from checker.matrix import load_matrix
from checker.matrix.select import only
from checker.provision import RunOptions
from checker.references import KNOWN_GOOD, name_of, names_of, prompts_of
from checker.reporters import figures
from checker.runner import Runner

Asked = tuple[tuple[str, bool, int], ...]

KNOWN_GOOD_CHECK = "outputs.known-good"  # a text that differs from those recorded before is added to them
KERNELS = ("torch", "transformers", "bitsandbytes", "accelerate")  # packages on which a text depends


@dataclass(frozen=True, kw_only=True, slots=True)
class _Recorder:
    """Where things go, and who is told."""

    folder: Path
    arguments: RunArguments

    def say(self, text: str) -> None:
        from checker.reporters import escape

        if not self.arguments.quiet:
            sys.stderr.write(f"quant-verify: {escape.log(text)}\n")
            sys.stderr.flush()


def record_matrix(matrix: str, options: Mapping[str, Any]) -> ExitCode:
    """``quant-verify record``: exit 1 when a model is not in order, 3 when a reference could not be made.

    Raises:
        UsageError: the matrix names no folder for references, or one that cannot be written.
    """
    arguments = arguments_of(options)
    loaded = load_matrix(matrix, vocabulary(), forced=arguments.forced())
    if loaded.references is None:
        raise UsageError(f"{loaded.path} names no folder to record into; add a line 'references: ./references' to it")
    _require_writable(loaded.references, loaded.path)
    recorder = _Recorder(folder=loaded.references, arguments=arguments)
    chosen = only(loaded.cells, split(arguments.only)) if arguments.only else loaded.cells
    deep = tuple(cell for cell in chosen if cell.settings.depth is Depth.FULL)
    if len(deep) < len(chosen):
        recorder.say(f"{figures.plural(len(chosen) - len(deep), 'cell')} not of depth full: nothing to record")
    require_folders(deep)
    written, failed = _record_references(loaded.cells, deep, recorder)
    suite = replace(suite_of(loaded), cells=deep)
    part = () if len(deep) == len(loaded.cells) else tuple(cell.id for cell in deep)
    run, code = run_suite(suite, replace(arguments, only=part))
    if run.interrupted is not None:
        return code
    kept = _record_texts(run, recorder)
    _record_costs(run, recorder)
    recorder.say(f"{figures.plural(written, 'reference')} and {figures.plural(kept, 'text')} in {recorder.folder}")
    if not failed and all(_is_good(cell) for cell in run.cells) and code is ExitCode.FAILED:
        return ExitCode.PASSED  # only texts that were recorded otherwise before, and are known now
    return at_least_unverified(code) if failed else code


def _require_writable(folder: Path, matrix: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".quant-verify"
        probe.touch()
        probe.unlink()
    except OSError as error:
        message = f"{matrix}: references: {folder} cannot be written ({error.strerror}); name another folder"
        raise UsageError(message) from None


def _record_references(cells: Sequence[Cell], chosen: Sequence[Cell], recorder: _Recorder) -> tuple[int, int]:
    """Make the reference of every baseline, for every set of prompts; returns how many were made, and how many not."""
    arguments, failed = recorder.arguments, 0
    options = RunOptions(gpus=visible_gpus(), offline=arguments.offline, trust_remote_code=arguments.trust_remote_code)
    targets = list(_targets(cells, chosen, recorder.folder))
    runner = Runner([], options)
    try:
        for number, (cell, target, obsolete) in enumerate(targets, 1):
            recorder.say(f"{number} of {len(targets)}: running {cell.baseline}")
            try:
                runner.record(cell, target)
            except Unavailable as reason:
                failed += 1
                place = f"{cell.origin.file}:{cell.origin.line}: " if cell.origin else ""
                recorder.say(f"{place}no reference of {cell.baseline}: {reason}")
            else:
                if obsolete != target:
                    obsolete.unlink(missing_ok=True)  # it would be found first
                recorder.say(f"wrote {target} ({figures.size(target.stat().st_size)})")
    except KeyboardInterrupt:
        recorder.say("interrupted; the reference in the making was not written")
        raise
    finally:
        runner.close()
    return len(targets) - failed, failed


def _targets(cells: Sequence[Cell], chosen: Sequence[Cell], folder: Path) -> Iterator[tuple[Cell, Path, Path]]:
    """One cell for each reference to make, its file, and the file it may have had in an earlier state of the matrix.

    The first set of prompts of a baseline gets the plain name, every other one a name with its digest. Names follow
    from all cells of depth full, whichever were chosen, so that a part of the matrix can be recorded.

    Raises:
        UsageError: two baselines would be recorded under one name.
    """
    wanted = {(cell.baseline, _asked(cell)) for cell in chosen}
    seen: dict[Path, tuple[ModelRef, set[Asked]]] = {}
    for cell in cells:
        if cell.baseline is None or cell.settings.depth is not Depth.FULL:
            continue
        special, plain = names_of(folder, cell)
        baseline, sets = seen.setdefault(plain, (cell.baseline, set()))
        if baseline != cell.baseline:
            message = f"two baselines are called {name_of(baseline)}: {baseline} and {cell.baseline}"
            raise UsageError(f"{message}; rename a folder, or split the matrix")
        asked = _asked(cell)
        if asked not in sets and (cell.baseline, asked) in wanted:
            yield cell, special if sets else plain, special
        sets.add(asked)


def _asked(cell: Cell) -> Asked:
    """What a cell's models continue, without what they may answer."""
    return tuple((prompt.text, prompt.chat, prompt.max_new_tokens) for prompt in prompts_of(cell))


def _record_texts(run: RunResult, recorder: _Recorder) -> int:
    """Add the texts of every model that is in order; returns how many were new."""
    from checker.facts import KnownText
    from checker.known_good import add

    count, versions = 0, package_versions()
    for cell in run.cells:
        if not _is_good(cell):
            recorder.say(f"{cell.cell.id}: no text was recorded, for the model is not in order; see above")
            continue
        known = [
            KnownText(
                prompt=text["prompt"],
                chat=bool(text["chat"]),
                text=text["text"],
                tokens=tuple(text["tokens"]),
                device=(cell.device or "cpu").partition(":")[0],
                versions={name: versions[name] for name in KERNELS if name in versions},
            )
            for text in _texts(cell)
            if text["text"] and text["tokens"]
        ]
        count += add(recorder.folder / KNOWN_GOOD, cell.cell.id, known)
    return count


def _record_costs(run: RunResult, recorder: _Recorder) -> None:
    """What every cell took, for ``plan``; what is there of other cells stays."""
    path = recorder.folder / costs.FILE
    known: dict[str, float] | None = None
    try:
        known = costs.read(path)
    except Unavailable as reason:
        recorder.say(f"{reason}; it is written anew")
    seconds = costs.updated(known or {}, run.cells)
    if seconds != known:
        costs.write(path, seconds)


def _texts(cell: CellResult) -> list[dict[str, Json]]:
    """What the cell's model wrote."""
    found = cell.measurements.get("texts")
    return found if isinstance(found, list) else []


def _is_good(cell: CellResult) -> bool:
    """Whether nothing is wrong with a model, or only that it writes otherwise than recorded, but as is accepted."""
    wrong = [check for check in cell.checks if check.outcome in (Outcome.FAIL, Outcome.ERROR)]
    refused = any(text["accepted"] is False and text.get("asked") for text in _texts(cell))
    return not refused and all(check.id == KNOWN_GOOD_CHECK and check.error is None for check in wrong)
