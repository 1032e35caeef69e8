"""Write the generated parts of README.md, so that they cannot go stale.

``python tests/readme.py --write`` renews what follows from the code: the tables of checks, methods, limits, commands,
options and planted faults. ``--write --demo`` also renews what has to be run: the sample output and the seconds of each
depth, both from the demo's models. A generated part stands between ``<!-- generated:NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import yaml

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
sys.path.insert(0, str(ROOT))

from checker.cli import cli  # noqa: E402
from checker.commands import demo  # noqa: E402
from checker.commands.catalogue import method_table  # noqa: E402
from checker.domain import Depth, Limit  # noqa: E402
from checker.registry import all_checks, all_methods  # noqa: E402

PART = re.compile(r"(<!-- generated:(?P<name>[a-z-]+) -->\n)(?P<text>.*?)(<!-- end -->)", re.DOTALL)
WIDTH = 100  # columns of the sample output
DEPTH_FACTS = {  # what it looks at, needs, and fetches when the model is on the Hub
    Depth.STATIC: ("config, file headers, stored numbers", "numpy; no torch, no GPU", "config and byte ranges"),
    Depth.LOAD: ("also modules, dtypes, memory", "the `torch` extra, memory for the model", "all files"),
    Depth.FULL: ("also logits, text, a second save", "the same; a GPU for large models", "all files"),
}


def table(*rows: tuple[str, ...]) -> str:
    """A markdown table; the first row is its head."""
    head, *body = rows
    lines = [head, ("---",) * len(head), *body]
    return "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |\n" for row in lines)


def code(text: str) -> str:
    """Docstring markup as markdown: two backquotes become one."""
    return text.replace("``", "`")


def checks() -> str:
    """The catalogue of checks, as ``explain`` gives it."""
    rows = [(f"`{item.id}`", item.depth.value, code(item.summary)) for item in all_checks()]
    return table(("check", "depth", "passes when"), *rows)


def methods() -> str:
    """The catalogue of methods, as ``methods`` gives it."""
    return method_table(all_methods())


def fixtures() -> str:
    """Which tool, in which version, made the checkpoints that each method is tested on."""
    made: dict[str, dict[str, int]] = {}
    for path in sorted((ROOT / "tests" / "fixtures" / "checkpoints").glob("*/*/fixture.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        package, version = next(iter(record["versions"].items()))
        tool = f"{package} {version.partition('+')[0]}"
        counts = made.setdefault(path.parent.parent.name, {})
        counts[tool] = counts.get(tool, 0) + 1
    rows = [
        (method, ", ".join(f"{tool} ({count})" for tool, count in sorted(tools.items())))
        for method, tools in sorted(made.items())
    ]
    return table(("method", "fixtures made with (how many)"), *rows)


def limits() -> str:
    """Every limit with its default, and where a method has its own."""

    def bars(limit: Limit) -> tuple[str, ...]:
        if limit == Limit():
            return ("by bits and size",) * 2
        return tuple("" if bar is None else f"{bar:g}" for bar in (limit.warn, limit.fail))

    rows = [
        (f"`{item.id}.{metric}`", *bars(limit), "") for item in all_checks() for metric, limit in item.limits.items()
    ] + [(f"`{name}`", *bars(limit), item.id) for item in all_methods() for name, limit in item.limits.items()]
    return table(("limit", "warn", "fail", "only for"), *sorted(rows))


def shown_commands() -> list[str]:
    """Names of the commands that ``--help`` lists; the others are the Action's."""
    return sorted(name for name, command in cli.commands.items() if not command.hidden)


def commands() -> str:
    """Each command with its arguments and the first sentence of its help."""
    rows = []
    for name in shown_commands():
        command = cli.commands[name]
        pieces = command.collect_usage_pieces(click.Context(command))
        usage = " ".join(["quant-verify", name, *(piece for piece in pieces if piece != "[OPTIONS]")])
        rows.append((f"`{usage}`", (command.help or "").partition("\n\n")[0].replace("\n", " ")))
    return table(("command", "what it does"), *rows)


def options_of(name: str) -> dict[str, click.Option]:
    """The options of one command, by their long name."""
    parameters = cli.commands[name].params
    return {item.opts[0]: item for item in parameters if isinstance(item, click.Option)}


def option_row(option: click.Option) -> tuple[str, str, str]:
    """Option with its values, environment variable, meaning."""
    if option.is_flag:
        values = ""
    elif isinstance(option.type, click.Choice):
        values = " " + "|".join(str(choice) for choice in option.type.choices)
    else:
        values = f" {option.metavar or option.type.name.upper()}"
    variable = f"`{option.envvar}`" if option.envvar else ""
    return f"`{option.opts[0]}{values}`", variable, (option.help or "") + (" Repeatable." if option.multiple else "")


def options() -> str:
    """What ``run``, ``check`` and ``demo`` share, as their ``--help`` gives it."""
    return table(("option", "environment", "meaning"), *map(option_row, options_of("run").values()))


def more_options() -> str:
    """What only one command knows, or knows differently."""
    shared = options_of("run")
    rows = [
        (f"`{command}`", *option_row(option))
        for command in shown_commands()
        for name, option in options_of(command).items()
        if name not in shared or option_row(option) != option_row(shared[name])
    ]
    return table(("command", "option", "environment", "meaning"), *rows)


def described(part: str) -> dict[str, str]:
    """Name and description of each of the ``inputs`` or ``outputs`` of the Action."""
    definition = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    return {name: str(item["description"]) for name, item in definition[part].items()}


def inputs() -> str:
    """The inputs of the Action."""
    return table(("input", "meaning"), *((f"`{name}`", text) for name, text in described("inputs").items()))


def outputs() -> str:
    """The outputs of the Action."""
    return table(("output", "meaning"), *((f"`{name}`", text) for name, text in described("outputs").items()))


def faults() -> str:
    """The planted faults of the test-suite, grouped by the checks that find them."""
    path = ROOT / "tests" / "probes" / "test_probes_faults.py"
    sys.path.insert(0, str(ROOT / "tests"))
    spec = importlib.util.spec_from_file_location("planted_faults", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    groups: dict[str, list[str]] = {}
    for name, (_, _, expected) in module.FAULTS.items():
        words = re.sub(r"^[A-Z]\d+[a-z]? ", "", name)
        warnings = {item for item, (severity, _) in expected.items() if severity.value == "warn"}
        found = (f"`{item}`" + " (warning)" * (item in warnings) for item in sorted(expected))
        groups.setdefault(", ".join(found), []).append(words)
    rows = [("; ".join(dict.fromkeys(names)), found_by) for found_by, names in groups.items()]
    return table(("planted fault", "found by"), *sorted(rows, key=lambda row: row[1]))


def quant_verify(*words: str, folder: str, columns: int = WIDTH) -> tuple[str, float, int]:
    """Standard output, seconds and peak memory in kilobytes of one call, workers included."""
    begin = time.monotonic()
    environment = {**os.environ, "COLUMNS": str(columns), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "entrypoint.py"), *words]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if os.waitstatus_to_exitcode(status) > 1:  # neither passed nor failed: there is nothing to show
            raise SystemExit(f"{' '.join(words)} ended with {os.waitstatus_to_exitcode(status)}")
        output.seek(0)
        return output.read(), time.monotonic() - begin, usage.ru_maxrss


def sample(folder: str) -> str:
    """The demo's damaged cell as the terminal shows it, notes left out, and the verdict."""
    output, _, _ = quant_verify("demo", "--quiet", folder=folder)
    cell = next(name for name, outcome in demo.EXPECTED.items() if outcome.value == "fail")
    found = re.search(rf"^{re.escape(cell)}  FAIL\n(?:  .*\n)+", output, re.MULTILINE)
    verdict = re.search(r"^\d+ cells: .*$", output, re.MULTILINE)
    if found is None or verdict is None:
        raise SystemExit(f"the demo did not say what it should:\n{output}")
    findings = re.sub(r"^  note .*\n(?:         .*\n)*", "", found[0], flags=re.MULTILINE)
    return f"```text\n{findings}\n{verdict[0]}\n```\n"


def depths(folder: str) -> str:
    """What each depth needs and takes, measured on a checkpoint of the demo."""
    demo.prepare(demo.cache_folder(), rebuild=False)
    models = sorted(path for path in demo.cache_folder().iterdir() if (path / "config.json").is_file())
    baseline = next(path for path in models if "nf4" not in path.name)
    checkpoint = next(path for path in models if "nf4" in path.name)
    rows = []
    for depth in Depth:
        call = ("check", str(checkpoint), "--baseline", str(baseline), "--depth", depth.value, "--quiet")
        runs = [quant_verify(*call, folder=folder)[1:] for _ in range(3)]
        seconds, memory = min(runs)
        rows.append(
            (
                f"`{depth}`",
                *DEPTH_FACTS[depth],
                f"{seconds:.1f}\N{NO-BREAK SPACE}s",
                f"{memory / 1e6:.2f}\N{NO-BREAK SPACE}GB",
            )
        )
    machine = f"{os.cpu_count()} CPU cores ({platform.machine()}), no GPU"
    measured = f"Whole process with its workers, peak memory, best of three runs, {machine}."
    return table(("depth", "looks at", "needs", "fetches", "time", "memory"), *rows) + f"\n{measured}\n"


GENERATED: dict[str, Callable[[], str]] = {
    "checks": checks,
    "methods": methods,
    "fixtures": fixtures,
    "limits": limits,
    "commands": commands,
    "options": options,
    "more-options": more_options,
    "inputs": inputs,
    "outputs": outputs,
    "faults": faults,
}
MEASURED: dict[str, Callable[[str], str]] = {"depths": depths, "sample": sample}


def parts(text: str) -> Iterator[tuple[str, str]]:
    """Name and text of each generated part."""
    for match in PART.finditer(text):
        yield match["name"], match["text"]


def renew(text: str, *, with_demo: bool) -> str:
    """The README with its generated parts made anew."""

    def replace(match: re.Match[str]) -> str:
        name = match["name"]
        if name in GENERATED:
            return match[1] + GENERATED[name]() + match[4]
        return match[1] + (MEASURED[name](folder) if with_demo else match["text"]) + match[4]

    with tempfile.TemporaryDirectory() as folder:
        return PART.sub(replace, text)


def main() -> int:
    """Write the README, or say whether it is current."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write README.md; without it, exit 1 when it is stale")
    parser.add_argument("--demo", action="store_true", help="run the demo for the sample output and the seconds")
    arguments = parser.parse_args()
    text = README.read_text(encoding="utf-8")
    renewed = renew(text, with_demo=arguments.demo)
    if arguments.write:
        README.write_text(renewed, encoding="utf-8")
    elif renewed != text:
        sys.stderr.write("README.md is stale; make readme\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
