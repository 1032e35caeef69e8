"""A job that uses the Action, run by ``act`` on this machine: no container, no network, nothing of GitHub's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from launcher import ROOT, Machine, tool

SECONDS = 120
OF_THE_ACTION = (".github/action", "checker", "action.yml", "constraints.txt", "entrypoint.py", "pyproject.toml")
SAVE = """\
printf "%s" "$OUTPUTS" >"$RESULT/outputs.json"
printf "%s" "$OUTCOME" >"$RESULT/outcome"
cp -R . "$RESULT/workspace"
"""


@dataclass(frozen=True)
class Job:
    """How the job ended, and what its later steps saw."""

    succeeded: bool
    outcome: str  # of the step
    outputs: dict[str, str]
    summary: str
    log: str
    obeyed: list[tuple[str, str]]  # commands in the output of steps: name, and what followed it
    workspace: Path

    @property
    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.workspace / self.outputs["json"]).read_text(encoding="utf-8"))
        return found


def run_job(
    machine: Machine, inputs: Mapping[str, str], *, env: Mapping[str, str] | None = None, **variables: str
) -> Job:
    """One step ``uses: ./``, with variables of the job; the machine's workspace is the repository."""
    repository, result = machine.workspace, machine.folder / "result"
    shutil.rmtree(result, ignore_errors=True)
    result.mkdir()
    if not (repository / "action.yml").exists():
        check_out(repository)
    steps: list[dict[str, Any]] = [
        {"uses": "actions/checkout@v6"},
        {"id": "verify", "uses": "./", "with": dict(inputs), "env": dict(env or {})},
        {
            "if": "always()",
            "env": {"OUTPUTS": "${{ toJSON(steps.verify.outputs) }}", "OUTCOME": "${{ steps.verify.outcome }}"},
            "run": SAVE,
        },
    ]
    job = {"runs-on": "ubuntu-latest", "env": variables, "steps": steps}
    workflow = repository / ".github/workflows/verify.yml"
    workflow.write_text(yaml.safe_dump({"on": "push", "jobs": {"verify": job}}), encoding="utf-8")
    done = subprocess.run(
        [tool("act"), "push", "--json", "--platform", "ubuntu-latest=-self-hosted", "--env", f"RESULT={result}"],
        cwd=repository,
        env=_environment(machine),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=SECONDS,
        check=False,
    )
    return _read(done, result)


def check_out(repository: Path) -> None:
    """What a runner fetches of the Action, and no more."""
    for name in OF_THE_ACTION:
        target = repository / name
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, target)
    (repository / ".github/workflows").mkdir(parents=True)
    subprocess.run(["git", "init", "--quiet", str(repository)], check=True)


def _environment(machine: Machine) -> dict[str, str]:
    """Programs that act itself needs are there for the steps, too; docker and quant-verify are not."""
    for name in ("git", "cp", "sh"):
        if not (machine.programs / name).exists() and (found := shutil.which(name)):
            (machine.programs / name).symlink_to(found)
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_CERT"))}
    return kept | {
        "PATH": str(machine.programs),
        "HOME": str(machine.home),
        "XDG_CACHE_HOME": str(machine.home / ".cache"),
        "TMPDIR": str(machine.temp),
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _read(done: subprocess.CompletedProcess[str], result: Path) -> Job:
    log, obeyed, summary = [], [], ""
    for line in done.stdout.splitlines():
        entry = json.loads(line) if line.startswith("{") else {"msg": line}
        log.append(str(entry.get("msg", "")).rstrip("\n"))
        if entry.get("command") == "summary":
            summary = str(entry.get("content", ""))
        elif "command" in entry and entry["command"] != "set-output":
            obeyed.append((str(entry["command"]), str(entry.get("arg", ""))))
    text = "\n".join(log)
    assert (result / "outputs.json").exists(), text + done.stderr
    return Job(
        succeeded=done.returncode == 0,
        outcome=(result / "outcome").read_text(),
        outputs=json.loads((result / "outputs.json").read_text(encoding="utf-8")),
        summary=summary,
        log=text,
        obeyed=obeyed,
        workspace=result / "workspace",
    )
