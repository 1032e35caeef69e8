"""What changed between two runs of the same cells: a pure function of two ``RunResult``.

"Worse" (exit code 1) means that a cell which both reports hold has less to show for itself than before:

- a check failed that did not fail, or has a failing finding that it did not have (with ``--fail-on warn`` warnings
  count alike). Findings are the same when check, place and severity are; waived ones do not count;
- a check that had a verdict has none any more because it could not run. What is asked and not answered is worse; what
  is no longer asked (a check or a cell left out, a check that no longer applies) is told, and does not count;
- a figure moved beyond its own error bar in the bad direction by clearly more than noise, whether or not a check fails
  (``checker.comparison.measured`` has the bars).

A cell of the new report alone has nothing to be worse than, and its run has an exit code of its own.
"""

from __future__ import annotations

from checker.comparison.cells import compare
from checker.comparison.data import (
    CellChange,
    CheckChange,
    Comparison,
    Direction,
    FigureChange,
    FindingChange,
    Interval,
    Replaced,
    Status,
    TextChange,
)

__all__ = [
    "CellChange",
    "CheckChange",
    "Comparison",
    "Direction",
    "FigureChange",
    "FindingChange",
    "Interval",
    "Replaced",
    "Status",
    "TextChange",
    "compare",
]
