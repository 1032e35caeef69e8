"""layers.*: each layer is quantized or dense as declared, is whole, and is loaded as what it is."""

from __future__ import annotations

import pytest
from healthy_facts import (
    HEAD,
    HEAD_MODULE,
    MODULES,
    TENSORS,
    Expect,
    K,
    Q,
    V,
    artifact,
    assert_findings,
    dense,
    judge,
    loaded,
    module,
    not_quantized,
    stored,
    structure,
    tensor,
)

from checker.domain import Severity
from checker.errors import NotApplicable
from checker.facts import Flaw, SkipEntry, TiedFact

STATIC = ("layers.coverage", "layers.excluded", "layers.complete", "layers.tied")
SECOND = ("layers.1.q_proj", "layers.1.k_proj", "layers.1.v_proj")


@pytest.mark.parametrize("check_id", STATIC)
def test_healthy_layers_pass(check_id):
    assert judge(check_id, artifact()) == ([], {})


@pytest.mark.parametrize("check_id", STATIC)
def test_nothing_to_check_is_a_skip(check_id):
    with pytest.raises(NotApplicable):
        judge(check_id, not_quantized(tied=()))


def without(name):
    return {key: value for key, value in TENSORS.items() if key != name}


def with_tensor(item):
    return {**TENSORS, item.name: item}


def expert(number, projection):
    return dense(f"layers.{number}.experts.0.{projection}", role="expert")


def tied(**changes):
    return TiedFact(
        **{"name": "lm_head.weight", "source": "embed.weight", "stored": False, "quantized": False, **changes}
    )


MUST_FAIL = [
    pytest.param(
        "layers.coverage",
        {"modules": (*MODULES, dense(SECOND[0]))},
        [Expect(SECOND[0], (SECOND[0], "stored as BF16"), observed="BF16", limit="quantized")],
        id="one layer left in 16 bit",
    ),
    pytest.param(
        "layers.coverage",
        {"modules": (*MODULES, *map(dense, SECOND))},
        [Expect(name, (name,)) for name in SECOND],
        id="a whole layer left in 16 bit",
    ),
    pytest.param(
        "layers.coverage",
        {"modules": (*MODULES, dense("layers.0.o_proj"))},
        [Expect("layers.0.o_proj", ("layers.0.o_proj",))],
        id="a kind dense everywhere, the architecture is known",
    ),
    pytest.param(
        "layers.coverage",
        {"modules": (*MODULES, dense("layers.0.o_proj"), dense("layers.1.o_proj")), "architecture_known": False},
        [Expect("layers.0.o_proj", ("all 2 of layers.*.o_proj",), Severity.WARN, "BF16")],
        id="a kind dense everywhere, the architecture is not known",
    ),
    pytest.param(
        "layers.coverage",
        {"modules": (*MODULES, dense(SECOND[0])), "architecture_known": False},
        [Expect(SECOND[0], ("stored as BF16",))],
        id="a kind dense in some layers, the architecture is not known",
    ),
    pytest.param(
        "layers.coverage",
        {"modules": (*MODULES, expert(0, "up"), expert(1, "up"), expert(0, "down")), "architecture_known": False},
        [
            Expect("layers.0.experts.0.up", ("2 expert weights layers.*.experts.*.up",), observed="BF16"),
            Expect("layers.0.experts.0.down", ("1 expert weights",)),
        ],
        id="experts in 16 bit always fail, told once for each kind",
    ),
    pytest.param(
        "layers.coverage",
        {"modules": (module(Q), module(K), dense(V, wanted=False, reason="listed"), HEAD_MODULE)},
        [Expect(V, (V, "group"), Severity.WARN)],
        id="a fused group torn by the skip list",
    ),
    pytest.param(
        "layers.excluded",
        {"modules": (module(HEAD, role="head", wanted=False, reason="'lm_head' of the skip list keeps it"),)},
        [Expect(HEAD, (HEAD, "'lm_head' of the skip list"), observed="quantized", limit="dense")],
        id="the head is quantized though listed",
    ),
    pytest.param(
        "layers.excluded",
        {"modules": (module(HEAD, role="head", wanted=None),)},
        [Expect(HEAD, (HEAD, "replaces the default"), Severity.WARN)],
        id="the head is quantized because the user's list forgot it",
    ),
    pytest.param(
        "layers.excluded",
        {"skip_entries": (SkipEntry(entry="lm_head", matches=1), SkipEntry(entry="vision_tower", matches=0))},
        [Expect("vision_tower", ("'vision_tower' matches no module",), Severity.WARN, "0 modules")],
        id="an entry that keeps nothing",
    ),
    pytest.param(
        "layers.complete",
        {"tensors": without(f"{K}.weight.absmax")},
        [Expect(f"{K}.weight.absmax", (f"{K}.weight.absmax is missing", K), observed="missing", limit="F32 [64]")],
        id="scales missing",
    ),
    pytest.param(
        "layers.complete",
        {"tensors": without(f"{K}.weight.quant_state")},
        [Expect(f"{K}.weight.quant_state", ("is missing",), limit="U8 ")],
        id="quantization state missing",
    ),
    pytest.param(
        "layers.complete",
        {"tensors": without(f"{Q}.weight")},
        [Expect(f"{Q}.weight", (f"{Q}.weight is missing",), limit="U8 [2048, 1]")],
        id="the packed weight itself missing",
    ),
    pytest.param(
        "layers.complete",
        {"tensors": with_tensor(tensor(f"{Q}.weight.absmax", "F32", (63,), 252))},
        [Expect(f"{Q}.weight.absmax", ("F32 [63]",), observed="F32 [63]", limit="F32 [64]")],
        id="one scale short",
    ),
    pytest.param(
        "layers.complete",
        {"tensors": with_tensor(tensor(f"{Q}.weight.absmax", "BF16", (64,), 128))},
        [Expect(f"{Q}.weight.absmax", ("BF16 [64]",))],
        id="scales in another dtype",
    ),
    pytest.param(
        "layers.complete",
        {"tensors": with_tensor(tensor(f"{Q}.weight.quant_state", "U8", (2000,), 2000))},
        [Expect(f"{Q}.weight.quant_state", ("U8 [2000]",), limit="at most 1024 bytes")],
        id="a blob too large",
    ),
    pytest.param(
        "layers.complete",
        {"tensors": with_tensor(tensor(f"{Q}.weight.optional", "U8", (2,), 2))},
        [Expect(f"{Q}.weight.optional", ("U8 [2]",))],
        id="an optional companion of the wrong shape",
    ),
    pytest.param(
        "layers.complete",
        {"weights": (stored(Q, flaws=(Flaw(message=f"{Q}: shape is -1", where="", observed=-1, expected=1),)),)},
        [Expect(f"{Q}.weight", ("shape is -1",), observed=-1, limit=1)],
        id="an unsound state without a place of its own",
    ),
    pytest.param(
        "layers.complete",
        {"weights": (stored(Q, flaws=(Flaw(message="odd", where="blob", severity=Severity.WARN),)),)},
        [Expect("blob", ("odd",), Severity.WARN)],
        id="a flaw keeps its own place and weight",
    ),
    pytest.param(
        "layers.tied",
        {"tied": (tied(quantized=True, stored=True),)},
        [Expect("lm_head.weight", ("tied to embed.weight",), observed="quantized", limit="dense")],
        id="a tied weight is quantized",
    ),
    pytest.param(
        "layers.tied",
        {"tied": (tied(stored=True),)},
        [Expect("lm_head.weight", ("second copy",), Severity.WARN, "stored twice", "stored once")],
        id="a tied weight is stored twice",
    ),
]


@pytest.mark.parametrize(("check_id", "changes", "expected"), MUST_FAIL)
def test_must_fail(check_id, changes, expected):
    assert_findings(judge(check_id, artifact(**changes))[0], expected)


@pytest.mark.parametrize(
    ("check_id", "changes"),
    [
        pytest.param("layers.coverage", {"modules": (*MODULES, dense("x", wanted=None))}, id="left open"),
        pytest.param("layers.coverage", {"modules": (*MODULES, dense("wo", wanted=False))}, id="kept by architecture"),
        pytest.param(
            "layers.coverage",
            {"modules": tuple(dense(name, wanted=False) for name in (Q, K)), "fused_groups": ((Q, K),)},
            id="a group dense as a whole",
        ),
        pytest.param("layers.excluded", {"weights": (), "modules": ()}, id="nothing packed, but a list to judge"),
        pytest.param("layers.excluded", {"modules": (module("x", wanted=None),)}, id="quantized, and left open"),
        pytest.param(
            "layers.complete",
            {"tensors": with_tensor(tensor(f"{Q}.weight.optional", "U8", (), 1))},
            id="optional there",
        ),
        pytest.param(
            "layers.complete", {"tensors": with_tensor(tensor(f"{Q}.weight", "I8", (9, 1), 9))}, id="dtypes.storage's"
        ),
    ],
)
def test_must_pass(check_id, changes):
    assert judge(check_id, artifact(**changes))[0] == []


def test_a_torn_group_is_not_told_twice():
    torn = artifact(modules=(module(Q), module(K), dense(V), HEAD_MODULE))
    assert_findings(judge("layers.coverage", torn)[0], [Expect(V, (V, "stored as BF16"))])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, [], id="healthy"),
        pytest.param(
            {
                "modules": (
                    loaded(quantized=False, module_class="Linear", weight_class="Parameter", weight_dtype="bfloat16"),
                )
            },
            [Expect(Q, (Q, "loaded as Linear with a Parameter"), observed="Linear, bfloat16")],
            id="left dense",
        ),
        pytest.param(
            {"modules": (loaded(expected=False),)},
            [Expect(Q, (Q, "is loaded quantized"), observed="Linear4bit", limit="dense")],
            id="quantized against the rules",
        ),
        pytest.param(
            {"fused_experts": ("layers.0.experts.up",)},
            [Expect("layers.0.experts.up", ("fused experts layers.0.experts.up",), observed="dense")],
            id="fused experts",
        ),
        pytest.param({"modules": (loaded(quantized=False, expected=False),)}, [], id="neither"),
    ],
)
def test_classes(changes, expected):
    assert_findings(judge("layers.classes", structure(**changes))[0], expected)
