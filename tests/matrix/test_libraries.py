"""Libraries as an axis: which cells there are, what they are called, what globs see, and every mistake with its line."""

# ruff: noqa: E501 - the tables hold one case a line
from __future__ import annotations

import pytest

from checker.matrix.jobs import plan
from checker.matrix.packages import belongs_to_torch, canonical, label, wrong_package, wrong_version
from checker.matrix.select import only, shard

HEAD = """\
version: 1
quantizations:
  nf4: {quant_method: bitsandbytes, load_in_4bit: true}
  int8: {quant_method: bitsandbytes, load_in_8bit: true}
"""
AXIS = "defaults: {quantizations: [nf4], libraries: [{}, {bitsandbytes: 0.49.2}]}\n"
BNB, TRANSFORMERS = "m/nf4@bitsandbytes-0.49.2", "m/nf4@transformers-5.17.0"


def ids(matrix):
    return [cell.id for cell in matrix.cells]


def by_id(matrix):
    return {cell.id: cell for cell in matrix.cells}


CELLS = {
    "defaults": (AXIS + "models: [o/m, o/n]", ["m/nf4", BNB, "n/nf4", "n/nf4@bitsandbytes-0.49.2"]),
    "checkpoints as well": (
        AXIS + "models: [{name: p, checkpoints: {w: o/w}}]",
        ["p/w", "p/w@bitsandbytes-0.49.2"],
    ),
    "a model's own axis replaces": (
        AXIS + "models: [{baseline: o/m, libraries: [{transformers: 5.17.0}]}]",
        [TRANSFORMERS],
    ),
    "an empty list turns it off": (AXIS + "models: [{baseline: o/m, libraries: []}]", ["m/nf4"]),
    "one entry without the list": (AXIS + "models: [{baseline: o/m, libraries: {transformers: 5.17.0}}]", [TRANSFORMERS]),
    "the empty entry alone is the plain cell": (AXIS + "models: [{baseline: o/m, libraries: [{}]}]", ["m/nf4"]),
    "several packages, in the order given": (
        AXIS + "models: [{baseline: o/m, libraries: [{transformers: 5.17.0, accelerate: 1.14.0}]}]",
        ["m/nf4@transformers-5.17.0+accelerate-1.14.0"],
    ),
    "names in one spelling": (
        AXIS + "models: [{baseline: o/m, libraries: [{Huggingface_Hub: '1.0'}]}]",
        ["m/nf4@huggingface-hub-1.0"],
    ),
    "versions in one spelling": (
        AXIS + "models: [{baseline: o/m, libraries: [{a: v1.0-RC1}, {b: 1.0+CU121}]}]",
        ["m/nf4@a-1.0rc1", "m/nf4@b-1.0+cu121"],
    ),
    "an override gives an axis, its glob without the axis": (
        AXIS + "models: [o/m, o/n]\noverrides: [{cells: m/nf4, libraries: [{}, {transformers: 5.17.0}]}]",
        ["m/nf4", TRANSFORMERS, "n/nf4", "n/nf4@bitsandbytes-0.49.2"],
    ),
    "the last override wins": (
        AXIS + "models: [o/m]\noverrides: [{cells: 'm/*', libraries: []}, {cells: '*', libraries: [{transformers: 5.17.0}]}]",
        [TRANSFORMERS],
    ),
    "an override of a quantization that another one adds": (
        AXIS + "models: [o/m]\noverrides: [{cells: '*', quantizations: [int8]}, {cells: '*/int8', libraries: []}]",
        ["m/int8"],
    ),
    "excluded by its libraries": (AXIS + "models: [o/m, o/n]\nexclude: ['n/*@*']", ["m/nf4", BNB, "n/nf4"]),
    "excluded without them": (AXIS + "models: [o/m]\nexclude: [m/nf4]", [BNB]),
    "excluded wholly": (AXIS + "models: [o/m]\nexclude: ['m/nf4*']", []),
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), CELLS.values(), ids=CELLS.keys())
def test_cells(text, expected, load):
    assert ids(load(HEAD + text)) == expected


def test_a_cell_knows_its_libraries_and_its_line(load):
    cells = by_id(load(HEAD + AXIS + "models: [{baseline: o/m, checkpoints: {w: o/w}}]"))
    assert cells["m/nf4"].libraries == {}
    assert cells[BNB].libraries == {"bitsandbytes": "0.49.2"}
    assert cells[BNB].quantization == cells["m/nf4"].quantization
    assert cells[BNB].origin == cells["m/nf4"].origin
    assert cells["m/w@bitsandbytes-0.49.2"].checkpoint == cells["m/w"].checkpoint


OVERRIDES = {
    "the plain cell alone": ("m/nf4", {"m/nf4"}),
    "a star for the axis": ("m/nf4*", {"m/nf4", BNB}),
    "the other libraries alone": ("m/nf4@*", {BNB}),
    "one of them": (BNB, {BNB}),
    "all": ("*", {"m/nf4", BNB}),
}


@pytest.mark.parametrize(("glob", "expected"), OVERRIDES.values(), ids=OVERRIDES.keys())
def test_globs_of_overrides_see_the_whole_id(glob, expected, load):
    matrix = load(f"{HEAD}{AXIS}models: [o/m]\noverrides: [{{cells: '{glob}', gpus: 7}}]")
    assert {cell.id for cell in matrix.cells if cell.settings.gpus == 7} == expected


def test_what_else_an_override_with_libraries_sets_holds_for_the_cells_that_it_makes(load):
    text = "models: [o/m]\noverrides: [{cells: m/nf4, libraries: [{}, {transformers: 5.17.0}], gpus: 7}]"
    assert {cell.id: cell.settings.gpus for cell in load(HEAD + AXIS + text).cells} == {"m/nf4": 7, TRANSFORMERS: 7}


def model(libraries: str) -> str:
    return f"{HEAD}models:\n  - baseline: o/m\n    quantizations: [nf4]\n    libraries: {libraries}\n"


REFUSED = {
    "unquoted 0.50": ("[{bitsandbytes: 0.50}]", '8: models.libraries.bitsandbytes: must be a version in quotes, such as "0.50": without them YAML reads 0.5, which is no text'),
    "unquoted 5": ("[{a: 5}]", "must be a version in quotes"),
    "a date": ("[{a: 2026-01-01}]", "must be a version in quotes"),
    "nothing": ("[{a: }]", "must be a version in quotes"),
    "a version as a list": ("[{a: ['1.0', '1.1']}]", "must be a version in quotes"),
    "a requirement": ("['bitsandbytes==0.49.2']", "8: models.libraries: must be a mapping of packages to versions, such as {bitsandbytes: 0.49.2}, not 'bitsandbytes==0.49.2'"),
    "null for the empty entry": ("[null]", "must be a mapping of packages to versions"),
    "null for the list": ("null", "8: models.libraries: must be a list, not null"),
    "text": ("bitsandbytes", "must be a list, not 'bitsandbytes'"),
    "a range": ("[{a: '>=1.0'}]", "8: models.libraries.a: '>=1.0' is no exact version; write {package: version} with one version as the package index lists it"),
    "a wildcard": ("[{a: 1.0.*}]", "'1.0.*' is no exact version"),
    "two equals signs": ("[{a: ==1.0}]", "'==1.0' is no exact version"),
    "latest": ("[{a: latest}]", "'latest' is no exact version"),
    "an address as version": ("[{a: 'git+https://x/y'}]", "is no exact version"),
    "a space": ("[{a: '1.0 --pre'}]", "'1.0 --pre' is no exact version"),
    "a space around": ("[{a: ' 1.0'}]", "' 1.0' is no exact version"),
    "empty": ("[{a: ''}]", "'' is no exact version"),
    "name and version as keys": ("[{name: bitsandbytes, version: 0.49.2}]", "models.libraries.name: 'bitsandbytes' is no exact version; write {package: version}"),
    "a number under a key that elsewhere has a meaning": ("[{version: 0.49}]", "models.libraries.version: must be a version in quotes"),
    "an option": ("[{'-r': x}]", "'-r' is no name of a package; write {package: version}, such as {bitsandbytes: 0.49.2}, without URL, option, extra or range"),
    "an address": ("[{'git+https://x/y': '1.0'}]", "is no name of a package"),
    "an extra": ("[{'transformers[torch]': '5.17.0'}]", "'transformers[torch]' is no name of a package"),
    "a path": ("[{./wheel: '1.0'}]", "'./wheel' is no name of a package"),
    "a letter that only looks right": ("[{toK: '1.0'}]", "is no name of a package"),
    "torch": ("[{torch: 2.12.0}]", "models.libraries.torch: torch belongs to the torch installation, whose compiled parts fit one another only; run the matrix in another environment"),
    "Torch": ("[{Torch: 2.12.0}]", "Torch belongs to the torch installation"),
    "triton": ("[{triton: 3.0.0}]", "triton belongs to the torch installation"),
    "a cuda library": ("[{nvidia_cublas_cu12: 12.1.0}]", "nvidia_cublas_cu12 belongs to the torch installation"),
    "the judge": ("[{quant_verify: 1.0.0}]", "quant_verify is what judges, so it cannot be laid over"),
    "twice the same": ("[{a: '1.0'}, {}, {A: '1.0'}]", "8: models.libraries: a-1.0 stands twice, as entries 1 and 3; remove one"),
    "twice the same in another order": ("[{a: '1.0', b: '2'}, {b: '2', a: '1.0'}]", "b-2+a-1.0 stands twice"),
    "twice the empty entry": ("[{}, {}]", "models.libraries: {} stands twice, as entries 1 and 2"),
    "one package, two spellings": ("[{a_b: '1.0', a-b: '1.1'}]", "models.libraries.a-b: a-b and a_b are one package; remove one"),
    "an epoch": ("[{a: 1!1.0}]", "'a-1!1.0' cannot be part of a cell id"),
    "too many packages": ("[{" + ", ".join(f"p{n}: '1'" for n in range(21)) + "}]", "holds 21 entries, more than 20"),
    "too long for an id": ("[{" + ", ".join(f"{'p' * 40}{n}: '1'" for n in range(4)) + "}]", "cannot be part of a cell id, which holds up to 128"),
    "too many entries": ("[" + ", ".join(f"{{p: '{n}'}}" for n in range(101)) + "]", "holds 101 entries, more than 100"),
}  # fmt: skip


@pytest.mark.parametrize(("libraries", "sentence"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_with_line_key_and_remedy(libraries, sentence, mistakes):
    found = mistakes(model(libraries))
    assert any(sentence in line for line in found), found
    assert all(line.startswith("quant-verify.yml:8: models.libraries") for line in found)


def test_the_line_is_that_of_the_package(mistakes):
    text = model("\n      - {}\n      - bitsandbytes: 0.49.2\n        torch: 2.13.0\n      - accelerate: latest")
    assert [line.partition(" ")[0] for line in mistakes(text)] == ["quant-verify.yml:11:", "quant-verify.yml:12:"]


def test_a_mistake_in_the_axis_causes_no_second_one(mistakes):
    text = f"{model('[{bitsandbytes: 0.50}]')}overrides:\n  - {{cells: 'm/nf4@bitsandbytes-0.50', gpus: 2}}\n"
    assert len(mistakes(text)) == 1
    assert len(mistakes(text.replace("0.50}]", "latest}]"))) == 1


OVERRIDES_OF_NOTHING = {
    "all cells of the name have libraries": (
        "[{bitsandbytes: 0.49.2}]",
        "{cells: m/nf4, gpus: 2}",
        "'m/nf4' matches no cell; all cells of that name have libraries, so write 'm/nf4@*'",
    ),
    "misspelt": ("[{bitsandbytes: 0.49.2}]", "{cells: m/nf5*, gpus: 2}", "'m/nf5*' matches no cell"),
    "libraries for ids with libraries": (
        "[{bitsandbytes: 0.49.2}]",
        "{cells: 'm/nf4@*', libraries: []}",
        "'m/nf4@*' matches no cell (did you mean 'm/nf4'?)",
    ),
}


@pytest.mark.parametrize(
    ("libraries", "override", "sentence"), OVERRIDES_OF_NOTHING.values(), ids=OVERRIDES_OF_NOTHING.keys()
)
def test_an_override_of_nothing(libraries, override, sentence, mistakes):
    (found,) = mistakes(f"{model(libraries)}overrides: [{override}]")
    assert sentence in found


def test_the_axis_counts_towards_the_limit_of_cells(mistakes):
    axis = ", ".join(f"{{p: '{n}'}}" for n in range(100))
    models = "".join(f"  - o/m{n}\n" for n in range(101))
    (found,) = mistakes(f"{HEAD}defaults: {{quantizations: [nf4], libraries: [{axis}]}}\nmodels:\n{models}")
    assert "10,100 cells are more than 10,000" in found


def test_libraries_may_not_stand_at_the_top(mistakes):
    (found,) = mistakes(f"{HEAD}models: [{{name: p, checkpoints: [o/a]}}]\nlibraries: [{{}}]")
    assert "libraries: may stand in defaults, in a model or in an override, not at the top" in found


def test_parts_of_the_matrix_keep_working(load):
    cells = load(HEAD + AXIS.replace("[nf4]", "[nf4, int8]") + "models: [o/m, o/n]").cells
    names = [cell.id for cell in cells]
    assert [cell.id for cell in only(cells, ["m/nf4@*"])] == [BNB]
    assert sorted(cell.id for index in (1, 2, 3) for cell in shard(cells, index, 3)) == sorted(names)
    jobs = plan(cells)["include"]
    assert [job["job"] for job in jobs] == ["m", "n"], "one job for each baseline, whatever the libraries"
    assert [name for job in jobs for name in job["cells"].split(",")] == names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("torch", True),
        ("triton", True),
        ("nvidia-cuda-runtime", True),
        ("pytorch-triton-rocm", True),
        ("torchao", False),
        ("torchvision", False),
        ("bitsandbytes", False),
    ],
)
def test_what_belongs_to_torch(name, expected):
    assert belongs_to_torch(name) is expected
    assert (wrong_package(name) is not None) is expected


def test_a_name_that_ends_in_a_line_end_is_none():
    assert "is no name" in str(wrong_package("torch\n"))
    assert "is no exact version" in str(wrong_version("1.0\n"))
    assert "is no exact version" in str(wrong_version("1.0po\u017ft1"))


def test_the_label_is_in_the_order_given():
    assert label(canonical({"B.b": "2", "a": "1.0"})) == "b-b-2+a-1.0"
