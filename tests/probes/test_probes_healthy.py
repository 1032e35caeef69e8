"""No false alarm: healthy checkpoints of every family and variant pass all static checks, by a clear margin."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from models import FUSED_EXPERTS, MODELS, STATIC, VARIANTS, Zoo, damage, judge_files, save_quantized

from checker.checkpoint import open_checkpoint
from checker.code_books import integer_book
from checker.coded import CodedWeight, Place, Scaling
from checker.domain import Outcome
from checker.errors import NotApplicable
from checker.probes.artifact import gather_artifact
from checker.probes.tiles import decode_tiles
from checker.probes.weights import gather_weights
from checker.registry import all_methods

SOUND = [name for name in MODELS if name not in FUSED_EXPERTS]
GAIN = {"int8": 0.0025}  # how far from 1 the centred gain of small layers may be; the failing bars are 0.02 and 0.005
SKIPPED = {"layers.tied", "config.roundtrip", "layers.excluded"}


def facts(folder: Path, baseline: Path | None = None, *, sampled: bool = False):
    """Artifact and weight facts, without the checks."""
    with open_checkpoint(folder) as checkpoint:
        reference = open_checkpoint(baseline) if baseline is not None else None
        artifact = gather_artifact(checkpoint, reference)
        method = next(method for method in all_methods() if method.id == artifact.stored_method)
        return artifact, gather_weights(checkpoint, reference, artifact, method, sampled=sampled)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", SOUND)
def test_nothing_is_found(zoo: Zoo, name: str, variant: str):
    judged = judge_files(zoo.quantized(name, variant), zoo.baseline(name))
    assert judged.results.keys() == set(STATIC)
    assert judged.ids(Outcome.PASS) >= set(STATIC) - SKIPPED, judged.text()
    assert judged.ids(Outcome.SKIP) <= SKIPPED


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", MODELS)
def test_nothing_fails_without_a_baseline(zoo: Zoo, name: str, variant: str):
    judged = judge_files(zoo.quantized(name, variant))
    assert not judged.ids(Outcome.ERROR) | judged.ids(Outcome.WARN), judged.text()
    assert judged.ids(Outcome.FAIL) <= ({"layers.coverage"} if name in FUSED_EXPERTS else set()), judged.text()
    assert "weights.error" in judged.ids(Outcome.SKIP)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", FUSED_EXPERTS)
def test_fused_experts_fail_and_are_named(zoo: Zoo, name: str, variant: str):
    judged = judge_files(zoo.quantized(name, variant), zoo.baseline(name))
    assert judged.ids(Outcome.FAIL) == {"layers.coverage", "memory.ratio"}, judged.text()
    for check_id in ("layers.coverage", "memory.ratio"):
        findings = judged.results[check_id].findings
        assert findings
        assert all(".experts." in finding.where and "expert" in finding.message for finding in findings)
    kinds = {finding.where.rpartition(".")[2] for finding in judged.results["layers.coverage"].findings}
    assert kinds == {"gate_proj", "up_proj", "down_proj"}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", MODELS)
def test_every_layer_is_well_within_the_limits(zoo: Zoo, name: str, variant: str):
    artifact, weights = facts(zoo.quantized(name, variant), zoo.baseline(name))
    assert not weights.undecodable
    assert len(weights.errors) == len(weights.scales) == len(weights.codes) == len(artifact.weights) > 0
    for error in weights.errors:
        assert error.flaw == ""
        assert 0.85 < error.ratio < 1.15, error
        assert error.centred_gain == pytest.approx(1, abs=GAIN.get(variant, 0.015)), error
    for code in weights.codes:
        assert code.with_extreme == code.blocks > 0, code
        assert code.code_book_flaw == ""
        assert code.entropy_bits > (6 if variant == "int8" else 3)
    for scale in weights.scales:
        assert (scale.not_finite, scale.negative, scale.zero, scale.constant, scale.flaw) == (0, 0, 0, False, ""), scale


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", SOUND)
def test_the_bytes_are_predicted_exactly(zoo: Zoo, name: str, variant: str):
    for baseline in (zoo.baseline(name), None):
        artifact, _ = facts(zoo.quantized(name, variant), baseline)
        memory = artifact.memory
        assert memory.rows == ()
        assert memory.predicted_bytes == memory.stored_bytes == sum(item.nbytes for item in artifact.tensors.values())
        assert memory.source == ("baseline" if baseline else "checkpoint")
        assert (memory.baseline_bytes is None) == (baseline is None)


def test_a_tied_head_is_counted_once(zoo: Zoo):
    artifact, _ = facts(zoo.quantized("llama-tied", "nf4"), zoo.baseline("llama-tied"))
    dense = open_checkpoint(zoo.baseline("llama-tied"))
    assert "lm_head.weight" not in dense.tensors
    assert artifact.memory.baseline_bytes == dense.total_bytes
    [tied] = artifact.tied
    assert (tied.name, tied.stored, tied.quantized) == ("lm_head.weight", False, False)


def test_what_the_architecture_keeps_dense_is_known(zoo: Zoo):
    artifact, _ = facts(zoo.quantized("t5", "nf4"), zoo.baseline("t5"))
    kept = [module for module in artifact.modules if module.name.endswith(".wo")]
    assert len(kept) == 4
    assert all(module.wanted is False and "kept in float32" in module.reason for module in kept)
    roles = {module.name: module.role for module in artifact.modules}
    assert roles["shared"] == "embedding"
    switch, _ = facts(zoo.quantized("switch", "nf4"))
    experts = [module for module in switch.modules if module.role == "expert" and module.name.endswith(".wi")]
    assert experts
    assert all(module.quantized for module in experts)


def test_a_transposed_square_weight_is_compared_the_right_way(zoo: Zoo):
    """Nothing in the shape of GPT-2's c_proj tells that it is stored [in, out]; the table does."""
    _, weights = facts(zoo.quantized("gpt2", "nf4"), zoo.baseline("gpt2"))
    square = [error for error in weights.errors if error.layer.endswith("attn.c_proj")]
    assert len(square) == 2
    assert all(error.ratio < 1.05 for error in square)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_sample_tells_nearly_what_the_whole_tells(zoo: Zoo, monkeypatch: pytest.MonkeyPatch, variant: str):
    whole = {error.layer: error for error in facts(zoo.quantized("llama", variant), zoo.baseline("llama"))[1].errors}
    monkeypatch.setattr("checker.probes.sampling.SAMPLE_VALUES", 3072)
    sampled = facts(zoo.quantized("llama", variant), zoo.baseline("llama"), sampled=True)[1]
    assert sampled.sampled
    for code in sampled.codes:
        assert code.with_extreme == code.blocks <= 64
    for error in sampled.errors:
        assert error.ratio == pytest.approx(whole[error.layer].ratio, rel=0.1)


def test_a_weight_smaller_than_the_sample_is_read_whole(zoo: Zoo):
    folder, baseline = zoo.quantized("llama", "nf4"), zoo.baseline("llama")
    assert facts(folder, baseline, sampled=True)[1].errors == facts(folder, baseline)[1].errors


@pytest.mark.parametrize("variant", VARIANTS)
def test_blocks_rows_and_layers_of_zeros_are_healthy(zoo: Zoo, tmp_path: Path, variant: str):
    with damage(zoo.baseline("llama"), tmp_path / "baseline") as pruned:
        some = pruned.tensors["model.layers.0.mlp.up_proj.weight"]
        some.view("<u2").reshape(some.shape)[::3] = 0
        pruned.tensors["model.layers.1.mlp.up_proj.weight"].view("<u2")[:] = 0
    save_quantized(tmp_path / "baseline", tmp_path / "quantized", VARIANTS[variant])
    judged = judge_files(tmp_path / "quantized", tmp_path / "baseline")
    assert not judged.ids(Outcome.FAIL) | judged.ids(Outcome.WARN) | judged.ids(Outcome.ERROR), judged.text()


def test_a_model_quantized_from_its_own_dequantized_weights_only_warns(zoo: Zoo, tmp_path: Path):
    """A baseline that already lies on the grid: R is about 0, which is odd, but no fault."""
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("bitsandbytes.functional")
    name = "model.layers.0.mlp.up_proj.weight"
    with damage(zoo.baseline("llama"), tmp_path / "baseline") as file:
        values = torch.frombuffer(file.tensors[name].data, dtype=torch.bfloat16).reshape(file.tensors[name].shape)
        values.copy_(functional.dequantize_4bit(*functional.quantize_4bit(values.clone(), quant_type="nf4")))
    save_quantized(tmp_path / "baseline", tmp_path / "quantized", VARIANTS["nf4"])
    judged = judge_files(tmp_path / "quantized", tmp_path / "baseline")
    assert judged.ids(Outcome.FAIL) == set(), judged.text()
    [finding] = judged.results["weights.error"].findings
    assert finding.where == name.removesuffix(".weight")


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("rows", [1, 4, 16])
def test_a_layer_of_a_few_values_is_healthy(tmp_path: Path, variant: str, rows: int):
    """Gates and routers have a row or two: their error scatters, and the limits know it."""
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("bitsandbytes.functional")
    (tmp_path / "dense").mkdir()
    (tmp_path / "packed").mkdir()
    baseline, packed = {}, {}
    random = torch.Generator().manual_seed(7)
    for number in range(100):
        weight = (torch.randn(rows, 64, generator=random) * 0.02).bfloat16()
        name = f"model.layers.{number}.mlp.gate_proj.weight"
        baseline[name] = weight
        config = VARIANTS[variant]
        if variant == "int8":
            packed[name], packed[name.replace("weight", "SCB")], _ = functional.int8_vectorwise_quant(weight.half())
            continue
        packed[name], state = functional.quantize_4bit(
            weight,
            quant_type=config["bnb_4bit_quant_type"],
            compress_statistics=config.get("bnb_4bit_use_double_quant", False),
            quant_storage=getattr(torch, config.get("bnb_4bit_quant_storage", "uint8")),
        )
        packed |= {f"{name}.{part}": tensor for part, tensor in state.as_dict(packed=True).items()}
    save_tensors(baseline, tmp_path / "dense", {})
    save_tensors(packed, tmp_path / "packed", {"quantization_config": dict(config)})
    judged = judge_files(tmp_path / "packed", tmp_path / "dense")
    assert not judged.ids(Outcome.FAIL) | judged.ids(Outcome.ERROR), judged.text()


def save_tensors(tensors, folder: Path, config) -> None:
    safetensors_torch = pytest.importorskip("safetensors.torch")
    safetensors_torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], **config}))


def test_a_dense_model_is_told_so(zoo: Zoo):
    judged = judge_files(zoo.baseline("llama"), zoo.baseline("llama"))
    assert judged.ids(Outcome.FAIL) == {"config.present"}, judged.text()
    assert not judged.ids(Outcome.ERROR)


def test_the_wrong_baseline_is_told_layer_by_layer(zoo: Zoo):
    judged = judge_files(zoo.quantized("llama", "nf4"), zoo.baseline("gpt2"))
    assert "weights.error" in judged.ids(Outcome.FAIL)
    assert all("baseline" in finding.message for finding in judged.results["weights.error"].findings)
    assert not judged.ids(Outcome.ERROR)


def test_weights_off_reads_no_numbers(zoo: Zoo):
    judged = judge_files(zoo.quantized("llama", "nf4"), zoo.baseline("llama"), weights="off")
    assert judged.ids(Outcome.SKIP) >= {"weights.codes", "weights.error", "weights.scales"}
    assert not judged.ids(Outcome.FAIL)


def test_a_quantized_baseline_is_refused_as_such(zoo: Zoo):
    judged = judge_files(zoo.quantized("llama", "int8"), zoo.quantized("llama", "int8"))
    assert judged.ids(Outcome.ERROR) == set(judged.results)
    assert all("is itself quantized" in result.error.message for result in judged.results.values() if result.error)


def test_a_method_that_cannot_decode_is_a_skip(zoo: Zoo):
    with open_checkpoint(zoo.quantized("llama", "nf4")) as checkpoint:
        artifact = gather_artifact(checkpoint, None)
        method = next(method for method in all_methods() if method.id == artifact.stored_method)
        with pytest.raises(NotApplicable, match="cannot be decoded yet"):
            gather_weights(checkpoint, None, artifact, replace(method, decode=None), sampled=False)


def test_levels_of_any_packing_are_looked_up():
    """Four values to a byte, as in a 2-bit packing, do not fit one machine word."""
    levels = np.arange(256 * 4, dtype=np.float32).reshape(256, 4)
    codes = np.array([[3, 1], [0, 255]], np.uint8)
    for per_byte in (1, 2, 4):
        table = np.ascontiguousarray(levels[:, :per_byte])
        book = replace(integer_book(8), levels=table)
        scaling = Scaling(scales=np.ones(2, np.float32))
        coded = CodedWeight(
            place=Place.of((2, 2 * per_byte)), tile=(1, 2 * per_byte), book=book, codes=codes, scaling=scaling
        )
        np.testing.assert_array_equal(decode_tiles(coded, slice(0, 2)), table[codes].reshape(2, -1))


@pytest.mark.parametrize(("variant", "dtype"), [("nf4", "uint8"), ("nf4-double", "uint8"), ("int8", "int8")])
def test_loaded_modules_are_recognised_by_what_they_hold(zoo: Zoo, variant: str, dtype: str):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    model = transformers.LlamaForCausalLM.from_pretrained(zoo.quantized("llama", variant), device_map={"": "cpu"})
    method = next(item for item in all_methods() if item.id == f"bitsandbytes-{8 if variant == 'int8' else 4}bit")
    found = {name: method.inspect_module(module) for name, module in model.named_modules()}
    quantized = {name: weight for name, weight in found.items() if weight is not None}
    assert len(quantized) == 14
    assert {weight.weight_dtype for weight in quantized.values()} == {dtype}
    assert {len(weight.state) for weight in quantized.values()} == {{"nf4": 2, "nf4-double": 5, "int8": 1}[variant]}
    assert found["lm_head"] is None
    layer = model.model.layers[0].mlp.up_proj
    layer.weight = torch.nn.Parameter(torch.zeros(4, 4), requires_grad=False)  # the class stays, the weight is dense
    if variant == "int8":
        layer.state.SCB = None
    assert method.inspect_module(layer) is None


def test_an_empty_folder_is_not_verified_and_not_passed(tmp_path: Path):
    judged = judge_files(tmp_path)
    assert "files.valid" in judged.ids(Outcome.FAIL)
    assert not {finding for result in judged.results.values() for finding in result.findings if not finding.message}
