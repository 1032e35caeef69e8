"""``action``: what the GitHub Action runs in the image or on the runner: from its inputs to a command of ours.

Most inputs are the variables of options (``QUANT_VERIFY_DEPTH``), which the command reads by itself. What is left is
the choice of the command, and what stands on a command line without a name.
"""

from __future__ import annotations

import glob
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from checker.commands.deliver import warn
from checker.commands.outputs import write
from checker.config_values import did_you_mean
from checker.domain import Depth, ExitCode, Settings
from checker.errors import UsageError

COMMANDS = ("run", "check", "plan", "merge", "compare", "record")
OF_OPTIONS = (
    "baseline", "depth", "select", "ignore", "only", "shard", "device", "report-dir", "fail-on", "annotations",
    "offline",
)  # fmt: skip
REPORTS = "quant-verify-report"


def run_action(cli: click.Group, environment: Mapping[str, str]) -> ExitCode:
    """Run the command that the inputs in ``environment`` ask for, in this process; returns its exit code.

    Raises:
        UsageError: the inputs contradict each other, or one is missing.
    """
    write({})  # from here on the launcher knows that it is we who ran
    name, words = command_line(environment)
    command = cli.commands[name]
    try:
        context = command.make_context(f"quant-verify {name}", words)
    except click.exceptions.Exit:
        raise UsageError("the input args asks for help and not for a verdict; nothing was checked") from None
    known = {parameter.envvar for parameter in command.params}
    for item in OF_OPTIONS:
        if _given(environment, item) and _variable(item) not in known:
            warn(f"the input {item} has no effect on command {name}")
    with context:
        device = wanted_gpu(name, context.params, environment)
        if device is not None:
            _examine(device)
        code: ExitCode = command.invoke(context)
    return code


def command_line(environment: Mapping[str, str]) -> tuple[str, list[str]]:
    """The command, and the words after it that no variable carries.

    Raises:
        UsageError: an unknown command, or inputs that it needs or that exclude each other.
    """
    checkpoints = [line.strip() for line in environment.get("QUANT_VERIFY_CHECKPOINT", "").splitlines() if line.strip()]
    matrix = _given(environment, "matrix")
    name = _given(environment, "command") or ("check" if checkpoints else "run")
    if name not in COMMANDS:
        near = did_you_mean(name, COMMANDS)
        raise UsageError(f"the input command is {name!a}, which is none of {', '.join(COMMANDS)}{near}")
    if checkpoints and matrix:
        raise UsageError("the inputs checkpoint and matrix exclude each other; name the checkpoints in the matrix")
    if checkpoints and name != "check":
        raise UsageError(f"the input checkpoint is for command check, not for {name}; leave one of them out")
    words = _words(environment)
    if name == "check":
        if not checkpoints:
            raise UsageError("command check needs the input checkpoint: a folder (./model), a glob or a Hub id a line")
        folder = [] if _given(environment, "report-dir") else ["--report-dir", REPORTS]
        return name, [*folder, *words, "--", *checkpoints]
    if name == "compare":
        words = [*_expanded(name, words)]
    if name == "merge":
        words = [*([f"--matrix={matrix}"] if matrix else []), *_expanded(name, words, may_miss=bool(matrix))]
    return name, words


def wanted_gpu(name: str, options: Mapping[str, Any], environment: Mapping[str, str]) -> str | None:
    """The device that ``doctor`` should examine before the run; None where nothing is loaded, or no GPU is asked for.

    A GPU is asked for by the inputs, by a cell of the matrix, or by being there.
    """
    if name not in ("run", "check", "record") or options.get("depth") == Depth.STATIC:
        return None
    if name == "check" and options["depth"] is None:
        return None
    if name != "check" and all(settings.depth is Depth.STATIC for settings in _settings(options)):
        return None
    device: str | None = options["device"]
    if device is not None and device != "auto":
        return device if device.startswith("cuda") else None
    gpus = _given(environment, "gpus")
    if gpus == "none":
        return None
    return _by_matrix(() if name == "check" else _settings(options)) or _by_machine(asked=gpus not in ("", "auto"))


def _by_matrix(cells: Sequence[Settings]) -> str | None:
    loaded = [settings for settings in cells if settings.depth is not Depth.STATIC]
    devices = [settings.device for settings in loaded if settings.device.startswith("cuda")]
    several = any(settings.gpus > 1 and settings.device != "cpu" for settings in loaded)
    return devices[0] if devices else "cuda" if several else None


def _by_machine(*, asked: bool) -> str | None:
    from checker.environment import visible_gpus

    return "cuda" if asked else "auto" if visible_gpus() else None


def _settings(options: Mapping[str, Any]) -> tuple[Settings, ...]:
    """Those of every cell of the matrix that the options leave."""
    from checker.commands.options import split
    from checker.commands.run import arguments_of
    from checker.commands.vocabulary import vocabulary
    from checker.matrix import load_matrix
    from checker.matrix.select import only

    arguments = arguments_of(options)
    loaded = load_matrix(options["matrix"], vocabulary(), forced=arguments.forced())
    return tuple(cell.settings for cell in only(loaded.cells, split(arguments.only)))


def _examine(device: str) -> None:
    """``doctor``, folded away in the log of a workflow; what it misses becomes errors of the checks that need it."""
    from checker.commands.doctor import examine

    in_workflow = os.environ.get("GITHUB_ACTIONS") == "true"
    sys.stdout.write("::group::quant-verify doctor\n" if in_workflow else "")
    sys.stdout.flush()
    code = examine(device)
    sys.stdout.write("::endgroup::\n" if in_workflow else "\n")
    sys.stdout.flush()
    if code is not ExitCode.PASSED:
        warn("doctor found what does not work here, see its report above; checks that need it cannot be verified")


def _words(environment: Mapping[str, str]) -> list[str]:
    """The input ``args``, split as a shell does and nothing expanded.

    Raises:
        UsageError: a quote that is not closed.
    """
    try:
        return shlex.split(environment.get("QUANT_VERIFY_ARGS", ""))
    except ValueError as error:
        raise UsageError(f"the input args cannot be read: {str(error).lower()}") from None


def _expanded(name: str, words: Sequence[str], *, may_miss: bool = False) -> Iterator[str]:
    """Words with their globs expanded. With a matrix that says what there should be, reports ``may_miss``.

    Raises:
        UsageError: there is no word, or a glob matches nothing.
    """
    if not words:
        raise UsageError(f"command {name} needs the reports in the input args, such as jobs/*/report.json")
    option = ""  # the word before, if it waits for a value: of merge and compare, all but --verbose take one
    for word in words:
        before, option = option, word if word.startswith("--") and "=" not in word and word != "--verbose" else ""
        if before or word.startswith("-") or not glob.has_magic(word):
            yield word
            continue
        found = sorted(glob.glob(word, recursive=True))  # noqa: PTH207 - any path, absolute ones too
        if not found and not may_miss:
            raise UsageError(f"the input args: no file matches {word!a}")
        yield from found


def _given(environment: Mapping[str, str], name: str) -> str:
    return environment.get(_variable(name), "").strip()


def _variable(name: str) -> str:
    return "QUANT_VERIFY_" + name.replace("-", "_").upper()
