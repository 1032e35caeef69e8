"""The quick way through the C parser gives what the careful one gives, and is taken only where that is certain."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checker.checkpoint import strict_json
from checker.checkpoint.strict_json import Malformed, Repeated, parse

BOUNDED = settings(max_examples=400, derandomize=True, database=None, deadline=None)
KEYS = st.sampled_from(
    ["a", "b", ":", "a:b", "\\u0061", '\\"', "é", "-0", "-00", "0" * 301, ""]
)  # as they stand in the text
SCALARS = st.sampled_from(
    [
        "1",
        "-0",
        "-0.5",
        "-01",
        "-0e1",
        "0",
        "1.5",
        "1e999",
        "NaN",
        "-Infinity",
        "true",
        "null",
        '"x"',
        '":"',
        '"-0"',
        '"\\u003a"',
    ]
    + ["9" * count for count in (300, 301, 5000)]
)
TEXTS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]"),
        st.lists(st.tuples(KEYS, inner), max_size=3).map(
            lambda pairs: "{" + ",".join(f'"{key}":{value}' for key, value in pairs) + "}"
        ),
    ),
    max_leaves=8,
)


def shown(value: Any) -> Any:
    """A value with all that ``==`` does not compare: the type of every number, NaN, and which key stood twice."""
    if isinstance(value, dict):
        twice = value.key if isinstance(value, Repeated) else None
        return (twice, [(key, shown(item)) for key, item in value.items()])
    return [shown(item) for item in value] if isinstance(value, list) else repr(value)


def outcome(text: str, *, finite: bool) -> Any:
    try:
        return shown(parse(text.encode(), finite=finite))
    except Malformed as error:
        return str(error)


def careful(text: str, *, finite: bool) -> Any:
    """With a call for every object and number."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strict_json, "_keys", lambda _: -1)
        return outcome(text, finite=finite)


@BOUNDED
@given(text=TEXTS, finite=st.booleans())
def test_both_ways_agree(text: str, finite: bool):
    assert outcome(text, finite=finite) == careful(text, finite=finite)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('{"a": 1, "a": 2}', "a"),
        ('{"a:": 1, "b": 1, "b": 2}', "b"),  # a colon more in a name, one key fewer in the value
        ('{"a": ":", "b": 1, "b": 2}', "b"),
        ('{"a": {"b": 1, "b": 2}}', "b"),
        ('{"\\u0061": 1, "a": 2}', "a"),
    ],
)
def test_a_repeated_key_is_found_whatever_stands_around_it(text: str, key: str):
    value = parse(text.encode(), finite=True)
    while not isinstance(value, Repeated):
        value = value["a"]
    assert value.key == key


def test_headers_and_indexes_take_the_quick_way(monkeypatch: pytest.MonkeyPatch):
    """Or a checkpoint of a hundred thousand tensors would take twice as long to read."""
    monkeypatch.setattr(strict_json, "_object", lambda _: pytest.fail("a call for every object"))
    entry = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}
    header = {"__metadata__": {"format": "pt"}, "model.layers.0.weight": entry}
    assert parse(json.dumps(header).encode(), finite=True) == header
    index = {"metadata": {"total_size": 4}, "weight_map": {"a": "model-00001-of-00002.safetensors"}}
    assert parse(json.dumps(index).encode(), finite=False) == index
