"""files.*, loading.*, outputs.* and roundtrip.*: what is said of the files, of a load, and of a running model."""

from __future__ import annotations

import pytest
from healthy_facts import (
    Expect,
    Q,
    artifact,
    assert_findings,
    judge,
    load,
    loaded,
    outputs,
    parameter,
    roundtrip,
    snapshot,
    structure,
)

from checker.domain import Severity
from checker.facts import Flaw

WARN = Severity.WARN


def test_flaws_of_the_files_are_findings_as_they_are():
    flaw = Flaw(message="x is cut short", where="x", severity=WARN, observed=3, expected=8, hint="again")
    [finding] = judge("files.valid", artifact(flaws=(flaw,)))[0]
    assert (finding.message, finding.where, finding.severity) == ("x is cut short", "x", WARN)
    assert (finding.observed, finding.limit, finding.hint) == (3, 8, "again")
    assert judge("files.valid", artifact())[0] == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, [], id="healthy"),
        pytest.param(
            {"flaw": "ValueError: no", "exception": "ValueError", "missing_keys": ("a",)},
            [Expect("", ("does not load: ValueError: no",), observed="ValueError", limit="loads")],
            id="does not load, and nothing else is said",
        ),
        pytest.param({"missing_keys": ("a",)}, [Expect("a", ("a is missing",))], id="missing"),
        pytest.param({"mismatched_keys": ("a",)}, [Expect("a", ("a has another shape",))], id="mismatched"),
        pytest.param(
            {"unexpected_keys": ("a", "b")}, [Expect("a", ("dropped",), WARN), Expect("b", (), WARN)], id="extra"
        ),
    ],
)
def test_keys(changes, expected):
    assert_findings(judge("loading.keys", load(**changes))[0], expected)


@pytest.mark.parametrize(
    ("load_changes", "changes", "expected"),
    [
        pytest.param({}, {}, [], id="healthy"),
        pytest.param({}, {"after": None, "is_quantized_after": None}, [], id="no forward was run"),
        pytest.param(
            {},
            {"before": snapshot(quantized_modules=0), "after": snapshot(quantized_modules=0)},
            [Expect("", ("no module is quantized", "True"), observed=0, limit=1)],
            id="the flag is set, no module is quantized",
        ),
        pytest.param(
            {"is_quantized": False},
            {},
            [Expect("", ("says it is not quantized",), observed="is_quantized=False, hf_quantizer=Bnb4BitHfQuantizer")],
            id="the flag is not set",
        ),
        pytest.param({"quantizer": None}, {}, [Expect("", ("says it is not quantized",))], id="no quantizer"),
        pytest.param(
            {},
            {"after": snapshot(quantized_modules=1)},
            [Expect("", ("3 modules were quantized, 1 after",), observed=1, limit=3)],
            id="unpacked by the first forward",
        ),
        pytest.param(
            {},
            {"is_quantized_after": False},
            [Expect("", ("3 after one forward",))],
            id="the flag falls at the first forward",
        ),
        pytest.param({}, {"device": "cuda:0", "modules": (loaded(device="cuda:1"),), "dense": ()}, [], id="any GPU"),
        pytest.param(
            {},
            {"modules": (loaded(device="meta"),)},
            [Expect(Q, (f"{Q} is on meta",), observed="meta", limit="cpu")],
            id="never materialised",
        ),
        pytest.param(
            {}, {"dense": (parameter(device="disk"),)}, [Expect("norm.weight", ("is on disk",))], id="offloaded to disk"
        ),
    ],
)
def test_quantized(load_changes, changes, expected):
    assert_findings(judge("loading.quantized", load(**load_changes), structure(**changes))[0], expected)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, [], id="healthy"),
        pytest.param(
            {"not_finite": 5},
            [Expect("", ("5 logits over 64 positions",), observed=5, limit=0)],
            id="NaN, nobody knows where from",
        ),
        pytest.param(
            {"not_finite": 5, "first_not_finite": Q},
            [Expect(Q, (f"{Q} is the first module",))],
            id="NaN, and where it begins",
        ),
        pytest.param(
            {"head_finite": False, "first_not_finite": "lm_head"},
            [Expect("lm_head", ("output head gives NaN or infinite logits in its own dtype",))],
            id="an output head that overflows",
        ),
        pytest.param(
            {"flaw": "RuntimeError: shapes", "positions": 0},
            [Expect("", ("does not run: RuntimeError: shapes",), observed="no logits", limit="logits")],
            id="does not run",
        ),
    ],
)
def test_finite(changes, expected):
    assert_findings(judge("outputs.finite", outputs(**changes))[0], expected)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, [], id="healthy"),
        pytest.param({"note": "saved otherwise"}, [], id="a workaround is noted, not blamed"),
        pytest.param(
            {"flaw": "cannot be saved", "missing": ("a",)}, [Expect("", ("cannot be saved",))], id="not saved"
        ),
        pytest.param(
            {"missing": ("a",), "added": ("b",), "changed": ("c",)},
            [Expect("a", ("a is lost",)), Expect("b", ("b appears",)), Expect("c", ("c is changed",))],
            id="another state dictionary",
        ),
        pytest.param(
            {"logits_equal": False, "logit_difference": 0.25},
            [Expect("", ("logits differ by up to 0.25",), observed=0.25, limit=0.0)],
            id="other logits",
        ),
    ],
)
def test_roundtrip(changes, expected):
    findings, measured = judge("roundtrip.checkpoint", roundtrip(**changes))
    assert_findings(findings, expected)
    assert measured == ({"notes": [changes["note"]]} if "note" in changes else {})
