"""weights.*: what scales, codes and the distance to the baseline say."""

from __future__ import annotations

import pytest
from healthy_facts import Expect, K, Q, assert_findings, code, error, judge, scale, weights

from checker.domain import ErrorKind, Limit, Severity
from checker.errors import NotApplicable, Unavailable
from checker.facts import Flaw

UNDECODABLE = (Flaw(where=f"{K}.weight", message="its shape is not known"),)
WARN = Severity.WARN

PASS = [
    pytest.param("weights.scales", weights(), {}, id="scales"),
    pytest.param("weights.scales", weights(scales=(scale(zero=3),)), {}, id="zero scales of zero blocks"),
    pytest.param("weights.scales", weights(scales=(scale(negative=9, negative_allowed=True),)), {}, id="signed layout"),
    pytest.param("weights.codes", weights(), {}, id="codes"),
    pytest.param("weights.codes", weights(codes=(code(blocks=0, with_extreme=0),)), {}, id="a weight without blocks"),
    pytest.param(
        "weights.codes", weights(codes=(code(entropy_bits=0.5, unused_codes=12),)), {}, id="entropy is no verdict"
    ),
    pytest.param(
        "weights.codes",
        weights(codes=(code(with_extreme=500),)),
        {"extreme": Limit(warn=0.4, fail=0.3)},
        id="wider bar",
    ),
    pytest.param("weights.error", weights(), {}, id="error"),
    pytest.param(
        "weights.error", weights(errors=(error(ratio=1.3),)), {"R": Limit(warn=1.4)}, id="R under a wider bar"
    ),
    pytest.param("weights.error", weights(errors=(error(ratio=0.1),)), {"exact": Limit(warn=0.05)}, id="exact allowed"),
    pytest.param(
        "weights.error", weights(errors=(error(centred_gain=0.96),)), {"gain": Limit(fail=0.1)}, id="gain allowed"
    ),
    pytest.param("weights.error", weights(errors=(error(ratio=1.4, values=64),)), {}, id="R of a few values scatters"),
    pytest.param("weights.error", weights(errors=(error(centred_gain=1.05, values=64),)), {}, id="so does their gain"),
    pytest.param("weights.error", weights(errors=()), {}, id="no layer to compare"),
]
FAIL = [
    pytest.param(
        "weights.scales",
        weights(scales=(scale(not_finite=2),)),
        {},
        [Expect(Q, (f"2 of 64 scales of {Q} are NaN or infinite",), observed=2, limit="finite")],
        id="NaN",
    ),
    pytest.param(
        "weights.scales",
        weights(scales=(scale(negative=3),)),
        {},
        [Expect(Q, ("3 of 64", "negative"), observed=3, limit="0 or more")],
        id="negative",
    ),
    pytest.param(
        "weights.scales",
        weights(scales=(scale(), scale(layer=K, zero=4, zero_with_data=4))),
        {},
        [Expect(K, (f"4 of 64 scales of {K} are zero over codes",), observed=4, limit="above 0")],
        id="zero over data",
    ),
    pytest.param(
        "weights.scales",
        weights(scales=(scale(constant=True),)),
        {},
        [Expect(Q, (f"all 64 scales of {Q} are the same",), WARN)],
        id="all the same",
    ),
    pytest.param(
        "weights.scales",
        weights(scales=(scale(constant=True, flaw="nested_absmax is zero"),)),
        {},
        [Expect(Q, (f"{Q}: nested_absmax is zero",))],
        id="a contradiction outweighs that they are the same",
    ),
    pytest.param(
        "weights.codes",
        weights(codes=(code(code_book_flaw="another code book"),)),
        {},
        [Expect(Q, (f"{Q}: another code book",))],
        id="code book",
    ),
    pytest.param(
        "weights.codes",
        weights(codes=(code(with_extreme=999),)),
        {},
        [Expect(Q, (f"1 of 1000 blocks of {Q}",), WARN, 0.999, 1.0)],
        id="one block without an extreme code",
    ),
    pytest.param(
        "weights.codes",
        weights(codes=(code(with_extreme=900),)),
        {},
        [Expect(Q, ("100 of 1000",), observed=0.9, limit=0.99)],
        id="many blocks without one",
    ),
    pytest.param(
        "weights.codes",
        weights(codes=(code(with_extreme=999),)),
        {"extreme": Limit(fail=0.9995)},
        [Expect(Q, ("1 of 1000",), observed=0.999, limit=0.9995)],
        id="a stricter bar",
    ),
    pytest.param(
        "weights.error",
        weights(errors=(error(ratio=1.2),)),
        {},
        [Expect(Q, (Q, "1.2 times", "9.0%"), WARN, 1.2, 1.15)],
        id="R above the warning bar",
    ),
    pytest.param(
        "weights.error",
        weights(errors=(error(ratio=215.0, centred_gain=0.1),)),
        {},
        [Expect(Q, ("215 times",), observed=215.0, limit=1.5)],
        id="R above the failing bar, told once",
    ),
    pytest.param(
        "weights.error",
        weights(errors=(error(ratio=1.2),)),
        {"R": Limit(fail=1.1)},
        [Expect(Q, ("1.2 times",), observed=1.2, limit=1.1)],
        id="a stricter bar of R",
    ),
    pytest.param(
        "weights.error",
        weights(errors=(error(ratio=0.01),)),
        {},
        [Expect(Q, ("closer to the baseline",), WARN, 0.01, 0.3)],
        id="too exact",
    ),
    pytest.param(
        "weights.error",
        weights(errors=(error(centred_gain=0.955),)),
        {},
        [Expect(Q, (f"the scales of {Q} are off by 4.5%",), observed=0.955, limit="1 ± 0.02")],
        id="scales drifted",
    ),
    pytest.param(
        "weights.error",
        weights(errors=(error(centred_gain=1.01),)),
        {"gain": Limit(fail=0.005)},
        [Expect(Q, ("off by 1.0%",), observed=1.01)],
        id="the bar of an 8-bit method",
    ),
    pytest.param(
        "weights.error",
        weights(errors=(error(ratio=1.9, values=64),)),
        {},
        [Expect(Q, ("1.9 times",), observed=1.9, limit=1.875)],
        id="R of a few values beyond what scatters",
    ),
    pytest.param(
        "weights.error",
        weights(errors=(error(centred_gain=0.955, nrmse=1.1, values=4096),)),
        {},
        [Expect(Q, ("off by 4.5%",), observed=0.955, limit="1 ± 0.0325")],
        id="a small layer, and an error that must not widen the bar for ever",
    ),
    pytest.param(
        "weights.error",
        weights(errors=(error(flaw="the baseline has no such tensor", ratio=0.0),)),
        {},
        [Expect(Q, (f"{Q}: the baseline has no such tensor",))],
        id="no comparison",
    ),
]


@pytest.mark.parametrize(("check_id", "facts", "limits"), PASS)
def test_must_pass(check_id, facts, limits):
    assert judge(check_id, facts, limits=limits)[0] == []


@pytest.mark.parametrize(("check_id", "facts", "limits", "expected"), FAIL)
def test_must_fail(check_id, facts, limits, expected):
    assert_findings(judge(check_id, facts, limits=limits)[0], expected)


@pytest.mark.parametrize("check_id", ["weights.scales", "weights.codes", "weights.error"])
def test_a_weight_that_cannot_be_decoded_fails_every_check_of_numbers(check_id):
    expected = [Expect(f"{K}.weight", (f"{K}.weight could not be decoded", "its shape is not known"))]
    assert_findings(judge(check_id, weights(undecodable=UNDECODABLE))[0], expected)


@pytest.mark.parametrize("check_id", ["weights.scales", "weights.codes", "weights.error"])
def test_when_no_weight_can_be_decoded_nothing_is_verified(check_id):
    with pytest.raises(Unavailable, match="its shape is not known") as raised:
        judge(check_id, weights(scales=(), codes=(), errors=(), undecodable=UNDECODABLE))
    assert raised.value.kind is ErrorKind.NOT_RUN


def test_error_needs_a_baseline():
    with pytest.raises(NotApplicable, match="no baseline"):
        judge("weights.error", weights(baseline=False))


def test_codes_are_summed_up():
    facts = weights(codes=(code(entropy_bits=3.6, unused_codes=2), code(layer=K, blocks=10, with_extreme=10)))
    assert judge("weights.codes", facts)[1]["weights.codes"] == {
        "lowest_entropy_bits": 3.6,
        "blocks": 1010,
        "blocks_with_extreme_code": 1010,
        "layers_with_unused_codes": 1,
    }


def test_the_worst_layer_comes_first():
    errors = (error(ratio=2.0), error(layer=K, ratio=9.0), error(layer="odd", flaw="no tensor", ratio=0.0))
    findings, measured = judge("weights.error", weights(errors=errors))
    assert [finding.where for finding in findings] == ["odd", K, Q]
    assert [row["layer"] for row in measured["weights"]] == ["odd", K, Q]
    assert measured["weights"][1] == {"layer": K, "R": 9.0, "nrmse": 0.09, "sqnr_db": 20.9, "gain": 0.99}
