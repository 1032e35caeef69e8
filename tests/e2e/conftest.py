"""A folder with tiny checkpoints and a way to write a matrix over them."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from models import Zoo


@pytest.fixture(scope="session")
def shelf(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Links to a dense model and to its quantizations, by short names."""
    folder = tmp_path_factory.mktemp("shelf")
    (folder / "dense").symlink_to(zoo.baseline("llama"))
    (folder / "nf4").symlink_to(zoo.quantized("llama", "nf4-double"))
    (folder / "int8").symlink_to(zoo.quantized("llama", "int8"))
    return folder


@pytest.fixture
def work(shelf: Path, tmp_path: Path) -> Path:
    """A working folder in which ``./models/nf4`` and its like are checkpoints."""
    (tmp_path / "models").symlink_to(shelf)
    return tmp_path


@pytest.fixture
def matrix(work: Path) -> Callable[[str], Path]:
    """Write the models of a matrix, and any other key; the file is quant-verify.yml in the working folder."""

    def write(text: str) -> Path:
        path = work / "quant-verify.yml"
        path.write_text("version: 1\n" + textwrap.dedent(text))
        return path

    return write
