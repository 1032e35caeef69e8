"""The model card's base model: which one it is, and every way in which there is none."""

from __future__ import annotations

import pytest

from checker.checkpoint.card import LONGEST_HEAD, BaseModel, base_model
from checker.domain import ModelRef
from checker.errors import UsageError


def card(folder, text) -> BaseModel:
    (folder / "README.md").write_bytes(text if isinstance(text, bytes) else text.encode())
    return base_model(ModelRef(kind="folder", name=str(folder)), offline=True)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("base_model: org/dense", BaseModel(name="org/dense", count=1, relation=None)),
        (
            "base_model: org/dense\nbase_model_relation: quantized",
            BaseModel(name="org/dense", count=1, relation="quantized"),
        ),
        ("base_model:\n- org/dense\n- org/other", BaseModel(name="org/dense", count=2, relation=None)),
        ("base_model: [org/dense]", BaseModel(name="org/dense", count=1, relation=None)),
        ("base_model: https://huggingface.co/org/dense/", BaseModel(name="org/dense", count=1, relation=None)),
        ("license: mit\ntags: [a, b]\nbase_model: ' org/dense '", BaseModel(name="org/dense", count=1, relation=None)),
    ],
)
def test_what_a_card_names(head, expected, tmp_path):
    assert card(tmp_path, f"---\n{head}\n---\n# Title\n---\nbase_model: no/head\n---\n") == expected
    assert card(tmp_path, f"\ufeff---\r\n{head}\n---\r\nText".replace("\n", "\r\n").replace("\r\r", "\r")) == expected


def test_the_remark_says_how_sure_the_card_is(tmp_path):
    assert card(tmp_path, "---\nbase_model: a/b\nbase_model_relation: quantized\n---\n").remark == ""
    assert "does not say base_model_relation" in card(tmp_path, "---\nbase_model: a/b\n---\n").remark
    assert card(tmp_path, "---\nbase_model: [a/b, c/d]\n---\n").remark == ", the first of 2"


BOMB = "a: &a {x: 1}\n" + "\n".join(
    f"{chr(98 + n)}: &{chr(98 + n)} {{<<: [{', '.join([f'*{chr(97 + n)}'] * 9)}]}}" for n in range(9)
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "names no base_model"),
        ("# Only a title\n", "names no base_model"),
        ("---\nbase_model: org/dense\n", "names no base_model"),  # the head has no end
        ("---\nlicense: mit\n---\n", "names no base_model"),
        ("---\nbase_model: 7\n---\n", "names no base_model"),
        ("---\nbase_model: []\n---\n", "names no base_model"),
        ("---\nbase_model: ''\n---\n", "names no base_model"),
        ("---\nbase_model: {name: x}\n---\n", "names no base_model"),
        ("---\n- a\n---\n", "names no base_model"),
        ("---\n[[\n---\n", "is no YAML"),
        ("---\na: !!python/object/apply:os.system [true]\n---\n", "is no YAML"),
        ("---\n" + "[" * 10_000 + "\n---\n", "is no YAML"),
        (f"---\n{BOMB}\n---\n", "is no YAML (aliases are not read here)"),
        (b"---\nbase_model: \xff\xfe\x00\n---\n", "is no YAML"),
        ("---\n" + "x" * LONGEST_HEAD + "\nbase_model: a/b\n---\n", "names no base_model"),
        ("---\nbase_model: a/b\nbase_model_relation: adapter\n---\n", "calls it an adapter of 'a/b', whose weights"),
        ("---\nbase_model: a/b\nbase_model_relation: merge\n---\n", "calls it a merge of 'a/b', whose weights"),
    ],
)
def test_no_usable_card_is_wrong_usage_with_a_remedy(text, says, tmp_path):
    with pytest.raises(UsageError) as raised:
        card(tmp_path, text)
    message = str(raised.value)
    assert says in message
    assert message.startswith("--baseline auto: ")
    assert message.endswith("; name the baseline with --baseline ORG/NAME")
    assert message.isprintable()


def test_no_card(tmp_path):
    with pytest.raises(UsageError, match=r"README.md does not exist; name the baseline"):
        base_model(ModelRef(kind="folder", name=str(tmp_path)), offline=True)
    (tmp_path / "README.md").mkdir()
    with pytest.raises(UsageError, match=r"README.md cannot be read \(is a directory\)"):
        base_model(ModelRef(kind="folder", name=str(tmp_path)), offline=True)
