"""Loading: how transformers is asked to go about it."""

from __future__ import annotations

import os
from typing import Any

import pytest
from models import Zoo

from checker.probes import load
from checker.probes.load import SYNCHRONOUS, load_model

pytest.importorskip("torch")


def seen_while_loading(monkeypatch: pytest.MonkeyPatch, zoo: Zoo, device: str) -> str | None:
    """The variable as transformers would read it; loading itself is left out."""
    found: list[str | None] = []

    class Model:
        @classmethod
        def from_pretrained(cls, *_args: Any, **_options: Any) -> None:
            found.append(os.environ.get(SYNCHRONOUS))
            raise RuntimeError("seen enough")

    monkeypatch.setattr(load, "model_class", lambda *_args, **_options: Model)
    assert "seen enough" in load_model(zoo.quantized("llama", "nf4"), device).flaw
    return found[0]


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        pytest.param("cpu", "1", id="mapped tensors stay where they are"),
        pytest.param("cuda:0", None, id="a GPU is fed by several threads"),
    ],
)
def test_threads_are_left_out_where_there_is_nothing_to_wait_for(monkeypatch, zoo: Zoo, device, expected):
    monkeypatch.delenv(SYNCHRONOUS, raising=False)
    assert seen_while_loading(monkeypatch, zoo, device) == expected
    assert SYNCHRONOUS not in os.environ


def test_what_the_user_set_stands(monkeypatch, zoo: Zoo):
    monkeypatch.setenv(SYNCHRONOUS, "0")
    assert seen_while_loading(monkeypatch, zoo, "cpu") == "0"
    assert os.environ[SYNCHRONOUS] == "0"


@pytest.mark.exact
def test_transformers_still_reads_the_variable():
    import inspect

    from transformers import core_model_loading

    assert f'is_env_variable_true("{SYNCHRONOUS}")' in inspect.getsource(core_model_loading)
