"""Which plain words mean what, and which are refused."""

from __future__ import annotations

import datetime as dt
import math

import pytest

from checker.matrix.scalars import control_character, resolve

ACCEPTED = {
    "": None, "~": None, "null": None, "true": True, "False": False,
    "0": 0, "-7": -7, "+7": 7, "0o17": 15, "0x1F": 31,
    "1.5": 1.5, ".5": 0.5, "1.": 1.0, "1e3": 1000.0, "-2.5E-1": -0.25, "-.inf": -math.inf,
    "2026-12-31": dt.date(2026, 12, 31),
    "nf4": "nf4", "truth": "truth", "north": "north", "1.2.3": "1.2.3",
    "4bit": "4bit", "-x": "-x", "org/m@1": "org/m@1",
    "2026-12-31T00:00:00": "2026-12-31T00:00:00", "./x": "./x", "nan": "nan",
}  # fmt: skip
REFUSED = {
    "no": (False, 'write false, or "no" in quotes'),
    "Yes": (True, 'write true, or "Yes" in quotes'),
    "ON": (True, "write true"),
    "off": (False, "write false"),
    "y": (True, "write true"),
    "N": (False, "write false"),
    "010": ("010", "leave out the leading zero"),
    "-08": ("-08", "leave out the leading zero"),
    "1:30": ("1:30", "base 60"),
    "1:30:00": ("1:30:00", "base 60"),
    "0b11": ("0b11", "binary"),
    "1_000": ("1_000", "underscores"),
    "0x_ff": ("0x_ff", "underscores"),
    "2026-02-30": ("2026-02-30", "no day of the calendar"),
    "9" * 5000: ("9" * 5000, "a number of 5000 characters"),
}


@pytest.mark.parametrize(("text", "value"), ACCEPTED.items(), ids=lambda item: f"<{item}>")
def test_core_schema(text, value):
    resolved, wrong = resolve(text)
    assert (resolved, type(resolved), wrong) == (value, type(value), None)


def test_nan_is_read_so_that_it_can_be_refused_where_it_stands():
    value, wrong = resolve(".nan")
    assert math.isnan(value)
    assert wrong is None


@pytest.mark.parametrize(("text", "expected"), REFUSED.items(), ids=lambda item: f"<{item}>"[:20])
def test_disputed_words_are_refused_with_a_remedy(text, expected):
    value, wrong = resolve(text)
    assert value == expected[0]
    assert expected[1] in wrong


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a\tb\nc", None),
        ("naïve …", None),
        ("a\x00", r"\x00"),
        ("\x1b[1m", r"\x1b"),
        ("\ud800", r"\ud800"),
        ("\x85", r"\x85"),
    ],
    ids=["tab and line end", "letters", "nul", "terminal escape", "lone surrogate", "next line"],
)
def test_control_characters(text, found):
    assert control_character(text) == found
