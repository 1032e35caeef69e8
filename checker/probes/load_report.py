"""Why a checkpoint did not load, in one line, where the exception leaves it to a log or to many lines.

transformers writes what did not fit into a table in its log and raises "For details look at the above report!"
(transformers/utils/loading_report.py); the object behind that table is still in the exception's frames.
"""

from __future__ import annotations

import traceback
from typing import Any

LONGEST = 400


def explain(error: BaseException) -> str:
    """``Type: what is wrong, and with which tensor``, of bounded length; a library's own words where it says enough."""
    return f"{type(error).__name__}: {_reason(error)}"[:LONGEST]


def _reason(error: BaseException) -> str:
    info = next(
        (found for frame, _ in traceback.walk_tb(error.__traceback__) if (found := frame.f_locals.get("loading_info"))),
        None,
    )
    if mismatched := sorted(getattr(info, "mismatched_keys", None) or (), key=str):
        name, stored, wanted = mismatched[0]
        others = f" (and {len(mismatched) - 1} more)" if len(mismatched) > 1 else ""
        return f"{name} is {list(stored)} in the file and {list(wanted)} in the model{others}"
    if failed := sorted((getattr(info, "conversion_errors", None) or {}).items()):
        name, words = failed[0]
        others = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        return f"{name} cannot be converted{others}: {_last_line(words)}"
    if first := _first_of_many(error):
        return first
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1]) or "no message"


def _first_of_many(error: Any) -> str:
    """The first of the errors that a validation collects (pydantic): where it is and what it says."""
    try:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if "[" not in str(part))
        return f"{place}: {first['msg']}"
    except (AttributeError, IndexError, KeyError, TypeError):
        return ""


def _last_line(text: str) -> str:
    """What a traceback ends with."""
    lines = [line.strip() for line in str(text).splitlines() if line.strip()]
    return lines[-1] if lines else "no message"
