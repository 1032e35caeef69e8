"""``run`` and ``check``: from a matrix or from references to cells, and on to the suite."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from checker.commands.options import RunArguments
from checker.commands.suite import Suite, run_suite
from checker.commands.vocabulary import vocabulary
from checker.domain import Cell, Depth, ExitCode, ModelRef, Settings
from checker.errors import UsageError
from checker.matrix import load_matrix


def run_matrix(matrix: str, options: Mapping[str, Any]) -> ExitCode:
    """``quant-verify run``."""
    arguments = arguments_of(options)
    loaded = load_matrix(matrix, vocabulary(), forced=arguments.forced())
    suite = Suite(
        cells=loaded.cells, waivers=loaded.waivers, matrix_path=loaded.path, matrix_sha256=loaded.sha256
    )  # fmt: skip
    return run_suite(suite, arguments)[1]


def run_checkpoints(checkpoints: tuple[str, ...], baseline: str | None, options: Mapping[str, Any]) -> ExitCode:
    """``quant-verify check``: one cell for each checkpoint, static unless told otherwise."""
    from checker.matrix.references import expand_checkpoints, parse_reference

    arguments = arguments_of(options)
    settings = Settings(**{"depth": Depth.STATIC, **arguments.forced()})  # type: ignore[arg-type]
    refs = list(dict.fromkeys(ref for text in checkpoints for ref in expand_checkpoints(text, Path())))
    origin = parse_reference(baseline, Path()) if baseline not in (None, "auto") else None
    names = Counter(_last_part(ref) for ref in refs)
    cells = []
    for ref in refs:
        base = _base_model(ref) if baseline == "auto" else origin
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


def _base_model(ref: ModelRef) -> ModelRef:
    """The ``base_model`` of a checkpoint's model card (the YAML head of its README.md).

    Raises:
        UsageError: there is no card, or it names none or several.
    """
    import huggingface_hub

    card = Path(ref.name) / "README.md" if ref.kind == "folder" else ref.name
    if isinstance(card, Path) and not card.is_file():
        raise UsageError(f"--baseline auto: {card} does not exist; name the baseline")
    named = huggingface_hub.ModelCard.load(card).data.to_dict().get("base_model")
    names = [named] if isinstance(named, str) else named if isinstance(named, list) else []
    if len(names) != 1:
        raise UsageError(f"--baseline auto: the model card of {ref} names {len(names)} base models; name the baseline")
    from checker.matrix.references import parse_reference

    sys.stderr.write(f"quant-verify: baseline of {ref} by its model card: {names[0]}\n")
    return parse_reference(str(names[0]), Path())
