"""Modules of real models against their weights in the file: healthy families, and memory changed after loading."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from decoding import CHECKPOINTS, method_of
from models import MODELS, Zoo

from checker.checkpoint import Checkpoint, open_checkpoint
from checker.domain import Severity
from checker.errors import NotApplicable
from checker.facts import ModuleErrorFacts
from checker.probes.artifact import gather_artifact
from checker.probes.load import load_model
from checker.probes.module_errors import NOT_RUN, compare_modules
from checker.registry import Limits, all_checks, resolve_limits

torch = pytest.importorskip("torch")
pytest.importorskip("bitsandbytes")

LAYER, OTHER = "model.layers.1.mlp.down_proj", "model.layers.0.mlp.down_proj"
HEALTHY = [(model, variant) for model in MODELS for variant in ("nf4", "int8") if (model, variant) != ("switch", "nf4")]


def forward(model: Any) -> Callable[[], object]:
    vocabulary = model.config.get_text_config().vocab_size
    tokens = torch.tensor([[(17 + 7 * number) % vocabulary for number in range(64)]], device=model.device)
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = tokens

    def run() -> object:
        with torch.no_grad():
            return model(**inputs, use_cache=False)

    return run


def compare(folder: Path, change: Callable[[Any], None] = lambda _: None, device: str = "cpu") -> ModuleErrorFacts:
    """Load a checkpoint, change the model in memory, and compare its modules over one forward."""
    with open_checkpoint(folder) as checkpoint:
        artifact = gather_artifact(checkpoint, None)
        model = load_model(folder, device).model
        change(model)
        return compare_modules(model, checkpoint, artifact, method_of(artifact.stored_method), forward(model))


def named(facts: ModuleErrorFacts, severity: Severity) -> list[str]:
    """The layers that outputs.modules names."""
    item = next(item for item in all_checks() if item.id == "outputs.modules")
    said = item.function(facts, Limits(resolve_limits(item, {}, {}).values))
    return [one.where for one in said if getattr(one, "severity", None) is severity]


@pytest.mark.parametrize(("model", "variant"), HEALTHY)
def test_healthy_modules_compute_their_stored_weight(zoo: Zoo, model: str, variant: str):
    facts = compare(zoo.quantized(model, variant))
    assert facts.activations is (variant == "int8")
    assert facts.positions == 64
    assert max(fact.error for fact in facts.errors) < (0.03 if facts.activations else 0.006)
    assert all(abs(fact.gain - 1) < 0.01 for fact in facts.errors)
    assert {flaw.message for flaw in facts.not_compared} <= ({NOT_RUN} if model == "switch" else set())
    assert named(facts, Severity.FAIL) == named(facts, Severity.WARN) == []


def test_layers_whose_activations_the_library_cuts_to_integers_are_named(zoo: Zoo):
    """transformers casts what goes into ``wo`` of Switch to the type of its weight, which is uint8 when packed."""
    facts = compare(zoo.quantized("switch", "nf4"))
    failing = named(facts, Severity.FAIL)
    assert failing
    assert all(layer.endswith(".wo") for layer in failing)
    assert {fact.integer for fact in facts.errors if fact.layer in failing} == {"uint8"}
    assert not [fact for fact in facts.errors if fact.layer not in failing and fact.integer]


@pytest.mark.parametrize(
    ("method", "name"),
    [
        pytest.param("fp8", "block-128", id="unpacked by the library as it is loaded"),
        pytest.param("fp8", "moe-separate", id="attention of a mixture"),
        pytest.param("metal", "w4-g64", id="groups with zeros"),
        pytest.param("metal", "w4-llava", id="names that loading changes"),
    ],
)
def test_other_methods(method: str, name: str):
    facts = compare(CHECKPOINTS / method / name)
    assert facts.errors
    assert not facts.activations
    assert 0 < max(fact.error for fact in facts.errors) < 0.004
    assert named(facts, Severity.FAIL) == named(facts, Severity.WARN) == []


def test_blocks_that_the_library_cuts_otherwise_are_named():
    """transformers takes partial blocks of 8-bit floats for whole ones of another size when it unpacks them."""
    facts = compare(CHECKPOINTS / "fp8" / "odd-partial")
    assert not facts.activations, "they are ordinary layers by then"
    wrong = [fact.layer for fact in facts.errors if ".mlp." in fact.layer]
    assert wrong
    assert {*wrong} <= {*named(facts, Severity.FAIL)}


def weight_of(model: Any, name: str) -> Any:
    return model.get_submodule(name).weight


def scale_absmax(model: Any) -> None:
    weight_of(model, LAYER).quant_state.absmax.mul_(1.1)


def scale_nested_absmax(model: Any) -> None:
    state = weight_of(model, LAYER).quant_state
    state.state2.absmax.mul_(1.1)
    state.offset *= 1.1


def swap_nibbles(model: Any) -> None:
    weight = weight_of(model, LAYER)
    weight.data = (weight.data & 15) << 4 | weight.data >> 4


def swap_weights(model: Any) -> None:
    one, other = weight_of(model, LAYER), weight_of(model, OTHER)
    one.data, other.data = other.data.clone(), one.data.clone()


def forget_scales(model: Any) -> None:
    weight_of(model, LAYER).quant_state.absmax.fill_(1.0)


def spoil_scale(model: Any) -> None:
    weight_of(model, LAYER).quant_state.absmax[5] = float("nan")


def scale_rows(model: Any) -> None:
    weight_of(model, LAYER).SCB.mul_(1.1)


def swap_rows(model: Any) -> None:
    one, other = weight_of(model, LAYER), weight_of(model, OTHER)
    one.CB, other.CB = other.CB.clone(), one.CB.clone()


def change_a_norm(model: Any) -> None:
    """What is not quantized may change: this check reads the module's own bias and input."""
    model.get_submodule("model.norm").weight.data.mul_(2)


@pytest.mark.parametrize(
    ("variant", "change", "layers"),
    [
        pytest.param("nf4", scale_absmax, [LAYER], id="scales 1.1 times as large"),
        pytest.param("nf4-double", scale_nested_absmax, [LAYER], id="nested scales 1.1 times as large"),
        pytest.param("fp4", swap_nibbles, [LAYER], id="nibbles swapped"),
        pytest.param("nf4", swap_weights, [OTHER, LAYER], id="two weights exchanged"),
        pytest.param("nf4", forget_scales, [LAYER], id="scales all one"),
        pytest.param("nf4", spoil_scale, [LAYER], id="one scale is no number"),
        pytest.param("int8", scale_rows, [LAYER], id="int8 scales 1.1 times as large"),
        pytest.param("int8", swap_rows, [OTHER, LAYER], id="two int8 weights exchanged"),
        pytest.param("nf4", change_a_norm, [], id="a norm, which is not quantized"),
    ],
)
def test_memory_changed_after_loading_is_named(
    zoo: Zoo, variant: str, change: Callable[[Any], None], layers: list[str]
):
    facts = compare(zoo.quantized("llama", variant), change)
    assert sorted(named(facts, Severity.FAIL)) == sorted(layers)
    assert named(facts, Severity.WARN) == []


@pytest.mark.gpu
@pytest.mark.parametrize("variant", ["nf4", "nf4-double", "fp4", "int8"])
def test_healthy_modules_on_cuda(zoo: Zoo, variant: str):
    facts = compare(zoo.quantized("llama", variant), device="cuda:0")
    assert len(facts.errors) == 14
    assert named(facts, Severity.FAIL) == named(facts, Severity.WARN) == []


@pytest.mark.gpu
@pytest.mark.parametrize("change", [scale_absmax, swap_nibbles])
def test_memory_changed_after_loading_is_named_on_cuda(zoo: Zoo, change: Callable[[Any], None]):
    facts = compare(zoo.quantized("llama", "nf4"), change, "cuda:0")
    assert named(facts, Severity.FAIL) == [LAYER]


class Small(torch.nn.Module):
    """A model of loose modules, run by a function of its own."""

    def __init__(self, **modules: Any) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)


def linear(weight: Any, bias: Any = None) -> Any:
    """A bfloat16 layer of some weight."""
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=torch.bfloat16)
    layer.weight.data = weight.to(torch.bfloat16)
    if bias is not None:
        layer.bias.data = bias.to(torch.bfloat16)
    return layer


def stored(folder: Path, **weights: Any) -> Checkpoint:
    """Weights whose values int8 codes hold exactly, in the layout of bitsandbytes."""
    from safetensors.torch import save_file

    tensors = {}
    for name, weight in weights.items():
        scale = weight.abs().amax(dim=1)
        tensors[f"{name}.weight"] = (weight * 127 / scale[:, None]).round().to(torch.int8)
        tensors[f"{name}.SCB"] = scale
        tensors[f"{name}.weight_format"] = torch.tensor(0, dtype=torch.uint8)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}, "architectures": ["None"]}
    (folder / "config.json").write_text(json.dumps(config))
    return open_checkpoint(folder)


def random_weight(rows: int, columns: int, seed: int = 0) -> Any:
    """Whole numbers up to 127, with a 127 in each row, over 1024: exact in bfloat16 and in int8 codes."""
    codes = torch.randint(-126, 127, (rows, columns), generator=torch.Generator().manual_seed(seed)).float()
    codes[:, 0] = 127
    return codes / 1024


def compare_small(checkpoint: Checkpoint, model: Any, run: Callable[[], object]) -> ModuleErrorFacts:
    artifact = gather_artifact(checkpoint, None)
    return compare_modules(model, checkpoint, artifact, method_of("bitsandbytes-8bit"), run)


def inputs(*shape: int) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)


def test_outputs_that_cancel_raise_no_alarm(tmp_path: Path):
    weight = random_weight(64, 128)
    weight[:, 1::2] = weight[:, ::2]
    x = inputs(64, 128)
    x[:, 1::2] = -x[:, ::2] * 1.0078125  # one unit in the last place of bfloat16: outputs are 1/256 of what they add up
    model = Small(layer=linear(weight))
    noisy = model.layer.weight.data.float() * (1 + 0.002 * torch.randn(weight.shape))
    model.layer.weight.data = noisy.to(torch.bfloat16)
    facts = compare_small(stored(tmp_path, layer=weight), model, lambda: model.layer(x))
    [fact] = facts.errors
    plain = ((model.layer(x).float() - x.float() @ weight.T).norm() / (x.float() @ weight.T).norm()).item()
    assert plain > 0.3, "rounding alone"
    assert fact.error < 0.02
    assert fact.gain == 1


def test_layers_of_zeros(tmp_path: Path):
    weight = random_weight(64, 128)
    model = Small(layer=linear(weight))
    zeros = torch.zeros(1, 8, 128, dtype=torch.bfloat16)
    checkpoint = stored(tmp_path, layer=weight)
    assert [fact.error for fact in compare_small(checkpoint, model, lambda: model.layer(zeros)).errors] == [0.0]
    model.layer = linear(weight, torch.ones(64))
    assert [fact.error for fact in compare_small(checkpoint, model, lambda: model.layer(zeros)).errors] == [0.0]


def test_bias_keywords_and_later_calls(tmp_path: Path):
    """The module's own bias counts, inputs may be keywords, and the first call with a position is the one compared."""
    weight, x = random_weight(96, 64), inputs(2, 40, 64)
    model = Small(layer=linear(weight, torch.linspace(-9, 9, 96)))

    def run() -> None:
        model.layer(x[:, :0])
        model.layer(input=x)
        model.layer.weight.data.zero_()
        model.layer(x)

    facts = compare_small(stored(tmp_path, layer=weight), model, run)
    assert [fact.layer for fact in facts.errors] == ["layer"]
    assert facts.errors[0].error < 0.004
    assert facts.positions == 64


def test_what_cannot_be_compared_is_listed_with_the_reason(tmp_path: Path):
    weight = random_weight(64, 64)
    names = ("normal", "absent", "idle", "table", "wide", "nested", "infinite")
    checkpoint = stored(tmp_path, **dict.fromkeys(names, weight))
    model = Small(
        normal=linear(weight),
        idle=linear(weight),
        table=torch.nn.Embedding(64, 64),
        wide=linear(random_weight(128, 64)),
        nested=torch.nn.Sequential(linear(weight)),
        infinite=linear(weight),
    )
    x = inputs(4, 64)

    def run() -> None:
        for name in ("infinite", "wide", "nested", "normal"):  # not in the order of the model
            getattr(model, name)(x / 0 if name == "infinite" else x)
        model.table(torch.arange(64)[None])

    facts = compare_small(checkpoint, model, run)
    assert [fact.layer for fact in facts.errors] == ["normal"]
    reasons = {flaw.where: flaw.message for flaw in facts.not_compared}
    assert reasons.keys() == {*names} - {"normal"}
    assert "no module" in reasons["absent"]
    assert reasons["idle"] == NOT_RUN
    assert "looks values up" in reasons["table"]
    assert reasons["wide"] == "it turned 64 values into 128; its stored weight is [64, 64]"
    assert "further modules" in reasons["nested"]
    assert "not finite" in reasons["infinite"]


def test_weights_that_cannot_be_decoded_are_listed(tmp_path: Path):
    weight = random_weight(64, 64)
    stored(tmp_path, layer=weight, broken=weight)
    from models import damage

    with damage(tmp_path, tmp_path / "damaged") as damaged:
        del damaged.tensors["broken.SCB"]
    model = Small(layer=linear(weight), broken=linear(weight))
    facts = compare_small(
        open_checkpoint(tmp_path / "damaged"), model, lambda: model.broken(model.layer(inputs(4, 64)))
    )
    assert [fact.layer for fact in facts.errors] == ["layer"]
    assert [(flaw.where, flaw.message) for flaw in facts.not_compared] == [("broken", "broken.SCB is missing")]


def test_hooks_are_gone_whatever_happens(tmp_path: Path):
    weight = random_weight(64, 64)
    model = Small(layer=linear(weight))

    def run() -> None:
        model.layer(inputs(4, 64))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare_small(stored(tmp_path, layer=weight), model, run)
    assert not model.layer._forward_hooks


def test_more_modules_than_are_decoded_ahead(tmp_path: Path):
    """Some never run, some run late and out of order: each is compared with its own weight all the same."""
    weights = {f"layer{number}": random_weight(64, 64, number) for number in range(50)}
    checkpoint = stored(tmp_path, **weights)
    model = Small(**{name: linear(weight) for name, weight in weights.items()})
    order = [*range(40, 50), *range(0, 30, 2), *range(1, 30, 2)]

    def run() -> None:
        for number in order:
            getattr(model, f"layer{number}")(inputs(4, 64))

    facts = compare_small(checkpoint, model, run)
    assert [fact.layer for fact in facts.errors] == [f"layer{number}" for number in order]
    assert max(fact.error for fact in facts.errors) < 0.004
    assert len(facts.not_compared) == 10


def test_a_method_without_a_decoder_does_not_apply(tmp_path: Path):
    checkpoint = stored(tmp_path, layer=random_weight(64, 64))
    artifact = gather_artifact(checkpoint, None)
    with pytest.raises(NotApplicable, match="learned vectors"):
        compare_modules(Small(), checkpoint, artifact, method_of("aqlm"), lambda: None)


@pytest.mark.parametrize(
    ("method", "with_activations", "without"),
    [
        ("auto-round", ["fp8-static", "nvfp4"], ["gptq-sym", "awq-asym"]),
        ("compressed-tensors", ["w8a8-dynamic", "fp8-static", "nvfp4", "w4a8-group"], ["w4a16-gptq", "naive-fp8"]),
        ("fp8", ["block-128", "tensor-static"], []),
        ("hqq", [], ["w4-g64"]),
        ("quark", ["odd-w8a8-int8", "moe-fp8"], ["odd-int4-channel"]),
        ("torchao", ["float8-dynamic", "intx4-dynamic", "mxfp8"], ["float8", "fqn-modules", "int8"]),
    ],
)
def test_what_a_config_says_of_activations(method: str, with_activations: list[str], without: list[str]):
    for name in (*with_activations, *without):
        with open_checkpoint(CHECKPOINTS / method / name) as checkpoint:
            config = gather_artifact(checkpoint, None).quantization_config
        assert config
        assert method_of(method).activations(config) is (name in with_activations), name


@pytest.mark.parametrize(
    ("method", "config", "expected"),
    [
        ("bitsandbytes-8bit", {}, True),
        ("bitsandbytes-4bit", {}, False),
        ("fp8", {"dequantize": True}, False),
        ("quanto", {"activations": "int8"}, True),
        ("quanto", {"activations": None}, False),
        ("quanto", {"quantization_map": {"a": {"weights": "qint8", "activations": "none"}}}, False),
        ("quanto", {"quantization_map": {"a": {"weights": "qint8", "activations": "qint8"}, "b": 3}}, True),
        ("compressed-tensors", {"config_groups": {"W8A8": ["Linear"]}}, True),
        ("compressed-tensors", {"config_groups": {"W4A16": ["Linear"]}}, False),
        ("compressed-tensors", {"config_groups": 5}, False),
        ("torchao", {"quant_type": "int4"}, False),
        ("quark", {"layer_quant_config": {"a": {"input_tensors": {"dtype": "int8"}}}}, True),
        ("quark", {"layer_quant_config": ["a"], "global_quant_config": 3}, False),
        ("auto-round", {"act_bits": "8"}, False),
    ],
)
def test_activations_of_odd_configs(method: str, config: dict[str, Any], expected: bool):
    assert method_of(method).activations(config) is expected
