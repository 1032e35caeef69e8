"""``run`` and ``check``: from a matrix or from references to cells, and on to the suite."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from checker.commands.options import RunArguments
from checker.commands.reports import forget
from checker.commands.suite import Suite, run_suite
from checker.commands.vocabulary import vocabulary
from checker.domain import Cell, Depth, ExitCode, ModelRef, Settings
from checker.errors import UsageError
from checker.matrix import Matrix, load_matrix


def run_matrix(matrix: str, options: Mapping[str, Any]) -> ExitCode:
    """``quant-verify run``."""
    arguments = arguments_of(options)
    forget(arguments.folder())
    loaded = load_matrix(matrix, vocabulary(), forced=arguments.forced())
    return run_suite(suite_of(loaded), arguments)[1]


def suite_of(loaded: Matrix) -> Suite:
    """The cells of a matrix, with what the matrix says of the run as a whole."""
    return Suite(
        cells=loaded.cells,
        waivers=loaded.waivers,
        matrix_path=loaded.path,
        matrix_sha256=loaded.sha256,
        references=loaded.references,
    )


def run_checkpoints(checkpoints: tuple[str, ...], baseline: str | None, options: Mapping[str, Any]) -> ExitCode:
    """``quant-verify check``: one cell for each checkpoint, static unless told otherwise."""
    from checker.matrix.references import expand_checkpoints, parse_reference

    arguments = arguments_of(options)
    forget(arguments.folder())
    settings = Settings(**{"depth": Depth.STATIC, **arguments.forced()})  # type: ignore[arg-type]
    refs = list(dict.fromkeys(ref for text in checkpoints for ref in expand_checkpoints(text, Path())))
    origin = parse_reference(baseline, Path()) if baseline not in (None, "auto") else None
    names = Counter(_last_part(ref) for ref in refs)
    cells = []
    for ref in refs:
        base = _base_model(ref, offline=arguments.offline) if baseline == "auto" else origin
        name = _last_part(ref) if names[_last_part(ref)] == 1 else str(ref)
        cells.append(Cell(id=name, checkpoint=ref, baseline=base, settings=settings))
    return run_suite(Suite(cells=tuple(cells)), arguments)[1]


def arguments_of(options: Mapping[str, Any]) -> RunArguments:
    """The shared options as one value."""
    names = {item.name for item in fields(RunArguments)}
    return RunArguments(**{name: value for name, value in options.items() if name in names})


def _last_part(ref: ModelRef) -> str:
    from checker.matrix.references import last_part

    return last_part(ref)


def _base_model(ref: ModelRef, *, offline: bool) -> ModelRef:
    """The baseline that a checkpoint's model card names, said on stderr.

    A folder's card may name a folder. A card on the Hub may not: who uploads it must not choose what is opened here.

    Raises:
        UsageError: there is no card, or it names none that can be used.
        Unavailable: the Hub does not deliver it.
    """
    from checker.checkpoint.card import base_model
    from checker.checkpoint.problem import shown
    from checker.commands.deliver import warn
    from checker.matrix.references import parse_reference

    found = base_model(ref, offline=offline)
    folder = ref.kind == "folder" and found.name.startswith(("./", "../", "/", "dir:"))
    try:
        baseline = parse_reference(found.name if folder else f"hf:{found.name.removeprefix('hf:')}", Path())
    except UsageError as error:
        raise UsageError(f"--baseline auto: the model card of {ref} names no usable base_model: {error}") from None
    warn(f"baseline of {ref} by its model card: {shown(str(baseline))}{found.remark}")
    return baseline
