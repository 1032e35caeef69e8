"""memory.* and dtypes.*: bytes and data types, in the file and in memory, are those of the layout."""

from __future__ import annotations

import pytest
from healthy_facts import (
    TENSORS,
    Expect,
    Q,
    artifact,
    assert_findings,
    judge,
    loaded,
    not_quantized,
    parameter,
    snapshot,
    structure,
    tensor,
)

from checker.domain import Limit, Severity
from checker.errors import NotApplicable
from checker.facts import ByteRow, MemoryFact


def memory(*rows, **changes):
    values = {"rows": rows, "predicted_bytes": 100, "stored_bytes": 100, "baseline_bytes": 400, "source": "baseline"}
    return artifact(memory=MemoryFact(**{**values, **changes}))


def test_a_ratio_is_measured_when_all_is_well():
    findings, measured = judge("memory.ratio", memory(stored_bytes=80))
    assert findings == []
    assert measured["memory.ratio"] == {
        "predicted": 4.0,
        "observed": 5.0,
        "stored_bytes": 80,
        "predicted_bytes": 100,
        "baseline_bytes": 400,
    }


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        pytest.param({"baseline_bytes": None}, {"stored_bytes", "predicted_bytes"}, id="no baseline"),
        pytest.param(
            {"predicted_bytes": 0}, {"stored_bytes", "predicted_bytes", "baseline_bytes"}, id="nothing predicted"
        ),
    ],
)
def test_no_ratio_without_both_sides(changes, keys):
    assert judge("memory.ratio", memory(**changes))[1]["memory.ratio"].keys() == keys


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param(
            ByteRow(name="a", predicted=2048, stored=8192),
            Expect("a", ("a takes 8,192 bytes instead of 2,048",), observed=8192, limit=2048),
            id="another size",
        ),
        pytest.param(
            ByteRow(name="a", predicted=2048, stored=None),
            Expect("a", ("a is not stored", "2,048"), observed=None, limit=2048),
            id="not stored",
        ),
        pytest.param(
            ByteRow(name="a", predicted=None, stored=2048),
            Expect("a", ("a takes 2,048", "nothing predicts"), Severity.WARN, 2048, None),
            id="not predicted: a loader drops it, so it only warns",
        ),
    ],
)
def test_a_tensor_of_other_bytes(row, expected):
    assert_findings(judge("memory.ratio", memory(row))[0], [expected])


def test_tensors_that_differ_alike_in_every_layer_are_told_once():
    rows = [ByteRow(name=f"layers.{number}.up.weight", predicted=10, stored=40) for number in range(3)]
    lost = [ByteRow(name=f"layers.{number}.up.scale", predicted=2, stored=None) for number in range(2)]
    extra = [ByteRow(name=f"layers.{number}.up.extra", predicted=None, stored=1) for number in range(2)]
    expected = [
        Expect(
            "layers.0.up.weight", ("3 tensors layers.*.up.weight take 120 bytes instead of 30",), observed=120, limit=30
        ),
        Expect("layers.0.up.scale", ("2 tensors layers.*.up.scale are not stored; 4 bytes",), observed=None, limit=4),
        Expect("layers.0.up.extra", ("2 tensors layers.*.up.extra take 2 bytes",), Severity.WARN, 2, None),
    ]
    assert_findings(judge("memory.ratio", memory(*rows, *lost, *extra))[0], expected)


def test_the_largest_difference_comes_first():
    rows = [ByteRow(name=name, predicted=10, stored=stored) for name, stored in (("a", 11), ("b", 90), ("c", None))]
    assert [finding.where for finding in judge("memory.ratio", memory(*rows))[0]] == ["b", "c", "a"]


def test_without_a_prediction_there_is_nothing_to_compare():
    with pytest.raises(NotApplicable, match="no baseline to predict from"):
        judge("memory.ratio", not_quantized(memory=None))


@pytest.mark.parametrize(
    ("changes", "limits", "expected"),
    [
        pytest.param({}, {}, [], id="healthy"),
        pytest.param({"after": None}, {}, [], id="no forward was run"),
        pytest.param({"after": snapshot(true_bytes=1200)}, {}, [], id="repacking costs a little"),
        pytest.param(
            {"after": snapshot(true_bytes=1100)}, {"growth": Limit(fail=1.0)}, [], id="a stricter bar, not crossed"
        ),
        pytest.param(
            {"after": snapshot(true_bytes=1200)},
            {"growth": Limit(fail=1.05)},
            [Expect("", ("from 1,100 to 1,200 bytes",), observed=1200 / 1100, limit=1.05)],
            id="a stricter bar, crossed",
        ),
        pytest.param(
            {"after": snapshot(true_bytes=4400)},
            {},
            [Expect("", ("the first forward grows",), observed=4.0, limit=1.1)],
            id="unpacked by the first forward",
        ),
        pytest.param(
            {"predicted_footprint": 900},
            {},
            [Expect("", ("get_memory_footprint() is 1,000", "900"), observed=1000, limit=900)],
            id="a larger footprint",
        ),
        pytest.param(
            {"predicted_true_bytes": 1000},
            {},
            [Expect("", ("truly takes 1,100",), observed=1100, limit=1000)],
            id="more true bytes",
        ),
    ],
)
def test_footprint(changes, limits, expected):
    findings, measured = judge("memory.footprint", structure(**changes), limits=limits)
    assert_findings(findings, expected)
    assert ("true_bytes_after_forward" in measured["memory.footprint"]) == (changes.get("after", ...) is not None)


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        pytest.param({}, [], id="healthy"),
        pytest.param(
            {f"{Q}.weight": tensor(f"{Q}.weight", "U8", (2016, 1), 2016)},
            [Expect(f"{Q}.weight", (f"{Q}.weight is U8 [2016, 1]",), observed="U8 [2016, 1]", limit="U8 [2048, 1]")],
            id="a block too short",
        ),
        pytest.param(
            {f"{Q}.weight": tensor(f"{Q}.weight", "I8", (2048, 1), 2048)},
            [Expect(f"{Q}.weight", ("is I8",), observed="I8 [2048, 1]")],
            id="another dtype",
        ),
        pytest.param(
            {"odd.weight": tensor("odd.weight", "I8")},
            [Expect("odd.weight", ("odd.weight is stored as I8",), observed="I8", limit="BF16 or F16 or F32 or F64")],
            id="codes that belong to no layer",
        ),
        pytest.param({"odd.mask": tensor("odd.mask", "BOOL")}, [], id="integers that are no weight"),
    ],
)
def test_storage(extra, expected):
    assert_findings(judge("dtypes.storage", artifact(tensors={**TENSORS, **extra}))[0], expected)


def test_a_missing_weight_is_left_to_layers_complete():
    tensors = {name: item for name, item in TENSORS.items() if name != f"{Q}.weight"}
    assert judge("dtypes.storage", artifact(tensors=tensors))[0] == []


def test_storage_of_a_dense_model_is_not_judged():
    with pytest.raises(NotApplicable, match=r"config\.present"):
        judge("dtypes.storage", not_quantized())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, [], id="healthy"),
        pytest.param({"storage_dtype": None, "declared_compute_dtype": None}, [], id="nothing declared"),
        pytest.param({"modules": (loaded(compute_dtype=None),)}, [], id="int8 has no compute dtype"),
        pytest.param({"modules": (loaded(compute_dtype="None"),)}, [], id="not set before the first forward"),
        pytest.param({"modules": (loaded(quantized=False, weight_dtype="bfloat16"),)}, [], id="dense: layers.classes"),
        pytest.param(
            {"modules": (loaded(weight_dtype="float32"),)},
            [Expect(Q, (f"{Q} holds its codes as float32",), observed="float32", limit="uint8")],
            id="codes in another dtype",
        ),
        pytest.param(
            {"modules": (loaded(compute_dtype="float32"),)},
            [Expect(Q, (f"{Q} computes in float32",), observed="float32", limit="bfloat16")],
            id="another compute dtype",
        ),
        pytest.param(
            {"dense": (parameter(dtype="float32"),)},
            [Expect("norm.weight", ("norm.weight is loaded as float32",), Severity.WARN, "float32", "bfloat16")],
            id="a dense weight in another dtype",
        ),
    ],
)
def test_loaded_dtypes(changes, expected):
    assert_findings(judge("dtypes.loaded", structure(**changes))[0], expected)
