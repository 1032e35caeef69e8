"""Why a checkpoint did not load: what transformers leaves to its log is in the one line that the report has."""

from __future__ import annotations

from pathlib import Path

import pydantic
import pytest
from models import Zoo, damage

from checker.probes.load_report import LONGEST, explain

NORM = "model.layers.1.input_layernorm.weight"


def halve(folder: Path, zoo: Zoo, *names: str) -> None:
    """A dense model some of whose norms have half of their numbers."""
    with damage(zoo.baseline("llama"), folder) as damaged:
        for name in names:
            tensor = damaged.tensors[name]
            damaged.put(name, tensor.dtype, [tensor.shape[0] // 2], bytes(tensor.data[: len(tensor.data) // 2]))


@pytest.mark.parametrize(
    ("names", "ending"),
    [
        pytest.param((NORM,), "", id="one tensor"),
        pytest.param((NORM, NORM.replace("1", "0"), "model.norm.weight"), " (and 2 more)", id="several"),
    ],
)
def test_a_tensor_of_another_shape_is_named_with_both_shapes(
    zoo: Zoo, tmp_path: Path, names: tuple[str, ...], ending: str
) -> None:
    from checker.probes.load import load_model

    halve(tmp_path / "model", zoo, *names)
    loaded = load_model(tmp_path / "model", "cpu")
    assert loaded.model is None
    assert loaded.flaw == f"RuntimeError: {min(names)} is [32] in the file and [64] in the model{ending}"


class Scheme(pydantic.BaseModel):
    """A config whose library collects what is wrong with it."""

    bits: int
    group: int


def test_the_first_error_of_a_validation_is_named_with_its_place() -> None:
    with pytest.raises(pydantic.ValidationError) as caught:
        Scheme.model_validate({"bits": "four", "group": "none"})
    text = explain(caught.value)
    assert text.startswith("ValidationError: bits: Input should be a valid integer")
    assert "\n" not in text


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(ValueError("\n  no\nmore"), "ValueError: no", id="the first line that says something"),
        pytest.param(AssertionError(), "AssertionError: no message", id="a bare assertion"),
        pytest.param(ValueError("x" * 900), ("ValueError: " + "x" * 900)[:LONGEST], id="bounded"),
    ],
)
def test_other_exceptions_keep_their_own_words(error: Exception, expected: str) -> None:
    assert explain(error) == expected
