"""``explain`` and ``methods``: the catalogues, straight from the docstrings, so that they cannot go stale."""

from __future__ import annotations

import shutil
import sys
import textwrap

from checker.config_values import did_you_mean
from checker.domain import ExitCode
from checker.errors import UsageError
from checker.registry import Check, Method, all_checks, all_methods


def explain_checks(check_id: str | None) -> ExitCode:
    """The table of checks, or the documentation of one."""
    checks = all_checks()
    if check_id is None:
        width = max(len(item.id) for item in checks)
        lines = [line for item in checks for line in _row(item, width)]
        sys.stdout.write(
            "\n".join(
                [
                    *lines,
                    "",
                    "*: only when its option asks for it. quant-verify explain ID says more about one of them.",
                    "",
                ]
            )
        )
        return ExitCode.PASSED
    found = next((item for item in checks if item.id == check_id), None)
    if found is None:
        near = did_you_mean(check_id, [item.id for item in checks])
        raise UsageError(f"no check is called {check_id!r}{near}; quant-verify explain lists them")
    asked = f", with {found.opt_in}" if found.opt_in else ""
    sys.stdout.write(f"{found.id} (depth {found.depth}{asked})\n\n{found.documentation}\n{_limits(found)}")
    return ExitCode.PASSED


def _row(item: Check, width: int) -> list[str]:
    """Id, depth and summary, the summary folded to the width of the terminal."""
    depth = f"{item.depth}*" if item.opt_in else item.depth
    head = f"{item.id:<{width}}  {depth:<7}  "
    room = max(shutil.get_terminal_size((100, 24)).columns - len(head), 40)
    first, *rest = textwrap.wrap(item.summary.replace("``", ""), room) or [""]
    return [head + first, *(" " * len(head) + line for line in rest)]


def _limits(item: Check) -> str:
    rows = []
    for metric, limit in item.limits.items():
        named = (("warn", limit.warn), ("fail", limit.fail))
        bars = [f"{name} {value:g}" for name, value in named if value is not None]
        rows.append(f"  {item.id}.{metric}: {', '.join(bars) or 'by bits and model size, see above'}")
    return "\nDefault limits:\n" + "\n".join(rows) + "\n" if rows else ""


def list_methods(method_id: str | None) -> ExitCode:
    """The table of methods, or the documentation of one."""
    methods = all_methods()
    if method_id is None:
        sys.stdout.write(method_table(methods))
        return ExitCode.PASSED
    found = next((item for item in methods if item.id == method_id), None)
    if found is None:
        near = did_you_mean(method_id, [item.id for item in methods])
        raise UsageError(f"no method is called {method_id!r}{near}; quant-verify methods lists them")
    sys.stdout.write(f"{found.id} (quant_method: {found.quant_method})\n\n{found.documentation}\nConfig keys:\n")
    sys.stdout.write("".join(f"  {key}\n" for key in found.keys))
    return ExitCode.PASSED


def method_table(methods: tuple[Method, ...]) -> str:
    """Markdown table: what can be done with each method.

    decode: stored numbers become values, to be compared with the baseline's. load: the modules of a loaded model are
    inspected as well. A layout "from documentation" was tested on files that no tool of the method itself had made.
    """
    rows = ["| method | recognise | structure | decode | load here |", "|---|---|---|---|---|"]
    for item in methods:
        structure = "layout from documentation" if item.from_documentation else "yes"
        decode = "yes" if item.decode is not None else "no"
        load = "modules" if item.inspect_module is not None else "keys only"
        load += ", quantizes" if item.quantizes_here else ""
        rows.append(f"| {item.id} | yes | {structure} | {decode} | {load} |")
    return "\n".join(rows) + "\n"
