"""What the fuzz tests share: strategies for JSON that no tool would write, and how far to go.

``FUZZ_FACTOR=50 pytest tests -k fuzz`` tries fifty times as many examples, other ones in every run.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

FACTOR = int(os.environ.get("FUZZ_FACTOR", "1"))
LONGEST = timedelta(seconds=10)
Draw = Callable[[Any], Any]

WORDS = st.sampled_from(
    [
        *("", "a", "\n", "::error::x", "\u202e", "é" * 40, "(", "*", "re:", "re:(a+)+$", "re:[", "+:.*", "-:.*", "0"),
        *("model.layers.0.mlp.up_proj", "lm_head", "default", "weight", "none", "group", "channel", "tensor"),
        *("int", "float", "uint4", "int8", "float8_e4m3fn", "bfloat16", "torch.float16", "auto", "static", "2"),
    ]
)
NUMBERS = st.one_of(
    st.integers(-2, 9),
    st.sampled_from([16, 32, 64, 128, 255, 1 << 31, 1 << 63, 1 << 64, 10**30, 10**400, 0.5, 1e308, -0.0]),
    st.floats(),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, WORDS)
ANY = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=6,
)


def bounded(examples: int) -> settings:
    """The same examples in every run, unless more of them are asked for; none may take ten seconds."""
    return settings(
        max_examples=examples * FACTOR,
        derandomize=FACTOR == 1,
        database=None,
        deadline=LONGEST,
        suppress_health_check=list(HealthCheck),
    )


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        yield value, key
        yield from places(child)


def mutate(draw: Draw, value: Any, changes: int) -> Any:
    """A copy of a JSON value in which some entries were replaced, removed, renamed, doubled or added."""
    changed = copy.deepcopy(value)
    for _ in range(changes):
        known = list(places(changed))
        kind = draw(st.sampled_from(["replace", "replace", "replace", "remove", "rename", "wrap", "add"]))
        if kind == "add" or not known:
            if isinstance(changed, dict):
                changed[draw(WORDS)] = draw(ANY)
            continue
        container, key = draw(st.sampled_from(known))
        if kind == "replace":
            container[key] = draw(ANY)
        elif kind == "remove":
            del container[key]
        elif kind == "wrap":
            container[key] = draw(st.sampled_from([[container[key]], {"a": container[key]}, [container[key]] * 2]))
        elif isinstance(container, dict):
            container[draw(WORDS)] = container.pop(key)
    return changed
