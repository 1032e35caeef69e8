"""Trees with lines, and everything of YAML that a matrix may not hold."""

from __future__ import annotations

import datetime as dt
import time

import pytest
import yaml

from checker.matrix.yaml_tree import MAX_BYTES, parse_tree

MERGE_BOMB = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12)
)
ALIAS_BOMB = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))


@pytest.fixture(params=["libyaml", "pure Python"])
def either_parser(request, monkeypatch):
    if request.param == "pure Python":
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)


def test_plain_values_and_their_lines(either_parser):
    text = b"# a comment\na:\n  - b: 1\n    c: 'no'\n  - [2026-01-02, ~]\nd: {e: |\n  x\n}\n".replace(
        b"{e: |\n  x\n}", b"{e: 'x'}"
    )
    root, mistakes = parse_tree(text, "m.yml")
    assert mistakes == []
    assert root.plain() == {"a": [{"b": 1, "c": "no"}, [dt.date(2026, 1, 2), None]], "d": {"e": "x"}}
    lines = {
        path: root.line_of(path) for path in [(), ("a",), ("a", 0), ("a", 0, "c"), ("a", 1), ("d", "e"), ("d", "zz")]
    }
    assert lines == {(): 2, ("a",): 2, ("a", 0): 3, ("a", 0, "c"): 4, ("a", 1): 5, ("d", "e"): 6, ("d", "zz"): 6}


@pytest.mark.parametrize(
    "text",
    [b"\xef\xbb\xbfa: 1\n", b"a: 1\r\n", b"%YAML 1.2\n---\na: 1\n...\n", b'"a": 1'],
    ids=["byte order mark", "Windows line ends", "one marked document", "quoted key"],
)
def test_accepted_spellings(text, either_parser):
    root, mistakes = parse_tree(text, "m.yml")
    assert (root.plain(), mistakes) == ({"a": 1}, [])


REFUSED = {
    "python tag": (b"a: 1\nb: !!python/object/apply:os.system [x]", "m.yml:2: the YAML tag tag:yaml.org,2002:python"),
    "harmless tag": (b"a: !!str 1", "m.yml:1: the YAML tag"),
    "own tag on a mapping": (b"a: !x {b: 1}", "m.yml:1: the YAML tag !x is refused"),
    "tag on a key": (b"!!str a: 1", "m.yml:1: the YAML tag"),
    "anchor": (b"a: &x 1", "m.yml:1: &x is a YAML anchor"),
    "alias": (b"a: &x 1\nb: *x", "m.yml:2: *x is a YAML alias"),
    "alias as key": (b"a: &x b\n*x : 1", "m.yml:2: *x is a YAML alias"),
    "unquoted glob": (b"cells: *int8", "a glob that starts with * needs quotes"),
    "unquoted glob with slash": (b"a: 1\ncells: */int8", "m.yml:2: not valid YAML"),
    "merge key": (b"a:\n  <<: {b: 1}", "m.yml:2: '<<' (a YAML merge) is refused; use 'defaults'"),
    "merge bomb": (MERGE_BOMB.encode(), "is a YAML alias"),
    "alias bomb": (ALIAS_BOMB.encode(), "is a YAML alias"),
    "duplicate key": (b"a: 1\nb: 2\na: 3", "m.yml:3: the key 'a' stands twice, first on line 1"),
    "duplicate key in flow": (b"{a: 1, a: 2}", "stands twice"),
    "number as key": (b"4: x", 'm.yml:1: a key must be text: write "4" in quotes'),
    "null as key": (b"~: x", "a key must be text"),
    "no as key": (b"no: x", 'write "no" in quotes'),
    "list as key": (b"? [a]\n: b", "m.yml:1: a key must be text"),
    "no as value": (b"a: 1\nb: no", "m.yml:2: no is a truth value"),
    "octal": (b"a: 010", "m.yml:1: 010 is octal"),
    "sexagesimal": (b"a: 1:30", "base 60"),
    "deep flow": (b"a: " + b"[" * 900 + b"]" * 900, "m.yml:1: nested deeper than 50 levels"),
    "unclosed and very deep": (b"[" * 500_000, "nested deeper than 50"),
    "too large": (b"#" * (MAX_BYTES + 1), "m.yml:1: the file is larger than 1,000,000 bytes"),
    "too many values": (b"[" + b"a," * 400_000 + b"]", "more than 100,000 values"),
    "two documents": (b"a: 1\n---\nb: 1", "m.yml:2: a second document begins here"),
    "UTF-16": ("a: 1".encode("utf-16"), "m.yml:1: the file is not UTF-8"),
    "Latin-1": ("a: 1\nb: ü".encode("latin-1"), "m.yml:2: the file is not UTF-8"),
    "raw control character": (b"a: 1\nb: \x1b[31m", r"m.yml:2: the control character \x1b"),
    "raw line separator": ("a: \u2028".encode(), r"the control character \u2028"),
    "escaped control character": (b'a: "\\x07"', r"m.yml:1: the character \x07 may not stand"),
    "lone surrogate": (b'a: "\\ud800"', "m.yml:1: "),
    "tab as indent": (b"a:\n\tb: 1", "m.yml:2: not valid YAML: found character"),
    "unclosed list": (b"a: [1", "not valid YAML"),
    "at sign": (b"a: @x", "needs quotes"),
    "future version": (b"%YAML 3.0\n---\na: 1", "m.yml:1: not valid YAML"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "sentence"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_with_place_and_remedy(text, sentence, either_parser):
    start = time.perf_counter()
    _, mistakes = parse_tree(text, "m.yml")
    assert any(sentence in str(mistake) for mistake in mistakes), mistakes
    assert all("\n" not in mistake.message and mistake.message.isprintable() for mistake in mistakes)
    assert time.perf_counter() - start < 30


def test_parsing_goes_on_after_a_mistake(either_parser):
    _, mistakes = parse_tree(b"a: no\nb: &x 010\nc: *x\nd: !t 1\ne: 1\ne: 2\n7: x\nf: [off]\n", "m.yml")
    assert [mistake.location.line for mistake in mistakes] == [1, 2, 2, 3, 4, 6, 7, 8]


def test_a_tab_gets_its_own_remedy():
    _, (mistake,) = parse_tree(b"a:\n\tb: 1", "m.yml")
    assert mistake.message.endswith("indent with spaces, not tabs")
