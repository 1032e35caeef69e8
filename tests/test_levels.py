"""The shape of the package: who may import whom (design, section 4), how long things are, and that all is explained."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import checker
from checker.registry import all_checks

ROOT = Path(checker.__file__).parent
LEVELS = {
    0: ("domain", "facts", "errors"),
    1: (
        "registry",
        "matrix",
        "checkpoint",
        "reference",
        "reporters",
        "architecture",
        "coded",
        "protocol",
        "data",
        "code_books",
        "inventory",
        "config_values",
        "comparison",
        "known_good",
        "atomic",
        "costs",
    ),
    2: ("checks", "methods", "stages"),
    3: ("subject", "live", "behaviour", "probes", "handover"),
    4: ("worker", "workers", "runner", "process", "provision", "references", "board", "overlay", "pull_request"),
    5: ("cli", "commands"),
}
LEVEL = {name: level for level, names in LEVELS.items() for name in names}
HEAVY = {"torch", "transformers", "bitsandbytes", "accelerate"}
MAY_IMPORT_HEAVY = ("methods", "probes", "data")  # and only inside functions
FOR_CHECKS = {"checker.domain", "checker.facts", "checker.errors", "checker.registry", "checker.architecture", "numpy"}
LONGEST_FILE, LONGEST_FUNCTION = 300, 50
BROAD = {"probes/load.py", "worker.py"}  # a load attempt, and one check

FILES = sorted(ROOT.rglob("*.py"))
TREES = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def imports(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    """Every module that is imported and used at run time, and whether that is done as the file is imported.

    ``if TYPE_CHECKING`` counts for levels, not for the weight of an import; it is told as not at import.
    """

    def visit(node: ast.AST, at_import: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, at_import) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, "imports are absolute"
                yield str(child.module), at_import
                if child.module and child.module.startswith("checker"):
                    yield from ((f"{child.module}.{alias.name}", at_import) for alias in child.names)
            else:
                inside = isinstance(child, Function | ast.Lambda) or (
                    isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
                )
                yield from visit(child, at_import and not inside)

    yield from visit(tree, True)


def part(name: str) -> str:
    """``probes`` for ``checker.probes.load`` and for ``probes/load.py``."""
    return name.removeprefix("checker.").partition(".")[0].partition("/")[0].removesuffix(".py")


def functions(tree: ast.Module) -> Iterator[tuple[Function, bool]]:
    """Every function, and whether it is public: not underscored, nor in anything that is, nor inside a function."""

    def visit(node: ast.AST, public: bool) -> Iterator[tuple[Function, bool]]:
        for child in ast.iter_child_nodes(node):
            named = isinstance(child, Function | ast.ClassDef)
            seen = public and not (named and child.name.startswith("_"))
            if isinstance(child, Function):
                yield child, seen
            yield from visit(child, seen and not isinstance(child, Function))

    yield from visit(tree, True)


def test_every_part_of_the_package_has_a_level():
    parts = {part(name) for name in TREES} - {"__init__", "__main__"}
    assert parts - LEVEL.keys() - {"environment"} == set()


@pytest.mark.parametrize("name", TREES)
def test_nothing_imports_a_higher_level(name: str):
    here = part(name)
    if here not in LEVEL:
        pytest.skip("no level: the package itself, or what only commands use")
    for imported, _ in imports(TREES[name]):
        if imported.startswith("checker.") and part(imported) in LEVEL:
            assert LEVEL[part(imported)] <= LEVEL[here], f"{name} imports {imported}"


@pytest.mark.parametrize("name", TREES)
def test_heavy_libraries_are_imported_where_they_are_used(name: str):
    for imported, at_import in imports(TREES[name]):
        if imported.partition(".")[0] in HEAVY:
            assert not at_import, f"{name} imports {imported} as it is imported"
            if part(name) in LEVEL and LEVEL[part(name)] < 3:
                assert part(name) in MAY_IMPORT_HEAVY, f"{name} has no business with {imported}"


@pytest.mark.parametrize("name", [name for name in TREES if part(name) == "domain" or part(name) in LEVELS[0]])
def test_level_0_needs_the_standard_library_only(name: str):
    for imported, _ in imports(TREES[name]):
        top = imported.partition(".")[0]
        assert top in sys.stdlib_module_names or (top == "checker" and part(imported) in LEVELS[0]), imported


@pytest.mark.parametrize("name", [name for name in TREES if name.startswith("checks/")])
def test_checks_see_facts_only(name: str):
    for imported, _ in imports(TREES[name]):
        known = any(imported == item or imported.startswith(f"{item}.") for item in FOR_CHECKS)
        assert known or imported.partition(".")[0] in sys.stdlib_module_names, f"{name} imports {imported}"


@pytest.mark.parametrize("name", TREES)
def test_files_are_short(name: str):
    lines = len((ROOT / name).read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST_FILE


@pytest.mark.parametrize("name", TREES)
def test_functions_are_short(name: str):
    lengths = {node.name: node.end_lineno - node.lineno + 1 for node, _ in functions(TREES[name])}
    assert {function: length for function, length in lengths.items() if length > LONGEST_FUNCTION} == {}


@pytest.mark.parametrize("name", TREES)
def test_all_that_is_public_is_explained(name: str):
    tree = TREES[name]
    assert ast.get_docstring(tree), "the module has no docstring"
    bare = [node.name for node, public in functions(tree) if public and not ast.get_docstring(node)]
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    assert bare + [node.name for node in classes if not ast.get_docstring(node)] == []


@pytest.mark.parametrize("name", TREES)
def test_every_function_is_annotated(name: str):
    for node, _ in functions(TREES[name]):
        given = node.args
        arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs]
        arguments += [item for item in (given.vararg, given.kwarg) if item is not None]
        bare = [item.arg for item in arguments if item.annotation is None and item.arg not in ("self", "cls")]
        assert not bare, f"{node.name}: {bare}"
        assert node.returns is not None, f"{node.name} does not say what it returns"


def test_exceptions_are_caught_broadly_at_two_boundaries_only():
    found = [
        name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or {"Exception", "BaseException"} & {*ast.unparse(node.type).split(", ")})
        and not (isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None)  # cleans up and lets it pass
    ]
    assert sorted(found) == sorted(BROAD)


@pytest.mark.parametrize("item", all_checks(), ids=lambda item: item.id)
def test_a_check_begins_with_a_sentence(item):
    assert item.summary
    assert len(item.summary) <= 120
    assert item.summary[0].isupper() or item.summary.startswith(("`", "config.json"))
    assert item.summary.endswith((".", ":")) or ". " in item.summary or item.documentation.count("\n") > 0
    first = item.documentation.partition("\n\n")[0]
    assert first.endswith((".", ":")), "the first paragraph is a sentence"


def test_no_comment_names_who_wrote_it_or_where():
    for name in TREES:
        text = (ROOT / name).read_text(encoding="utf-8")
        assert str(ROOT.parent) not in text
        assert "/root/" not in text
