"""Whole workflows, run by ``act`` on this machine: no container, no network, stand-ins for the actions of others.

The Action is this repository's. Its command line runs from source, by a ``quant-verify`` on PATH.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflow_files import ROOT, USES, WORKFLOWS, tool

SECONDS = 600
LABELS = ("ubuntu-latest", "self-hosted", "gpu")
OF_THE_ACTION = (".github", "checker", "action.yml", "constraints.txt", "entrypoint.py", "pyproject.toml")
UPLOAD = """\
name: upload-artifact
inputs:
  name: {required: true}
  path: {required: true}
  if-no-files-found: {default: warn}
  overwrite: {default: "false"}
  retention-days: {default: ""}
runs:
  using: composite
  steps:
    - shell: bash
      env: {NAME: "${{ inputs.name }}", FROM: "${{ inputs.path }}", ABSENT: "${{ inputs.if-no-files-found }}"}
      run: |
        if [[ ! -e "$FROM" ]]; then echo "no files: $FROM"; [[ "$ABSENT" != error ]]; exit; fi
        mkdir "$ARTIFACTS/$NAME" && cp -R "$FROM/." "$ARTIFACTS/$NAME/"
"""
DOWNLOAD = """\
name: download-artifact
inputs:
  pattern: {required: true}
  path: {required: true}
runs:
  using: composite
  steps:
    - shell: bash
      env: {PATTERN: "${{ inputs.pattern }}", TO: "${{ inputs.path }}"}
      run: |
        mkdir -p "$TO"
        for folder in "$ARTIFACTS"/$PATTERN; do [[ ! -d "$folder" ]] || cp -R "$folder" "$TO/"; done
"""
ENTRY = """\
#!/bin/bash
command=${{QUANT_VERIFY_COMMAND:-run}}
echo "$command with$([[ -n "${{HF_TOKEN:-}}" ]] || echo out) a token" >> "{seen}"
[[ -z "${{KILLED:-}}" || $command != run || "$QUANT_VERIFY_ONLY" != *"$KILLED"* ]] || kill -9 $$
exec "{python}" "{entry}" "$@"
"""
NOTHING = "name: nothing\nruns: {using: composite, steps: [{shell: bash, run: 'true'}]}\n"
STAND_INS = {"actions/upload-artifact": UPLOAD, "actions/download-artifact": DOWNLOAD}


@dataclass(frozen=True)
class Run:
    """How a run of a workflow ended."""

    code: int
    results: Mapping[str, str]  # by the name of the job
    log: Mapping[str, str]
    artifacts: Path

    @property
    def all(self) -> str:
        """The whole log, for the message of a failed test."""
        return "\n".join(f"[{job}] {line}" for job, text in self.log.items() for line in text.splitlines())

    def report(self, artifact: str) -> dict[str, Any]:
        """The ``report.json`` of an artifact."""
        text = (self.artifacts / artifact / "report.json").read_text(encoding="utf-8")
        report: dict[str, Any] = json.loads(text)
        return report


def checkout(target: Path) -> Path:
    """What a runner fetches of the Action, and no more."""
    target.mkdir(parents=True)
    for name in OF_THE_ACTION:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__", "*.png"))
        else:
            shutil.copy(source, target / name)
    return target


def repository_of(folder: Path, files: Mapping[str, str]) -> Path:
    """A repository with these files, committed, as act needs one."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    program = tool("git")
    identity = ["-c", "user.name=tests", "-c", "user.email=tests@localhost"]
    for words in (["init"], ["add", "."], [*identity, "commit", "--message", "All"]):
        subprocess.run([program, *words], cwd=folder, env=_quiet_git(), capture_output=True, check=True)
    return folder


def _quiet_git() -> dict[str, str]:
    return {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}


def act(repository: Path, scratch: Path, *words: str, action: Path = ROOT, **variables: str) -> Run:
    """Run the workflows of ``repository`` that a push starts; ``action`` stands for org/quant-verify."""
    program = tool("act")
    for name in ("artifacts", "home", "temporary"):
        (scratch / name).mkdir(exist_ok=True)
    command = [program, "push", "--json", "--action-cache-path", str(scratch / "cache"), *words]
    command += [word for label in LABELS for word in ("--platform", f"{label}=-self-hosted")]
    command += [word for pair in _repositories(scratch, action) for word in ("--local-repository", pair)]
    given = {"ARTIFACTS": str(scratch / "artifacts"), "QUANT_VERIFY_RUNTIME": "path", **variables}
    command += [word for name, value in given.items() for word in ("--env", f"{name}={value}")]
    done = subprocess.run(
        command,
        cwd=repository,
        env=_environment(scratch),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=SECONDS,
        check=False,
    )
    return _read(done, scratch / "artifacts")


def _repositories(scratch: Path, action: Path) -> list[str]:
    """Every action that the workflows use, as ``owner/name@ref=folder``."""
    pairs = {"org/quant-verify@v1": action}
    for ref in {match["ref"] for path in WORKFLOWS for match in USES.finditer(path.read_text(encoding="utf-8"))}:
        name = ref.partition("@")[0]
        if name.startswith("."):
            continue
        folder = scratch / "stand-ins" / name
        if name == "org/quant-verify":
            folder = action
        elif not folder.is_dir():
            folder.mkdir(parents=True)
            (folder / "action.yml").write_text(STAND_INS.get(name, NOTHING), encoding="utf-8")
        pairs[ref] = folder
    return [f"{ref}={folder}" for ref, folder in pairs.items()]


def _environment(scratch: Path) -> dict[str, str]:
    """A small environment in which ``python`` and ``quant-verify`` are ours, and nothing is installed."""
    programs = scratch / "bin"
    if not programs.is_dir():
        programs.mkdir()
        python = f'#!/bin/sh\ncase "$*" in "-m pip"*) exit 0 ;; esac\nexec "{sys.executable}" "$@"\n'
        entry = ENTRY.format(python=sys.executable, entry=ROOT / "entrypoint.py", seen=scratch / "seen")
        ours = {"python": python, "python3": python, "quant-verify": entry, "uv": "#!/bin/sh\n"}
        for name, text in ours.items():
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
    return {
        "PATH": os.pathsep.join([str(programs), *os.get_exec_path()]),
        "HOME": str(scratch / "home"),
        "TMPDIR": str(scratch / "temporary"),
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _read(done: subprocess.CompletedProcess[str], artifacts: Path) -> Run:
    results: dict[str, str] = {}
    log: dict[str, list[str]] = {}
    for line in (done.stdout + done.stderr).splitlines():
        entry = json.loads(line) if line.startswith("{") else {"msg": line}
        job = re.sub(r"-\d+$", "", str(entry.get("job", "")).rpartition("/")[2].strip())
        log.setdefault(job, []).append(str(entry.get("msg", "")))
        if "jobResult" in entry:
            results[job] = entry["jobResult"]
    return Run(
        code=done.returncode,
        results=results,
        log={job: "\n".join(lines) for job, lines in log.items()},
        artifacts=artifacts,
    )
