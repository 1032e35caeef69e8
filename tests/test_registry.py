"""Discovery, selection, limits, and the domains of configuration values."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from checker import registry
from checker.config_values import boolean, did_you_mean, names_or_none, number, one_of
from checker.domain import Depth, Limit
from checker.errors import UsageError
from checker.facts import ArtifactFacts, LoadFacts, WeightFacts
from checker.registry import (
    Limits,
    Method,
    all_checks,
    all_methods,
    check,
    config_flaws,
    method_declared,
    register_method,
    resolve_limits,
    selected_checks,
)

NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
INT8 = {"quant_method": "bitsandbytes", "load_in_8bit": True}
# ids never change; those of the catalogue that a later version brings are not listed
FIXED = [
    "config.present",
    "config.method",
    "config.keys",
    "config.truthful",
    "config.roundtrip",
    "layers.coverage",
    "layers.excluded",
    "layers.complete",
    "layers.tied",
    "layers.classes",
    "dtypes.storage",
    "dtypes.loaded",
    "memory.ratio",
    "memory.footprint",
    "weights.scales",
    "weights.codes",
    "weights.error",
    "loading.keys",
    "loading.quantized",
    "outputs.finite",
    "outputs.known-good",
    "outputs.degenerate",
    "outputs.divergence",
    "outputs.likelihood",
    "outputs.modules",
    "roundtrip.checkpoint",
    "files.valid",
]


def ids(checks):
    return [item.id for item in checks]


@pytest.fixture
def empty_tables(monkeypatch):
    monkeypatch.setattr(registry, "_CHECKS", {})
    monkeypatch.setattr(registry, "_METHODS", {})


def test_every_check_of_the_catalogue_is_found():
    assert set(FIXED) <= set(ids(all_checks()))


def test_checks_come_cheapest_first_then_by_id():
    order = [(list(Depth).index(item.depth), item.id) for item in all_checks()]
    assert order == sorted(order)


def test_needs_follow_the_types_of_the_parameters():
    needs = {item.id: [(need.kind, need.optional) for need in item.needs] for item in all_checks()}
    assert needs["config.roundtrip"] == [(ArtifactFacts, False), (LoadFacts, True)]
    assert needs["weights.error"] == [(WeightFacts, False), (Limits, False)]


def test_what_could_crash_a_kernel_guards_the_load():
    guards = {item.id for item in all_checks() if item.guards_load}
    assert guards >= {"files.valid", "layers.complete", "dtypes.storage"}
    assert all(item.depth is Depth.STATIC for item in all_checks() if item.guards_load)


@pytest.mark.usefixtures("empty_tables")
def test_a_check_is_registered_once():
    @check("family.name", depth=Depth.LOAD, limits={"x": Limit(warn=1)}, guards_load=True)
    def one(artifact: ArtifactFacts, limits: Limits):
        """First line.

        More.
        """
        yield from ()

    [item] = registry._CHECKS.values()
    assert (item.id, item.depth, item.guards_load, item.limits) == (
        "family.name",
        Depth.LOAD,
        True,
        {"x": Limit(warn=1)},
    )
    assert (item.summary, item.documentation) == ("First line.", "First line.\n\nMore.")
    assert item.function is one
    with pytest.raises(ValueError, match=r"two checks are called family\.name"):
        check("family.name", depth=Depth.LOAD)(one)


@pytest.mark.usefixtures("empty_tables")
def test_a_check_names_the_types_of_its_facts():
    def untyped(artifact):
        yield from ()

    with pytest.raises(KeyError):
        check("a.b", depth=Depth.STATIC)(untyped)
    assert not registry._CHECKS


@pytest.mark.usefixtures("empty_tables")
def test_a_check_without_a_docstring_has_no_documentation():
    @check("a.b", depth=Depth.STATIC)
    def bare(artifact: ArtifactFacts):
        yield from ()

    assert registry._CHECKS["a.b"].documentation == registry._CHECKS["a.b"].summary == ""
    assert bare is registry._CHECKS["a.b"].function


@pytest.mark.parametrize(
    ("depth", "select", "ignore", "selected"),
    [
        pytest.param(Depth.STATIC, ["config.*"], [], {name for name in FIXED if name.startswith("config.")}, id="glob"),
        pytest.param(Depth.STATIC, ["layers.classes"], [], set(), id="a deeper check does not belong to the depth"),
        pytest.param(Depth.FULL, ["layers.classes"], [], {"layers.classes"}, id="a lesser depth is included"),
        pytest.param(Depth.STATIC, ["*.tied", "memory.*"], ["memory.ratio"], {"layers.tied"}, id="ignore wins"),
        pytest.param(Depth.STATIC, [], ["*"], set(), id="all ignored"),
    ],
)
def test_selection(depth, select, ignore, selected):
    assert set(ids(selected_checks(depth, select, ignore))) == selected


def test_selection_takes_iterators():
    assert ids(selected_checks(Depth.STATIC, iter(["config.keys"]), iter([]))) == ["config.keys"]


@pytest.mark.parametrize(("select", "ignore"), [(["layers.covrage"], []), ([], ["layers.covrage"])])
def test_a_glob_without_a_match_offers_the_nearest(select, ignore):
    with pytest.raises(UsageError, match=r"'layers\.covrage' \(did you mean 'layers\.coverage'\?\)"):
        selected_checks(Depth.FULL, select, ignore)


@pytest.mark.parametrize(
    ("method", "cell", "expected"),
    [
        pytest.param({}, {}, Limit(warn=1.15, fail=1.5), id="the check's own"),
        pytest.param({"weights.error.R": Limit(fail=2.0)}, {}, Limit(warn=1.15, fail=2.0), id="the method's bar"),
        pytest.param(
            {"weights.error.R": Limit(warn=1.3, fail=2.0)},
            {"weights.error.R": Limit(warn=1.4)},
            Limit(warn=1.4, fail=2.0),
            id="the cell over the method over the check",
        ),
        pytest.param({}, {"weights.error.R": Limit(warn=0.0)}, Limit(warn=0.0, fail=1.5), id="zero is a bar"),
        pytest.param({}, {"weights.codes.R": Limit(warn=9)}, Limit(warn=1.15, fail=1.5), id="another check's"),
    ],
)
def test_limits(method, cell, expected):
    item = next(item for item in all_checks() if item.id == "weights.error")
    resolved = resolve_limits(item, method, cell)
    assert resolved["R"] == expected
    assert resolved["gain"] == Limit(fail=0.02)


def test_limits_of_methods_name_a_check_and_a_metric():
    known = {f"{item.id}.{metric}" for item in all_checks() for metric in item.limits}
    assert {name for method in all_methods() for name in method.limits} <= known


@pytest.mark.parametrize(
    ("domain", "good", "bad"),
    [
        pytest.param(boolean, [True, False], [1, 0, "true", None], id="boolean"),
        pytest.param(number, [0, 6.0, 10**400], [-1, True, "6", None, float("nan"), float("inf"), []], id="number"),
        pytest.param(names_or_none, [None, [], ["a"]], ["a", [""], [1], {"a": 1}, ["a", None]], id="names"),
        pytest.param(one_of("nf4", 4, None), ["nf4", 4, None], ["NF4", 4.0, True, "4", ["nf4"], {}], id="one of"),
    ],
)
def test_domains(domain, good, bad):
    assert [value for value in good if domain(value) is not None] == []
    assert [value for value in bad if domain(value) is None] == []


def test_a_domain_quotes_a_bounded_part_of_the_value():
    for domain in (boolean, number, names_or_none, one_of("a")):
        assert len(domain("x" * 100_000)) < 400


def test_one_of_offers_the_nearest():
    assert one_of("nf4", "fp4")("NF4").endswith("(did you mean 'nf4'?)")
    assert "null" in one_of("nf4", None)("zzz")


def test_did_you_mean():
    assert did_you_mean("bnb_4bit_quant_typ", ["bnb_4bit_quant_type", "x"]) == " (did you mean 'bnb_4bit_quant_type'?)"
    assert did_you_mean("zzz", ["abc"]) == did_you_mean("zzz", []) == ""


def test_methods_come_by_id_and_have_documentation():
    methods = all_methods()
    assert [method.id for method in methods] == sorted(method.id for method in methods)
    assert {"bitsandbytes-4bit", "bitsandbytes-8bit"} <= {method.id for method in methods}
    assert all(method.documentation for method in methods)


def test_a_method_is_registered_once():
    with pytest.raises(ValueError, match="two methods are called"):
        register_method(all_methods()[0])


@pytest.mark.parametrize(
    ("config", "declared"),
    [
        pytest.param(NF4, "bitsandbytes-4bit", id="4 bit"),
        pytest.param(INT8, "bitsandbytes-8bit", id="8 bit"),
        pytest.param({"load_in_4bit": True}, "bitsandbytes-4bit", id="no quant_method"),
        pytest.param({"load_in_8bit": True}, "bitsandbytes-8bit", id="no quant_method, 8 bit"),
        pytest.param({**NF4, "load_in_8bit": True}, "bitsandbytes-4bit", id="both flags, as transformers takes them"),
        pytest.param({"quant_method": "bitsandbytes"}, "bitsandbytes-4bit", id="neither flag"),
        pytest.param({}, None, id="nothing"),
        pytest.param({"quant_method": "gptq", "load_in_4bit": True}, "gptq", id="another method with the flag"),
        pytest.param({"quant_method": ["bitsandbytes"]}, None, id="not a string"),
    ],
)
def test_which_method_a_config_declares(config, declared):
    method = method_declared(config)
    assert (method.id if method else None) == declared


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        pytest.param({}, [], id="sound"),
        pytest.param({"bnb_4bit_quant_typo": 1}, ["bnb_4bit_quant_typo"], id="unknown key"),
        pytest.param({"bnb_4bit_quant_type": "NF4"}, ["bnb_4bit_quant_type"], id="capitals"),
        pytest.param({"bnb_4bit_use_double_quant": "yes"}, ["bnb_4bit_use_double_quant"], id="not a boolean"),
        pytest.param({"load_in_8bit": True}, ["load_in_8bit"], id="both flags"),
        pytest.param({"load_in_4bit": False}, ["load_in_4bit"], id="neither flag"),
        pytest.param({"llm_int8_has_fp16_weight": True}, ["llm_int8_has_fp16_weight"], id="16-bit weights"),
        pytest.param({"a": 1, "llm_int8_threshold": -1}, ["a", "llm_int8_threshold"], id="all at once"),
    ],
)
def test_config_flaws(changes, keys):
    config = {**NF4, **changes}
    flaws = config_flaws(method_declared(config), config)
    assert [key for key, _ in flaws] == keys
    assert all(key in message for key, message in flaws)


def test_a_config_without_its_method_s_name_is_flawed():
    config = {"load_in_4bit": True}
    assert [key for key, _ in config_flaws(method_declared(config), config)] == ["quant_method"]


@pytest.mark.parametrize("key", ["a\nb", "\x1b[31m", "x" * 10_000, "\u202e"], ids=ascii)
def test_a_hostile_key_is_shown_on_one_short_line(key):
    config = {**NF4, key: 1}
    [(found, message)] = config_flaws(method_declared(config), config)
    assert found == key
    assert message.isprintable()
    assert len(message) < 250


def test_what_the_library_writes_is_sound():
    transformers = pytest.importorskip("transformers")
    for options in (
        {"load_in_4bit": True},
        {"load_in_8bit": True},
        {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    ):
        config = json.loads(json.dumps(transformers.BitsAndBytesConfig(**options).to_dict()))
        assert config_flaws(method_declared(config), config) == []


def test_a_method_has_no_contradictions_unless_it_says_so():
    four = all_methods()[0]
    plain = Method(
        id="x",
        quant_method="x",
        documentation="x",
        keys={},
        declares=four.declares,
        declared=four.declared,
        recognise=four.recognise,
        layout=four.layout,
        skips=four.skips,
    )
    assert plain.contradictions({}) == []


def test_listing_the_methods_imports_no_numpy():
    """Commands that open no checkpoint start in a third of a second; numpy alone would take a fifth of one."""
    code = "import sys; from checker.registry import all_methods; all_methods(); sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parent.parent).returncode == 0
