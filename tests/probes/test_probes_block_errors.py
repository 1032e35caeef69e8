"""Blocks of a quantized model beside those of its baseline: healthy families agree, and a fault is placed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoding import CHECKPOINTS, FIXTURES
from models import MODELS, Damaged, Zoo, damage

from checker.checkpoint import open_checkpoint
from checker.errors import NotApplicable
from checker.facts import BlockFact
from checker.probes.block_errors import compare_blocks, culprit, drift, find_blocks, hidden_states
from checker.probes.load import load_model

torch = pytest.importorskip("torch")
pytest.importorskip("bitsandbytes")

DECODER = ["model.layers.0", "model.layers.1"]
STACKS = ["encoder.block.0", "encoder.block.1", "decoder.block.0", "decoder.block.1"]
BLOCKS = {
    "gpt2": ["transformer.h.0", "transformer.h.1"],
    "bloom": ["transformer.h.0", "transformer.h.1"],
    "opt": ["model.decoder.layers.0", "model.decoder.layers.1"],
    "t5": STACKS,
    "switch": STACKS,
}
POSITIONS = (0, 20, 63)


def forward(model: Any) -> Callable[[], Any]:
    vocabulary = model.config.get_text_config().vocab_size
    tokens = torch.tensor([[(17 + 7 * number) % vocabulary for number in range(64)]], device=model.device)
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = tokens

    def run(**options: Any) -> Any:
        with torch.no_grad():
            return model(**inputs, use_cache=False, **options)

    return run


def load(folder: Path, device: str = "cpu") -> Any:
    return load_model(folder, device).model


def compare(folder: Path, baseline: Path, device: str = "cpu") -> tuple[tuple[str, float], ...]:
    model = load(folder, device)
    with open_checkpoint(baseline) as checkpoint:
        return compare_blocks(model, checkpoint, forward(model))


def facts(errors: dict[str, float] | tuple[tuple[str, float], ...]) -> tuple[BlockFact, ...]:
    return tuple(BlockFact(block=name, error=error) for name, error in dict(errors).items())


@pytest.mark.parametrize("name", MODELS)
def test_blocks_are_found_in_running_order(zoo: Zoo, name: str):
    model = load(zoo.baseline(name))
    expected = BLOCKS.get(name, DECODER)
    assert [block for block, _ in find_blocks(model)] == expected
    found = hidden_states(model, forward(model), POSITIONS)
    assert list(found) == expected
    assert {values.shape for values in found.values()} == {(3, 64)}


def test_hidden_states_are_the_residual_stream(zoo: Zoo):
    model = load(zoo.baseline("llama"))
    found = hidden_states(model, forward(model), (0, 20, 63, 64, 1000))
    whole = forward(model)(output_hidden_states=True).hidden_states
    np.testing.assert_array_equal(found["model.layers.0"], whole[1][0, POSITIONS, :].float().numpy())
    assert found["model.layers.1"].shape == (3, 64), "positions that the row does not have are left out"


def test_lists_that_are_no_blocks_are_passed_over():
    leaves = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(9))
    block = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ModuleList([torch.nn.Sequential(torch.nn.ReLU())]))
    model = torch.nn.ModuleDict({"few": torch.nn.ModuleList([block]), "leaves": leaves, "none": torch.nn.ModuleList()})
    assert [name for name, _ in find_blocks(model)] == ["few.0"]


def test_drift_grows_from_what_differs():
    theirs = {"a": np.array([[1000.0, 0], [3, 4]], np.float32), "b": np.ones((2, 2), np.float32)}
    ours = {"a": np.array([[1000.0, 0], [3, 4.5]], np.float32), "c": np.ones((2, 2), np.float32), "b": theirs["b"][:1]}
    [row] = drift(ours, theirs)
    assert (row.block, row.error) == ("a", None)
    assert row.drift == pytest.approx(0.1 / 2**0.5), "a huge first position does not hide the others"
    assert [fact.drift for fact in drift(theirs, theirs)] == [0, 0]
    nothing = {"a": np.zeros((2, 2), np.float32)}
    assert drift(nothing, nothing)[0].drift == 0
    assert drift({"a": np.full((2, 2), np.nan, np.float32)}, theirs)[0].drift == 1e12


@pytest.mark.parametrize("name", MODELS)
def test_a_block_built_alone_is_that_of_the_whole_model(zoo: Zoo, name: str):
    """The baseline against itself: whatever is renamed, joined or kept in no file must come out the same."""
    errors = compare(zoo.baseline(name), zoo.baseline(name))
    assert [block for block, _ in errors] == BLOCKS.get(name, DECODER)
    assert {error for _, error in errors} == {0.0}


@pytest.mark.parametrize("variant", ["nf4", "int8"])
@pytest.mark.parametrize("name", [name for name in MODELS if name != "switch"])
def test_healthy_blocks_err_alike(zoo: Zoo, name: str, variant: str):
    errors = compare(zoo.quantized(name, variant), zoo.baseline(name))
    low, high = (0.08, 0.25) if variant == "nf4" else (0.008, 0.06)
    assert all(low < error < high for _, error in errors), errors
    assert culprit(facts(errors)) == ""


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["llama", "t5", "qwen3-moe"])
def test_blocks_on_cuda(zoo: Zoo, name: str):
    assert max(error for _, error in compare(zoo.baseline(name), zoo.baseline(name), "cuda:0")) < 0.01
    assert culprit(facts(compare(zoo.quantized(name, "nf4"), zoo.baseline(name), "cuda:0"))) == ""


def test_names_that_loading_changes():
    """The language part of a vision-language model; its vision blocks do not run without an image."""
    errors = compare(CHECKPOINTS / "metal" / "w4-llava", FIXTURES / "baselines" / "llava")
    assert [block for block, _ in errors] == ["model.language_model.layers.0", "model.language_model.layers.1"]
    assert all(0.05 < error < 0.25 for _, error in errors)
    assert {error for _, error in compare(*[FIXTURES / "baselines" / "llava"] * 2)} == {0.0}


def swap_nibbles(damaged: Damaged, weight: str) -> None:
    codes = damaged.u8(weight)
    codes[:] = codes >> 4 | codes << 4


def shift_scales(damaged: Damaged, weight: str) -> None:
    scales = damaged.f32(f"{weight.removesuffix('.weight')}.SCB")
    scales[:] = np.roll(scales, 1) * 4


@pytest.mark.parametrize(
    ("name", "variant", "weight", "fault"),
    [
        ("llama", "nf4", "model.layers.0.mlp.down_proj.weight", swap_nibbles),
        ("llama", "nf4-double", "model.layers.1.self_attn.v_proj.weight", swap_nibbles),
        ("llama", "int8", "model.layers.1.mlp.down_proj.weight", shift_scales),
        ("t5", "nf4", "decoder.block.0.layer.1.EncDecAttention.v.weight", swap_nibbles),
        ("gpt2", "nf4", "transformer.h.1.mlp.c_proj.weight", swap_nibbles),
    ],
)
def test_a_fault_in_one_layer_is_placed(
    zoo: Zoo, tmp_path: Path, name: str, variant: str, weight: str, fault: Callable[[Damaged, str], None]
):
    with damage(zoo.quantized(name, variant), tmp_path / "damaged") as damaged:
        fault(damaged, weight)
    errors = compare(tmp_path / "damaged", zoo.baseline(name))
    found = culprit(facts(errors))
    assert found
    assert weight.startswith(f"{found}."), errors


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        pytest.param({}, "", id="nothing measured"),
        pytest.param({"a": 0.9}, "", id="one block has nothing to be compared with"),
        pytest.param({"a": 0.1, "b": 0.21}, "", id="within what healthy blocks differ by"),
        pytest.param({"a": 0.1, "b": 0.1, "c": 0.5, "d": 0.6}, "c", id="the first"),
        pytest.param({"a": 0.1, "b": 0.9}, "b", id="two"),
        pytest.param({"a": 0.01, "b": 0.01, "c": 0.045}, "", id="too small to tell"),
        pytest.param({"a": 1.1, "b": 1.4, "c": 0.9}, "", id="all of them"),
        pytest.param({"a": 0.1, "b": 1e12, "c": 0.1}, "b", id="not finite"),
    ],
)
def test_the_culprit_is_the_first_out_of_line(errors: dict[str, float], expected: str):
    assert culprit(facts(errors)) == expected
    assert culprit((*facts(errors), BlockFact(block="unknown", drift=3.0))) == expected


def lose_a_norm(damaged: Damaged) -> None:
    del damaged.tensors["model.layers.1.input_layernorm.weight"]


def change_a_shape(damaged: Damaged) -> None:
    damaged.put("model.layers.1.input_layernorm.weight", "BF16", [32], bytes(64))


def change_the_config(damaged: Damaged) -> None:
    damaged.config["num_hidden_layers"] = 1


def change_the_class(damaged: Damaged) -> None:
    damaged.config["hidden_act"] = "no such function"


def quantize(damaged: Damaged) -> None:
    tensor = damaged.tensors["model.layers.0.mlp.up_proj.weight"]
    damaged.put("model.layers.0.mlp.up_proj.weight", "F8_E4M3", tensor.shape, bytes(len(tensor.data) // 2))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lose_a_norm, r"becomes model\.layers\.1\.input_layernorm\.weight"),
        (change_a_shape, r"has shape \[32\] in the baseline instead of \[64\]"),
        (change_the_config, r"the baseline has no model\.layers\.1"),
        (change_the_class, "cannot be built"),
        (quantize, "F8_E4M3: it is no full-precision model"),
    ],
)
def test_a_baseline_that_does_not_fit_is_told(zoo: Zoo, tmp_path: Path, change: Callable[[Damaged], None], reason: str):
    with damage(zoo.baseline("llama"), tmp_path / "damaged") as damaged:
        change(damaged)
    model = load(zoo.quantized("llama", "nf4"))
    with open_checkpoint(tmp_path / "damaged") as checkpoint, pytest.raises(NotApplicable, match=reason):
        compare_blocks(model, checkpoint, forward(model))
    assert not any(block._forward_hooks or block._forward_pre_hooks for _, block in find_blocks(model))


def test_running_a_second_time_changes_nothing(zoo: Zoo):
    model = load(zoo.quantized("llama", "nf4"))
    run = forward(model)
    before = run().logits
    with open_checkpoint(zoo.baseline("llama")) as checkpoint:
        first = compare_blocks(model, checkpoint, run)
        assert compare_blocks(model, checkpoint, lambda: (run(), run())) == first
    hidden_states(model, run, POSITIONS)
    assert torch.equal(run().logits, before)
