"""The workflows as data, and where the tools that check them are."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
NODE = Path(__file__).parent / "node" / "node_modules" / ".bin"
USES = re.compile(r"^\s*(?:- )?uses: (?P<ref>\S+)(?P<comment> #.*)?$", re.MULTILINE)


def load(path: Path) -> dict[Any, Any]:
    """A workflow; YAML 1.1 makes ``True`` of its key ``on``."""
    document: dict[Any, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return document


def jobs() -> list[Any]:
    """Every job of every workflow, as parameters of a test."""
    return [
        pytest.param(job, id=f"{path.stem}/{name}") for path in WORKFLOWS for name, job in load(path)["jobs"].items()
    ]


def steps() -> list[Any]:
    """Every step of every workflow, as parameters of a test."""
    return [
        pytest.param(step, id=f"{path.stem}/{name}/{number}")
        for path in WORKFLOWS
        for name, job in load(path)["jobs"].items()
        for number, step in enumerate(job.get("steps", ()), 1)
    ]


def tool(name: str) -> str:
    """The path of a program; the test skips where it is not installed."""
    places = [Path(sys.executable).parent, NODE, *map(Path, os.get_exec_path())]
    found = shutil.which(name, path=os.pathsep.join(map(str, places)))
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found
