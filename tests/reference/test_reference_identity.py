"""What a reference is of: digests that change with what matters, and with nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from checker.domain import Prompt
from checker.errors import Unavailable
from checker.reference import ROW_LENGTHS
from checker.reference.identity import folder_revision, passages, prompts_digest, tokenizer_digest

TOKENIZER = {
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]},
    "truncation": None,
    "added_tokens": [],
}


def model(folder: Path, *, value: float = 0.0, place: int = 0, config: object = None) -> Path:
    folder.mkdir()
    weight = np.zeros(10_000, np.float32)
    weight[place] = value
    save_file({"w": weight, "b": np.ones(3, np.float32)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config or {"model_type": "llama"}))
    return folder


def test_copies_of_a_folder_are_one_revision(tmp_path: Path):
    assert folder_revision(model(tmp_path / "a")) == folder_revision(model(tmp_path / "b"))


@pytest.mark.parametrize(
    "changes",
    [{"value": 1.0}, {"value": 1.0, "place": 5_000}, {"value": 1.0, "place": 9_999}, {"config": {"model_type": "opt"}}],
    ids=["first value", "middle", "last", "config"],
)
def test_a_folder_that_was_changed_is_another_revision(tmp_path: Path, changes: dict[str, object]):
    assert folder_revision(model(tmp_path / "a")) != folder_revision(model(tmp_path / "b", **changes))


def test_a_folder_that_is_gone_is_said(tmp_path: Path):
    with pytest.raises(Unavailable, match="cannot be read"):
        folder_revision(tmp_path / "nowhere")


def digest(folder: Path, **changes: object) -> str:
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps({**TOKENIZER, **changes}))
    return tokenizer_digest(folder)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"truncation": {"max_length": 8}, "version": "1.0"}, id="what saving adds"),
        pytest.param({"added_tokens": [{"id": 3, "content": "<pad>"}]}, id="a padding token"),
        pytest.param({"model": {**TOKENIZER["model"], "merges": [["a", "b"]]}}, id="merges as pairs"),
        pytest.param({"model": {**TOKENIZER["model"], "vocab": {"ab": 2, "b": 1, "a": 0}}}, id="another order"),
    ],
)
def test_a_tokenizer_that_was_saved_again_is_the_same(tmp_path: Path, changes: dict[str, object]):
    assert digest(tmp_path / "a") == digest(tmp_path / "b", **changes)


@pytest.mark.parametrize(
    "changes",
    [{"vocab": {"a": 0, "b": 2, "ab": 1}}, {"merges": ["b a"]}, {"vocab": {"a": 0}}],
    ids=["other ids", "other merges", "fewer tokens"],
)
def test_another_tokenizer_is_told_apart(tmp_path: Path, changes: dict[str, object]):
    assert digest(tmp_path / "a") != digest(tmp_path / "b", model={**TOKENIZER["model"], **changes})


def test_tokenizers_of_other_formats_have_a_digest_too(tmp_path: Path):
    assert tokenizer_digest(tmp_path) == ""
    (tmp_path / "tokenizer.json").write_text("no JSON")
    assert tokenizer_digest(tmp_path) == ""
    (tmp_path / "tokenizer.model").write_bytes(b"sentencepiece")
    assert tokenizer_digest(tmp_path) != ""


def test_prompts_belong_to_the_identity_but_not_what_they_may_answer():
    asked = Prompt(text="A")
    assert prompts_digest([asked]) == prompts_digest([Prompt(text="A", accept={"*": ("b",)})])
    others = [[], [Prompt(text="B")], [Prompt(text="A", chat=True)], [Prompt(text="A", max_new_tokens=9)]]
    assert prompts_digest([asked]) not in {prompts_digest(other) for other in others}


def test_the_probe_text_is_long_enough_for_every_row():
    texts = passages()
    assert len(texts) == len(ROW_LENGTHS)
    assert all(len(text) >= 4.6 * (length + 1) for text, length in zip(texts, ROW_LENGTHS, strict=True))
