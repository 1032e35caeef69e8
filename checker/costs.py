"""How long each cell took when it was recorded, for ``plan`` to balance jobs by.

``costs.json`` in the folder of references. ``record`` writes it, because it runs every cell, and pull requests show its
changes: ids are sorted, one stands on a line, and a time that is about what it was stays as it is written. No verdict
depends on it, so a file that cannot be read costs a warning and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from checker.atomic import replacing
from checker.domain import CellResult, Json
from checker.errors import Unavailable

FILE = "costs.json"
SCHEMA = "quant-verify/costs/1"
LARGEST_FILE = 4 << 20  # bytes
LONGEST = 1e7  # seconds, four months
SAME_SHARE, SAME_SECONDS = 0.25, 1.0  # a time that moved by less is what it was
_WHOLE = 10  # seconds from which on two digits have no decimals


def read(path: Path) -> dict[str, float]:
    """The recorded seconds by cell id; none where there is no file.

    Raises:
        Unavailable: the file cannot be read or is not what it should be; names it and the reason.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _unusable(path, (error.strerror or type(error).__name__).lower()) from None
    if len(raw) > LARGEST_FILE:
        raise _unusable(path, f"it has more than {LARGEST_FILE:,} bytes")
    try:
        document = json.loads(raw.decode(), object_pairs_hook=_object)
    except (ValueError, RecursionError):
        raise _unusable(path, "it is not JSON, or a key stands twice in it") from None
    if not isinstance(document, dict) or document.keys() != {"schema", "seconds"} or document["schema"] != SCHEMA:
        raise _unusable(path, f"it does not have the schema {SCHEMA}")
    seconds = document["seconds"]
    if not isinstance(seconds, dict) or not all(map(_is_time, seconds.values())):
        raise _unusable(path, "its 'seconds' are not a positive number for each cell")
    return {**seconds}


def updated(known: Mapping[str, float], cells: Iterable[CellResult]) -> dict[str, float]:
    """The recorded seconds with those of cells that have just run, to two digits.

    A cell that was tried twice, or of which something could not be verified, does not tell what it costs.
    """
    fresh = {}
    for cell in cells:
        told = cell.attempts == 1 and cell.seconds > 0 and all(check.error is None for check in cell.checks)
        if told and not _is_same(known.get(cell.cell.id), cell.seconds):
            fresh[cell.cell.id] = _rounded(min(cell.seconds, LONGEST))
    return {**known, **fresh}


def write(path: Path, seconds: Mapping[str, float]) -> None:
    """Write the file.

    Raises:
        Unavailable: it cannot be written.
    """
    text = json.dumps({"schema": SCHEMA, "seconds": dict(sorted(seconds.items()))}, indent=1, allow_nan=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(f"{text}\n", encoding="utf-8", newline="\n")
    except OSError as error:
        raise Unavailable(f"cannot write {path}: {error.strerror or error}") from error


def _is_same(before: float | None, now: float) -> bool:
    return before is not None and abs(now - before) <= max(SAME_SECONDS, SAME_SHARE * before)


def _rounded(seconds: float) -> float:
    rounded = float(f"{seconds:.2g}")
    return int(rounded) if rounded >= _WHOLE else rounded


def _is_time(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= LONGEST


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key stands twice")
    return table


def _unusable(path: Path, reason: str) -> Unavailable:
    return Unavailable(f"the recorded costs in {path} cannot be used: {reason}")
