"""A vocabulary of a few checks, and ways to load a matrix that is written in a test."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from checker.errors import MatrixError
from checker.matrix import Matrix, Vocabulary, load_matrix


def _check_quantization(config):
    wrong = [(key, "unknown key") for key in config if key == "load_in_4bits"]
    return wrong if "quant_method" in config else [*wrong, ("", "has no quant_method")]


VOCABULARY = Vocabulary(
    check_ids=("layers.coverage", "memory.ratio", "outputs.divergence", "weights.error"),
    limit_names=("outputs.divergence.top1", "outputs.divergence.kl", "weights.error.R"),
    check_quantization=_check_quantization,
)


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Matrix]:
    """Text in, matrix out; the file is ``quant-verify.yml`` in the current folder, which is empty."""
    monkeypatch.chdir(tmp_path)

    def from_text(text: str | bytes, **forced: object) -> Matrix:
        data = text if isinstance(text, bytes) else textwrap.dedent(text).encode()
        Path("quant-verify.yml").write_bytes(data)
        return load_matrix("quant-verify.yml", VOCABULARY, forced=forced)

    return from_text


@pytest.fixture
def mistakes(load: Callable[..., Matrix]) -> Callable[..., list[str]]:
    """Text in, the sentences of its mistakes out, each with its place."""

    def from_text(text: str | bytes) -> list[str]:
        with pytest.raises(MatrixError) as caught:
            load(text)
        return [str(mistake) for mistake in caught.value.mistakes]

    return from_text


@pytest.fixture
def checkpoint_folder(tmp_path: Path) -> Callable[[str], Path]:
    """Make a folder that looks like a checkpoint."""

    def make(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        return folder

    return make
