"""The commands: parse, build, run, exit. What they do stands in ``checker.commands``, imported by the one that runs."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from checker import __version__
from checker.commands import hidden
from checker.domain import Depth, ExitCode
from checker.errors import MatrixError, Unavailable, UsageError

F = TypeVar("F", bound=Callable[..., Any])
MATRIX = "quant-verify.yml"
WHEN = ["auto", "always", "never"]  # auto: inside a GitHub workflow
WEIGHTS = ["auto", "sampled", "full", "off"]
DEPTHS = [depth.value for depth in Depth]
MAX_JOBS = 256  # of one workflow matrix


def option(name: str, **settings: Any) -> Callable[[F], F]:
    """A click option with its environment variable: ``--report-dir`` is ``QUANT_VERIFY_REPORT_DIR``."""
    variable = "QUANT_VERIFY_" + name.removeprefix("--").replace("-", "_").upper()
    return click.option(name, envvar=variable, show_envvar=True, **settings)


def run_options(function: F) -> F:
    """The options that ``run`` and ``check`` share; they reach the command as one dictionary."""
    for decorate in reversed(
        (
            option("--depth", type=click.Choice(DEPTHS), help="Files only; also load; also run and save."),
            option("--select", multiple=True, metavar="CHECK", help="Only these checks: globs, comma lists."),
            option("--ignore", multiple=True, metavar="CHECK", help="Not these checks: globs, comma lists."),
            option("--only", multiple=True, metavar="CELL", help="Only these cells: globs, comma lists."),
            option("--shard", metavar="I/N", help="The I-th of N parts of the cells."),
            option("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:N."),
            option("--jobs", default="auto", metavar="N|auto", help="Cells at a time; auto: one for each GPU."),
            option("--timeout", type=click.FloatRange(min=1), metavar="SECONDS", help="Limit of a cell."),
            option("--offline", is_flag=True, help="Nothing is fetched; what is not cached is an error."),
            option("--trust-remote-code", is_flag=True, help="For models whose matrix entry allows it as well."),
            option("--weights", type=click.Choice(WEIGHTS), help="auto: all of up to a billion."),
            option("--architecture", is_flag=True, help="Compare tensors with the module tree; needs torch."),
            option("--require-pinned", is_flag=True, help="Every Hub revision must be a full commit."),
            option("--report-dir", metavar="DIR", help="Where the four report files go."),
            option("--fail-on", type=click.Choice(["fail", "warn"]), default="fail", help="What makes it exit 1."),
            option("--annotations", type=click.Choice(WHEN), default="auto", help="Annotations, step summary."),
            option("--format", type=click.Choice(["text", "json"]), default="text", help="What goes to stdout."),
            option("--quiet", is_flag=True, help="No progress."),
            option("--verbose", is_flag=True, help="Tracebacks, passed checks, every finding."),
        )
    ):  # fmt: skip
        function = decorate(function)
    return function


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="quant-verify")
def cli() -> None:
    """Is this model really quantized, as declared, and does it still behave?

    Exit code: 0 all passed, 1 a check failed, 2 wrong usage, 3 something could not be verified, 4 nothing was checked.
    """


cli.add_command(hidden.action)
cli.add_command(hidden.comment)


@cli.command(short_help="Run the suite over a matrix of models.")
@click.argument("matrix", default=MATRIX, envvar="QUANT_VERIFY_MATRIX")
@run_options
def run(matrix: str, **options: Any) -> ExitCode:
    """Run the suite over MATRIX (quant-verify.yml)."""
    if options["depth"] != "static":
        from checker.process import start_ahead

        start_ahead(preload=True)
    from checker.commands.run import run_matrix

    options["report_dir"] = options["report_dir"] or "quant-verify-report"
    return run_matrix(matrix, options)


@cli.command(short_help="Judge checkpoints without a matrix.")
@click.argument("checkpoints", nargs=-1, required=True, metavar="CHECKPOINT...")
@option("--baseline", metavar="REF|auto", help="The full-precision model; auto: the model card's base_model.")
@run_options
def check(checkpoints: tuple[str, ...], baseline: str | None, **options: Any) -> ExitCode:
    """Judge checkpoints without a matrix: folders (./model), globs, or Hub ids.

    At its default depth, static, neither torch nor a GPU is needed.
    """
    from checker.process import start_ahead

    start_ahead(preload=options["depth"] not in (None, "static"))
    from checker.commands.run import run_checkpoints

    return run_checkpoints(checkpoints, baseline, options)


@cli.command(short_help="Write references: baseline outputs, known-good texts.")
@click.argument("matrix", default=MATRIX, envvar="QUANT_VERIFY_MATRIX")
@option("--only", multiple=True, metavar="CELL", help="Only these cells: globs, comma lists.")
@option("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:N.")
@option("--offline", is_flag=True, help="Nothing is fetched; what is not cached is an error.")
@option("--trust-remote-code", is_flag=True, help="For models whose matrix entry allows it as well.")
@option("--quiet", is_flag=True, help="No progress.")
@option("--verbose", is_flag=True, help="Tracebacks, passed checks, every finding.")
def record(matrix: str, **options: Any) -> ExitCode:
    """Record what later runs need: of MATRIX's baselines, the texts of its quantized models, the time each cell took.

    With a recorded reference a run needs neither the baseline's memory nor its download. Commit what is written.
    """
    from checker.commands.record import record_matrix

    return record_matrix(matrix, options)


@cli.command(short_help="Print the jobs of a matrix as JSON.")
@click.argument("matrix", default=MATRIX, envvar="QUANT_VERIFY_MATRIX")
@option("--max-jobs", type=click.IntRange(1, MAX_JOBS), default=MAX_JOBS, metavar="N", help="At most this many jobs.")
@option("--only", multiple=True, metavar="CELL", help="Only these cells: globs, comma lists.")
@option("--timeout", type=click.FloatRange(min=1), metavar="SECONDS", help="Limit of a cell.")
def plan(matrix: str, max_jobs: int, only: tuple[str, ...], timeout: float | None) -> ExitCode:
    """Print the jobs of MATRIX as one line of JSON, for fromJSON in a workflow. Opens no checkpoint, no network."""
    from checker.commands.plan import plan_matrix

    return plan_matrix(matrix, max_jobs, only, timeout)


@cli.command(short_help="Join the reports of several jobs.")
@click.argument("reports", nargs=-1, metavar="REPORT.json...")
@click.option("--matrix", metavar="MATRIX", help="What was planned; a cell in no report is not verified.")
@option("--only", multiple=True, metavar="CELL", help="With --matrix: what plan was told.")
@option("--depth", type=click.Choice(DEPTHS), help="With --matrix: what the jobs were told.")
@option("--select", multiple=True, metavar="CHECK", help="With --matrix: what the jobs were told.")
@option("--ignore", multiple=True, metavar="CHECK", help="With --matrix: what the jobs were told.")
@option("--report-dir", default="quant-verify-report", metavar="DIR", help="Where the joined reports go.")
@option("--annotations", type=click.Choice(WHEN), default="auto", help="Workflow commands.")
@option("--format", type=click.Choice(["text", "json"]), default="text", help="What goes to stdout.")
@option("--verbose", is_flag=True, help="Tracebacks, passed checks, every finding.")
def merge(reports: tuple[str, ...], matrix: str | None, **options: Any) -> ExitCode:
    """Join the reports of several jobs into one set, with the exit code of an undivided run.

    A planned cell that no report holds is wrong usage; with --matrix it is one that could not be verified.
    """
    from checker.commands.merge import merge_reports

    for name in ("only", "depth", "select", "ignore"):  # a variable may be there for other commands
        if matrix is None and click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UsageError(f"merge --{name} says what the jobs of a matrix were told; add --matrix")
    return merge_reports(reports, matrix, options)


@cli.command(short_help="What changed between two reports.")
@click.argument("old", metavar="OLD.json")
@click.argument("new", metavar="NEW.json")
@option("--fail-on", type=click.Choice(["fail", "warn"]), default="fail", help="From when on findings are worse.")
@option("--annotations", type=click.Choice(WHEN), default="auto", help="Step summary.")
@option("--format", type=click.Choice(["text", "markdown", "json"]), default="text", help="What goes to stdout.")
def compare(old: str, new: str, **options: Any) -> ExitCode:
    """Show what changed between the reports of two runs; exit 1 when something got worse.

    Worse: a check that passed fails or cannot be verified, a finding is new, or a figure moved beyond its error bar.
    Exit code 4 when no cell is in both reports.
    """
    from checker.commands.compare import compare_reports

    return compare_reports(old, new, options)


@cli.command(short_help="Predict bytes and ratios from a config.")
@click.argument("config")
@option("--quantization", metavar="JSON", help="A quantization_config; default: the bitsandbytes variants.")
@option("--dtype", type=click.Choice(["float16", "bfloat16", "float32"]), help="Of the dense model; default: its own.")
@option("--format", type=click.Choice(["text", "json"]), default="text", help="What goes to stdout.")
def estimate(config: str, quantization: str | None, dtype: str | None, **options: Any) -> ExitCode:
    """Predict bytes and ratios from CONFIG alone: a config.json or a folder that holds one. Loads no weights."""
    from checker.commands.estimate import estimate_config

    return estimate_config(config, quantization, dtype, as_json=options["format"] == "json")


@cli.command(short_help="The catalogue of checks.")
@click.argument("check_id", required=False, metavar="[ID]")
def explain(check_id: str | None) -> ExitCode:
    """The catalogue of checks; with an ID, what the check asks, why, and its limits."""
    from checker.commands.catalogue import explain_checks

    return explain_checks(check_id)


@cli.command(short_help="The catalogue of quantization methods.")
@click.argument("method_id", required=False, metavar="[ID]")
def methods(method_id: str | None) -> ExitCode:
    """The catalogue of quantization methods; with an ID, how it stores a weight."""
    from checker.commands.catalogue import list_methods

    return list_methods(method_id)


@cli.command(short_help="What this machine can do; calls real kernels.")
@option("--device", default="auto", metavar="DEVICE", help="auto, cpu, cuda or cuda:N.")
def doctor(device: str) -> ExitCode:
    """Device, driver and versions; calls a real kernel; says what to do about what is missing."""
    from checker.commands.doctor import examine

    return examine(device)


@cli.command(short_help="Write a first matrix file and a workflow.")
@click.option("--force", is_flag=True, help="Write over files that exist.")
def init(*, force: bool) -> ExitCode:
    """Write a first matrix file and a workflow into the current folder."""
    from checker.commands.init import write_first_files

    return write_first_files(Path.cwd(), force=force)


@cli.command(short_help="The suite on a small real model, offline.")
@click.option("--rebuild", is_flag=True, help="Make the demo's models anew.")
@run_options
def demo(*, rebuild: bool, **options: Any) -> ExitCode:
    """Run the suite on a small real language model, offline: two healthy cells, and one that must fail."""
    from checker.commands.demo import run_demo

    return run_demo(options, rebuild=rebuild)


def main() -> None:
    """Run the command line and exit with the code of design §5; a crash of ours is 3, never 1."""
    sys.excepthook = _crash
    gc.set_threshold(50_000, 20, 50)  # what is made at the start stays to the end
    try:
        code = cli.main(prog_name="quant-verify", standalone_mode=False)
        sys.stdout.flush()
    except MatrixError as error:
        for mistake in error.mistakes:
            _say(str(mistake))
        code = ExitCode.USAGE
    except UsageError as error:
        _say(str(error))
        code = ExitCode.USAGE
    except Unavailable as error:
        _say(str(error))
        code = ExitCode.UNVERIFIED
    except click.ClickException as error:
        from checker.commands.deliver import show_usage

        show_usage(error)
        code = ExitCode.USAGE
    except click.exceptions.Abort:
        code = ExitCode.INTERRUPTED
    except BrokenPipeError:  # the reader of stdout went away; what we had to say is in the reports
        code = ExitCode.UNVERIFIED
    _flush()
    if code in (ExitCode.HANGUP, ExitCode.INTERRUPTED, ExitCode.TERMINATED):  # do not wait for a download to end
        os._exit(int(code))
    sys.exit(int(code or 0))


def _flush() -> None:
    """What cannot be flushed now would make the exit code 120 later; and nothing is to be collected any more."""
    gc.freeze()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _say(text: str) -> None:
    from checker.reporters import escape

    with contextlib.suppress(OSError):  # stderr may be gone; the exit code still says it
        sys.stderr.write(f"quant-verify: {escape.log(text)}\n")
        sys.stderr.flush()


def _crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """The last resort: one sentence (the traceback with --verbose) and exit code 3."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        _say(f"the disk is full ({error}); free some space, or set TMPDIR to a larger disk")
    else:
        _say(f"internal error, please report it: {kind.__name__}: {' '.join(str(error).split())}")
    if "--verbose" in sys.argv or os.environ.get("QUANT_VERIFY_VERBOSE"):
        traceback.print_exception(kind, error, trace)
    _flush()
    os._exit(int(ExitCode.UNVERIFIED))
