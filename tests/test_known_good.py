"""The file of recorded texts: grows without repeating itself, stays sorted, and is read with suspicion."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from checker.errors import Unavailable
from checker.facts import KnownText
from checker.known_good import SCHEMA, add, read

PARIS = KnownText(
    prompt="The capital of France is",
    chat=False,
    text=" Paris.\n",
    tokens=(5, 7),
    device="cpu",
    versions={"torch": "2.13"},
)
CELL = "model/nf4"


def test_what_is_added_is_read(tmp_path):
    path = tmp_path / "references" / "known-good.json"
    odd = replace(PARIS, prompt="\u202e ö \U0001f600 \x00", chat=True, text="", tokens=(0,), versions={})
    assert read(path) == {}
    assert add(path, CELL, [PARIS, odd]) == 2
    assert sorted(read(path)[CELL], key=str) == sorted([PARIS, odd], key=str)
    assert path.stat().st_mode & 0o777 == 0o644
    assert "\u202e" not in path.read_text(encoding="utf-8"), "what turns the reading direction is visible in a review"
    assert list(path.parent.iterdir()) == [path]


def test_it_grows_by_device_and_text_but_not_by_version(tmp_path):
    path = tmp_path / "known-good.json"
    assert add(path, CELL, [PARIS]) == 1
    before = path.read_bytes()
    assert add(path, CELL, [replace(PARIS, versions={"torch": "2.14"}), PARIS]) == 0
    assert path.read_bytes() == before
    assert add(path, CELL, [replace(PARIS, device="cuda"), replace(PARIS, text=" Lyon", tokens=(5, 8))]) == 2
    assert add(path, "other/int8", [PARIS]) == 1
    found = read(path)
    assert [(item.device, item.text) for item in found[CELL]] == [
        ("cpu", " Lyon"),
        ("cpu", " Paris.\n"),
        ("cuda", " Paris.\n"),
    ]
    assert found["other/int8"] == (PARIS,)
    assert found[CELL][1].versions == {"torch": "2.13"}


def test_the_order_of_adding_does_not_show_and_a_new_text_only_adds_lines(tmp_path):
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    texts = [replace(PARIS, text=text, tokens=(number,)) for number, text in enumerate("abc")]
    for path, order in ((one, texts), (other, texts[::-1])):
        for text in order:
            add(path, CELL, [text])
            add(path, f"{text.text}/x", [text])
    assert one.read_bytes() == other.read_bytes()
    before = one.read_text().splitlines()
    add(one, CELL, [replace(PARIS, text="bb", tokens=(9,))])
    after = one.read_text().splitlines()
    assert len(after) == len(before) + 8
    assert set(before) <= set(after)
    assert json.loads(one.read_text())["schema"] == SCHEMA


ENTRY = {"prompt": "p", "chat": False, "device": "cpu", "versions": {}, "text": "t", "tokens": [1]}


def document(**changes: object) -> dict[str, object]:
    return {"schema": SCHEMA, "cells": {CELL: [{**ENTRY, **changes}]}}


BROKEN = {
    "no JSON": ("{", "is not valid JSON"),
    "no object": ("[]", "its root: Input should be"),
    "a later schema": (json.dumps({"schema": "quant-verify/known-good/2", "cells": {}}), "schema: Input should be"),
    "another key": (json.dumps(document(weight=1)), r"cells.model/nf4.0.weight: Extra inputs"),
    "tokens that are no numbers": (json.dumps(document(tokens=["1"])), r"cells.model/nf4.0.tokens.0: Input should be"),
    "a negative token": (json.dumps(document(tokens=[-1])), "greater than or equal to 0"),
    "a truth value as a token": (json.dumps(document(tokens=[True])), "valid integer"),
    "a text that is none": (json.dumps(document(text=None)), "valid string"),
    "a text too long": (json.dumps(document(text="x" * 200_001)), "at most 200000 characters"),
    "a cell that stands twice": (
        f'{{"schema": "{SCHEMA}", "cells": {{"a": [], "a": []}}}}',
        "the key cells.a stands in it more than once",
    ),
    "a number beyond JSON": (json.dumps(document(tokens=[float("nan")])), "not finite"),
}


@pytest.mark.parametrize(("content", "says"), BROKEN.values(), ids=BROKEN)
def test_a_file_that_is_not_what_it_should_be(content, says, tmp_path):
    path = tmp_path / "known-good.json"
    path.write_text(content)
    with pytest.raises(Unavailable, match=says) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "run quant-verify record" in str(caught.value)
    with pytest.raises(Unavailable):
        add(path, CELL, [PARIS])
    assert path.read_text() == content, "what cannot be read is not overwritten"


def test_a_file_too_large_is_not_read(tmp_path):
    path = tmp_path / "known-good.json"
    with path.open("wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(Unavailable, match="67,108,865 bytes"):
        read(path)


def test_a_folder_in_its_place(tmp_path):
    with pytest.raises(Unavailable, match=r"is a folder, not a file|cannot be read"):
        read(tmp_path)


def test_a_place_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="cannot write"):
        add(tmp_path / "file" / "known-good.json", CELL, [PARIS])
