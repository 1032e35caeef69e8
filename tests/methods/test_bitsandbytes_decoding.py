"""Layout, code books and decoding of both bitsandbytes methods against the library itself."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from decoding import assert_windows_agree, decode, dense, method_of, recognise

from checker.checkpoint import Checkpoint, open_checkpoint
from checker.code_books import cell_variance
from checker.facts import StoredWeight
from checker.methods._bitsandbytes_numbers import CODE_BOOKS, dynamic_map

torch = pytest.importorskip("torch")
functional = pytest.importorskip("bitsandbytes.functional")
safetensors_torch = pytest.importorskip("safetensors.torch")

FOUR, EIGHT = method_of("bitsandbytes-4bit"), method_of("bitsandbytes-8bit")
LAYER = "model.layers.0.mlp.up_proj"
SHAPES = [(64, 64), (3, 64), (5, 7), (1, 1), (33, 65), (2, 300, 3), (640, 128)]
DTYPES = ["bfloat16", "float16", "float32"]


def dense_weight(shape: tuple[int, ...], dtype: str):
    """Random values of wide spread, with a run of zeros longer than a block where there is room."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(math.prod(shape)))
    values.view(-1)[130:330] = 0
    return (values * 0.02).to(getattr(torch, dtype))


def save(folder: Path, tensors: dict[str, object]) -> Checkpoint:
    safetensors_torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    return open_checkpoint(folder)


def quantize_4bit(folder: Path, weight, **options) -> tuple[Checkpoint, object]:
    """Quantized and written as ``Linear4bit`` saves itself; and what the library decodes to, in float32."""
    packed, state = functional.quantize_4bit(weight, **options)
    parts = {f"{LAYER}.weight.{name}": tensor for name, tensor in state.as_dict(packed=True).items()}
    checkpoint = save(folder, {f"{LAYER}.weight": packed, **parts})
    state.dtype = torch.float32
    return checkpoint, functional.dequantize_4bit(packed, state)


def only(weights: tuple[StoredWeight, ...]) -> StoredWeight:
    [weight] = weights
    assert weight.flaws == ()
    return weight


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("nested", [False, True], ids=["plain", "double"])
@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
def test_4bit_decodes_as_the_library_does(tmp_path, quant_type, nested, dtype, shape):
    options = {"quant_type": quant_type, "compress_statistics": nested, "blocksize": 64}
    checkpoint, wanted = quantize_4bit(tmp_path, dense_weight(shape, dtype), **options)
    weight = only(recognise(FOUR, checkpoint))
    assert (weight.module, weight.shape) == (LAYER, shape)
    assert weight.attributes["double_quantization"] is nested
    assert (weight.attributes["quant_type"], weight.attributes["dense_dtype"]) == (quant_type, dtype)
    [coded] = FOUR.decode(checkpoint, weight, None)
    assert coded.padding == -math.prod(shape) % 64
    assert (coded.code_book_flaw, coded.scaling.flaw) == ("", "")
    np.testing.assert_array_equal(dense([coded], shape), wanted.numpy().reshape(shape))
    assert_windows_agree(FOUR, checkpoint, weight)


@pytest.mark.parametrize("shape", [(64, 64), (5, 8), (33, 64), (5, 24)], ids=str)
@pytest.mark.parametrize("storage", ["uint8", "bfloat16", "float16", "float32"])
def test_4bit_decodes_from_any_storage(tmp_path, storage, shape):
    checkpoint, wanted = quantize_4bit(
        tmp_path, dense_weight(shape, "bfloat16"), quant_type="nf4", quant_storage=getattr(torch, storage)
    )
    weight = only(recognise(FOUR, checkpoint))
    np.testing.assert_array_equal(decode(FOUR, checkpoint, weight), wanted.numpy())
    assert_windows_agree(FOUR, checkpoint, weight)
    assert_layout_is_exact(FOUR, checkpoint, weight)


@pytest.mark.parametrize("blocksize", [64, 128, 256])
def test_4bit_reads_its_block_size_from_the_state(tmp_path, blocksize):
    weight = dense_weight((64, 256), "float32")  # bitsandbytes' CPU kernel is wrong for rows narrower than a block
    checkpoint, wanted = quantize_4bit(tmp_path, weight, quant_type="nf4", blocksize=blocksize)
    weight = only(recognise(FOUR, checkpoint))
    [coded] = FOUR.decode(checkpoint, weight, None)
    assert weight.attributes["block_size"] == coded.tile_size == blocksize
    np.testing.assert_array_equal(decode(FOUR, checkpoint, weight), wanted.numpy())


@pytest.mark.parametrize("nested", [False, True], ids=["plain", "double"])
@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
def test_a_block_of_zeros_has_a_scale_of_zero(tmp_path, quant_type, nested):
    values = torch.randn(100, 64, generator=torch.Generator().manual_seed(1)).bfloat16()
    values[::3] = 0
    checkpoint, _ = quantize_4bit(tmp_path, values, quant_type=quant_type, compress_statistics=nested)
    [coded] = FOUR.decode(checkpoint, only(recognise(FOUR, checkpoint)), None)
    assert (coded.scaling.scales[::3] == 0).all()
    assert (np.delete(coded.scaling.scales, np.s_[::3]) > 0).all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("nested", [False, True], ids=["plain", "double"])
def test_4bit_layout_predicts_every_byte(tmp_path, shape, nested):
    checkpoint, _ = quantize_4bit(
        tmp_path, dense_weight(shape, "bfloat16"), quant_type="nf4", compress_statistics=nested
    )
    assert_layout_is_exact(FOUR, checkpoint, only(recognise(FOUR, checkpoint)))


def assert_layout_is_exact(method, checkpoint: Checkpoint, weight: StoredWeight) -> None:
    """Every stored tensor is predicted, with dtype, shape and bytes, and none beside them."""
    expected = {part.name: part for part in method.layout(weight.weight, weight.shape, weight.attributes)}
    assert tuple(expected.values()) == weight.expected
    assert expected.keys() == checkpoint.tensors.keys()
    for name, header in checkpoint.tensors.items():
        part = expected[name]
        assert header.dtype == part.dtype
        if part.nbytes is None:
            assert header.nbytes <= part.max_bytes
        else:
            assert (header.shape, header.nbytes) == (part.shape, part.nbytes)


@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
def test_code_books_are_the_library_s(quant_type):
    np.testing.assert_array_equal(CODE_BOOKS[quant_type], functional.get_4bit_type(quant_type, device="cpu").numpy())


def test_the_dynamic_map_is_the_library_s():
    wanted = functional.create_dynamic_map().numpy()
    np.testing.assert_allclose(dynamic_map(), wanted, rtol=2e-7)  # torch rounds the last bit otherwise on some CPUs
    assert (np.diff(dynamic_map()) > 0).all()


@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
def test_cell_variance_is_the_integral_of_the_squared_error(quant_type):
    book = CODE_BOOKS[quant_type]
    points = np.linspace(-1, 1, 400_001)
    distance = np.abs(points[:, None] - np.unique(book)[None, :])
    nearest, squared = np.unique(book)[distance.argmin(axis=1)], distance.min(axis=1) ** 2
    wanted = [squared[nearest == level].mean() for level in book]
    np.testing.assert_allclose(cell_variance(book), wanted, rtol=2e-3)


@pytest.mark.parametrize("shape", [(64, 64), (5, 7), (1, 3), (33, 128)], ids=str)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("marker", [True, False], ids=["with weight_format", "older writer"])
def test_int8_decodes_as_the_library_does(tmp_path, dtype, shape, marker):
    values = dense_weight(shape, dtype).half()
    values[0] = 0
    codes, scales, _ = functional.int8_vectorwise_quant(values)
    tensors = {f"{LAYER}.weight": codes, f"{LAYER}.SCB": scales}
    if marker:
        tensors[f"{LAYER}.weight_format"] = torch.tensor(0, dtype=torch.uint8)
    checkpoint = save(tmp_path, tensors)
    weight = only(recognise(EIGHT, checkpoint))
    wanted = functional.int8_vectorwise_dequant(codes, scales).numpy()
    values = decode(EIGHT, checkpoint, weight)
    np.testing.assert_allclose(values, wanted, rtol=3e-7, atol=0)  # the library multiplies by a rounded 1/127
    assert_windows_agree(EIGHT, checkpoint, weight)
    assert {part.name for part in weight.expected if not part.optional} <= checkpoint.tensors.keys()
    for part in weight.expected:
        header = checkpoint.tensors.get(part.name)
        assert header is None or (header.dtype, header.shape, header.nbytes) == (part.dtype, part.shape, part.nbytes)


def test_each_method_leaves_the_other_s_tensors_alone(tmp_path):
    (tmp_path / "four").mkdir()
    checkpoint, _ = quantize_4bit(tmp_path / "four", dense_weight((64, 64), "bfloat16"), quant_type="nf4")
    assert recognise(EIGHT, checkpoint) == ()
    codes, scales, _ = functional.int8_vectorwise_quant(dense_weight((64, 64), "float16"))
    assert recognise(FOUR, save(tmp_path, {f"{LAYER}.weight": codes, f"{LAYER}.SCB": scales})) == ()
