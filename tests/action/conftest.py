"""Machines for the Action to run on."""

from __future__ import annotations

from pathlib import Path

import pytest
from launcher import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """One without Python, docker, GPU or quant-verify; a test adds what it is about."""
    return Machine(tmp_path)


@pytest.fixture
def with_path(machine: Machine) -> Machine:
    """One with quant-verify on PATH."""
    machine.has_quant_verify()
    return machine


@pytest.fixture
def with_docker(machine: Machine) -> Machine:
    """One with docker, and the image already there."""
    machine.has_docker()
    (machine.notes / "present").touch()
    return machine
