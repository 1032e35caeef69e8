"""config.*: the quantization_config is there, is understood, and says what the tensors say."""

from __future__ import annotations

import pytest
from healthy_facts import (
    CONFIG,
    DECLARED,
    Expect,
    K,
    Q,
    V,
    artifact,
    assert_findings,
    judge,
    load,
    not_quantized,
    stored,
)

from checker.domain import ErrorKind, Severity
from checker.errors import NotApplicable, Unavailable
from checker.facts import Flaw

FAMILY = ("config.present", "config.method", "config.keys", "config.truthful", "config.roundtrip")


def other(**attributes):
    return {**DECLARED, **attributes}


def facts_for(check_id, artifact_facts):
    return (artifact_facts, None) if check_id == "config.roundtrip" else (artifact_facts,)


@pytest.mark.parametrize("check_id", FAMILY)
def test_a_healthy_config_passes(check_id):
    assert judge(check_id, *facts_for(check_id, artifact())) == ([], {})


@pytest.mark.parametrize("check_id", FAMILY)
def test_without_a_readable_config_nothing_is_verified(check_id):
    with pytest.raises(Unavailable, match=r"config\.json could not be read") as raised:
        judge(check_id, *facts_for(check_id, artifact(config=None, quantization_config=None)))
    assert raised.value.kind is ErrorKind.NOT_RUN


@pytest.mark.parametrize("check_id", [name for name in FAMILY if name != "config.present"])
def test_without_a_quantization_config_the_rest_does_not_apply(check_id):
    with pytest.raises(NotApplicable, match=r"see config\.present"):
        judge(check_id, *facts_for(check_id, not_quantized()))


MUST_FAIL = [
    pytest.param(
        "config.present",
        artifact(quantization_config=None, config_key="", declared_method=None),
        [Expect(f"{Q}.weight", ("3 weights are packed", "bitsandbytes-4bit"), observed="no quantization_config")],
        id="packed tensors, the config says nothing",
    ),
    pytest.param(
        "config.present",
        artifact(stored_method=None, weights=()),
        [Expect("quantization_config", ("declares bitsandbytes-4bit", "no weight is quantized"))],
        id="the config promises, all tensors are dense",
    ),
    pytest.param(
        "config.present",
        not_quantized(),
        [Expect("", ("the checkpoint is not quantized",), limit="a quantized one")],
        id="a dense model",
    ),
    pytest.param(
        "config.method",
        artifact(declared_method=None, quantization_config={"quant_method": "bitsandbyte"}),
        [Expect("quantization_config", ("'bitsandbyte' is not known",), observed="bitsandbyte", limit="bitsandbytes")],
        id="misspelt method",
    ),
    pytest.param(
        "config.method",
        artifact(declared_method=None, quantization_config={"quant_method": 7}),
        [Expect("quantization_config", ("'7' is not known",), observed="7")],
        id="method is a number",
    ),
    pytest.param(
        "config.method",
        artifact(declared_method=None, quantization_config={"quant_method": ["gptq"]}),
        [Expect("quantization_config", ("is not known",), observed="['gptq']")],
        id="method is a list",
    ),
    pytest.param(
        "config.method",
        artifact(declared_method=None, quantization_config={"quant_method": "zzz"}, config_key="text_config.q"),
        [Expect("text_config.q", ("'zzz' is not known",))],
        id="method is like no other, in text_config",
    ),
    pytest.param(
        "config.method",
        artifact(declared_method=None, quantization_config={"bits": 4}),
        [Expect("quantization_config", ("quant_method is missing",), observed="None")],
        id="method is missing",
    ),
    pytest.param(
        "config.keys",
        artifact(key_flaws=(Flaw(where="bnb_typo", message="bnb_typo is no key", observed=1),)),
        [Expect("quantization_config.bnb_typo", ("bnb_typo is no key",), observed=1)],
        id="unknown key",
    ),
    pytest.param(
        "config.truthful",
        artifact(stored_method="bitsandbytes-8bit"),
        [
            Expect(
                f"{Q}.weight",
                ("declares bitsandbytes-4bit", "are bitsandbytes-8bit"),
                observed="bitsandbytes-8bit",
                limit="bitsandbytes-4bit",
            )
        ],
        id="another method's tensors",
    ),
    pytest.param(
        "config.truthful",
        artifact(weights=tuple(stored(name, attributes=other(quant_type="fp4")) for name in (Q, K, V))),
        [Expect(f"{Q}.weight", ("quant_type", "says nf4", "3 of 3", "fp4"), observed="fp4", limit="nf4")],
        id="fp4 under a config of nf4",
    ),
    pytest.param(
        "config.truthful",
        artifact(weights=(stored(Q), stored(K, attributes=other(block_size=128)), stored(V))),
        [Expect(f"{K}.weight", ("block_size", "1 of 3", "128"), observed=128, limit=64)],
        id="one layer in other blocks",
    ),
    pytest.param(
        "config.truthful",
        artifact(
            weights=(stored(Q, attributes=other(block_size=32)), stored(K, attributes=other(block_size=128)), stored(V))
        ),
        [
            Expect(f"{Q}.weight", ("block_size", "1 of 3"), observed=32),
            Expect(f"{K}.weight", ("block_size", "1 of 3"), observed=128),
        ],
        id="two layers, each its own way",
    ),
    pytest.param(
        "config.truthful",
        artifact(weights=(stored(Q, attributes=other(double_quantization=True)),)),
        [Expect(f"{Q}.weight", ("double_quantization", "says False", "True"), observed=True, limit=False)],
        id="nested scales that the config denies",
    ),
    pytest.param(
        "config.truthful",
        artifact(
            declared={**DECLARED, "dense_dtype": "bfloat16"},
            weights=(stored(Q, attributes=other(dense_dtype="float16")), stored(K, attributes=other(storage="I8"))),
        ),
        [
            Expect(f"{Q}.weight", ("dense_dtype", "float16"), Severity.WARN, "float16", "bfloat16"),
            Expect(f"{K}.weight", ("storage", "I8"), Severity.WARN, "I8", "U8"),
        ],
        id="dtypes that do not change what is decoded only warn",
    ),
]


@pytest.mark.parametrize(("check_id", "facts", "expected"), MUST_FAIL)
def test_must_fail(check_id, facts, expected):
    assert_findings(judge(check_id, facts)[0], expected)


@pytest.mark.parametrize(
    ("check_id", "facts"),
    [
        pytest.param("config.present", not_quantized(tensors={}), id="no tensor could be read: files.valid says why"),
        pytest.param("config.present", artifact(declared_method=None), id="an unknown method is config.method's"),
        pytest.param(
            "config.truthful", artifact(declared={"dense_dtype": "float16"}), id="a state without the attribute"
        ),
    ],
)
def test_must_pass(check_id, facts):
    assert judge(check_id, facts)[0] == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"weights": (), "stored_method": None}, r"see config\.present", id="nothing packed"),
        pytest.param({"declared_method": None}, r"see config\.method", id="method unknown"),
    ],
)
def test_truthful_does_not_apply(changes, reason):
    with pytest.raises(NotApplicable, match=reason):
        judge("config.truthful", artifact(**changes))


def test_roundtrip_names_what_json_loses_and_changes():
    facts = artifact(quantization_config={**CONFIG, "lost": 1}, roundtrip={**CONFIG, "bnb_4bit_quant_type": "fp4"})
    expected = [
        Expect("quantization_config.lost", ("lost does not survive",), observed=None, limit=1),
        Expect("quantization_config.bnb_4bit_quant_type", ("does not survive",), observed="fp4", limit="nf4"),
    ]
    assert_findings(judge("config.roundtrip", facts, load())[0], expected)


def test_roundtrip_reports_what_the_config_class_changes():
    flaw = Flaw(where="key", message="the class drops key", severity=Severity.WARN, observed=None, expected=3, hint="h")
    expected = [Expect("quantization_config.key", ("drops key",), Severity.WARN, None, 3)]
    assert_findings(judge("config.roundtrip", artifact(), load(config_roundtrip=(flaw,)))[0], expected)
    assert judge("config.roundtrip", artifact(), load())[0] == []
