"""A suite of two cells, whose workers misbehave as a test says."""

from __future__ import annotations

from pathlib import Path

import pytest
from models import Zoo

MATRIX = """\
version: 1
defaults: {depth: static}
models:
  - {name: first, checkpoints: {nf4: ./nf4}}
  - {name: second, checkpoints: {int8: ./int8}}
"""


@pytest.fixture
def work(zoo: Zoo, tmp_path: Path) -> Path:
    """A folder with two checkpoints and a matrix over them."""
    (tmp_path / "dense").symlink_to(zoo.baseline("llama"))
    (tmp_path / "nf4").symlink_to(zoo.quantized("llama", "nf4-double"))
    (tmp_path / "int8").symlink_to(zoo.quantized("llama", "int8"))
    (tmp_path / "quant-verify.yml").write_text(MATRIX)
    return tmp_path
