"""Small quantized weights in the forms that published checkpoints store them: names, dtypes and shapes are theirs.

Each maker takes a module's name and its dense shape [out, in] and returns the stored tensors by full name. The numbers
are round-to-nearest codes of Gaussian weights, so that what is read of them is plausible.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import ml_dtypes
import numpy as np
import numpy.typing as npt
from models import Stored

Maker = Callable[[str, tuple[int, ...]], dict[str, Stored]]
Array = npt.NDArray[np.generic]

DTYPES: Mapping[str, str] = {
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e8m0fnu": "F8_E8M0",
    "int8": "I8",
    "int16": "I16",
    "int32": "I32",
    "int64": "I64",
    "uint8": "U8",
    "uint32": "U32",
}
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
FP8_MAX, FP4_MAX = 448.0, 6.0
LARGEST = 0.125  # of all weights
FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)


def stored(values: Array) -> Stored:
    return Stored(DTYPES[values.dtype.name], list(values.shape), bytearray(np.ascontiguousarray(values).tobytes()))


def gaussian(shape: tuple[int, ...], seed: str) -> npt.NDArray[np.float32]:
    """Weights of a usual size; the same for the same name."""
    generator = np.random.default_rng(sum(map(ord, seed)))
    return (generator.standard_normal(shape) * 0.02).astype(np.float32)


def dense(name: str, shape: tuple[int, ...], dtype: str = "bfloat16") -> dict[str, Stored]:
    return {name: stored(gaussian(shape, name).astype(np.dtype(dtype) if dtype != "bfloat16" else ml_dtypes.bfloat16))}


def words(codes: Array, bits: int = 4, order: tuple[int, ...] | None = None) -> npt.NDArray[np.int32]:
    """Codes packed along the first axis into 32-bit words, low bits first. [n, m] → [n · bits / 32, m]."""
    count = 32 // bits
    grouped = codes.astype(np.uint32).reshape(-1, count, codes.shape[1])[:, order or slice(None)]
    shifts = (np.arange(count, dtype=np.uint32) * np.uint32(bits))[None, :, None]
    packed: npt.NDArray[np.int32] = np.bitwise_or.reduce(grouped << shifts, axis=1).astype(np.uint32).view(np.int32)
    return packed


def grouped_codes(
    module: str, shape: tuple[int, ...], group_size: int, bits: int, *, symmetric: bool
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Unsigned codes [out, in], scales and zero points [out, groups]; ``group_size`` −1: one group a row."""
    rows, columns = shape
    groups = gaussian(shape, module).reshape(rows, -1, columns if group_size < 0 else group_size)
    top = (1 << bits) - 1
    if symmetric:
        scales = np.abs(groups).max(axis=2) * 2 / top
        zeros = np.full(scales.shape, (top + 1) // 2, np.uint8)
    else:
        scales = (groups.max(axis=2) - groups.min(axis=2)) / top
        zeros = np.clip(np.round(-groups.min(axis=2) / scales), 0, top).astype(np.uint8)
    codes = np.clip(np.round(groups / scales[:, :, None]) + zeros[:, :, None], 0, top).astype(np.uint8)
    return codes.reshape(rows, columns), scales.astype(np.float32), zeros


def gptq(*, bits: int = 4, group_size: int = 128, symmetric: bool = True, act_order: bool = False) -> Maker:
    """AutoGPTQ's and GPTQModel's packing along the inputs; zero points are stored less one (format "gptq")."""

    def make(module: str, shape: tuple[int, ...]) -> dict[str, Stored]:
        codes, scales, zeros = grouped_codes(module, shape, group_size, bits, symmetric=symmetric)
        size = shape[1] if group_size < 0 else group_size
        groups = (np.arange(shape[1]) // size).astype(np.int32)
        if act_order:
            groups = np.random.default_rng(7).permutation(groups).astype(np.int32)
        return {
            f"{module}.g_idx": stored(groups),
            f"{module}.qweight": stored(words(codes.T, bits)),
            f"{module}.qzeros": stored(words(zeros - np.uint8(1), bits).T),
            f"{module}.scales": stored(scales.T.astype(np.float16)),
        }

    return make


def awq(*, group_size: int = 128) -> Maker:
    """AutoAWQ's "gemm": packed along the outputs in the order of its kernel."""

    def make(module: str, shape: tuple[int, ...]) -> dict[str, Stored]:
        codes, scales, zeros = grouped_codes(module, shape, group_size, 4, symmetric=False)
        return {
            f"{module}.qweight": stored(words(codes, order=AWQ_ORDER).T),
            f"{module}.qzeros": stored(words(zeros, order=AWQ_ORDER).T),
            f"{module}.scales": stored(scales.T.astype(np.float16)),
        }

    return make


def bitsandbytes(*, double: bool = True, dtype: str = "bfloat16") -> Maker:
    """NF4 by the library itself."""

    def make(module: str, shape: tuple[int, ...]) -> dict[str, Stored]:
        import bitsandbytes.functional
        import torch

        weight = torch.from_numpy(gaussian(shape, module)).to(getattr(torch, dtype))
        packed, state = bitsandbytes.functional.quantize_4bit(weight, compress_statistics=double, quant_type="nf4")
        found = {f"{module}.weight": stored(packed.numpy())}
        return found | {
            f"{module}.weight.{name}": stored(tensor.numpy()) for name, tensor in state.as_dict(packed=True).items()
        }

    return make


def fp8_blocks(scale_dtype: type = np.float32, block: int = 128, *, powers: bool = False) -> Maker:
    """DeepSeek's: one inverse scale per 128 x 128 values."""

    def make(module: str, shape: tuple[int, ...]) -> dict[str, Stored]:
        weight = gaussian(shape, module)
        scales = np.zeros([-(-size // block) for size in shape], np.float32)
        for row, column in np.ndindex(*scales.shape):
            tile = weight[row * block : (row + 1) * block, column * block : (column + 1) * block]
            scale = np.abs(tile).max() / FP8_MAX
            scales[row, column] = np.exp2(np.ceil(np.log2(scale))) if powers else scale
            tile /= scales[row, column]
        return {
            f"{module}.weight": stored(weight.astype(ml_dtypes.float8_e4m3fn)),
            f"{module}.weight_scale_inv": stored(scales.astype(scale_dtype)),
        }

    return make


def fp8(axis: int | None, scale_dtype: type, *, scale_shape: tuple[int, ...] | None = None, **extra: float) -> Maker:
    """``weight`` and ``weight_scale``, one a row (axis 1) or one in all; ``extra``: further tensors of one value."""

    def make(module: str, shape: tuple[int, ...]) -> dict[str, Stored]:
        weight = gaussian(shape, module)
        scales = np.abs(weight).max(axis=axis, keepdims=axis is not None) / np.float32(FP8_MAX)
        weight = weight / scales
        form = scales.shape if scale_shape is None else scale_shape
        found = {
            f"{module}.weight": stored(weight.astype(ml_dtypes.float8_e4m3fn)),
            f"{module}.weight_scale": stored(np.reshape(scales, form).astype(scale_dtype)),
        }
        for name, value in extra.items():
            if name.endswith(("output_scale", "k_scale", "v_scale")) and not module.endswith(("k_proj", "v_proj")):
                continue
            found[f"{module}.{name}"] = stored(np.full(form if axis is None else (1,), value).astype(scale_dtype))
        return found

    return make


def int8_rows(module: str, shape: tuple[int, ...]) -> dict[str, Stored]:
    """compressed-tensors' "int-quantized" of w8a8."""
    weight = gaussian(shape, module)
    scales = np.abs(weight).max(axis=1, keepdims=True) / 127.5
    return {
        f"{module}.weight": stored(np.clip(np.round(weight / scales), -128, 127).astype(np.int8)),
        f"{module}.weight_scale": stored(scales.astype(ml_dtypes.bfloat16)),
    }


def packed_int4(*, group_size: int = 128, shape_dtype: type = np.int64, act_order: bool = False) -> Maker:
    """compressed-tensors' "pack-quantized": eight codes of a row in a word, offset by 8."""

    def make(module: str, shape: tuple[int, ...]) -> dict[str, Stored]:
        codes, scales, _ = grouped_codes(module, shape, group_size, 4, symmetric=True)
        found = {
            f"{module}.weight_packed": stored(words(codes.T).T),
            f"{module}.weight_scale": stored(scales.astype(ml_dtypes.bfloat16)),
            f"{module}.weight_shape": stored(np.array(shape, shape_dtype)),
        }
        if act_order:
            order = np.random.default_rng(7).permutation(np.arange(shape[1]) // group_size)
            found[f"{module}.weight_g_idx"] = stored(order.astype(np.int32))
        return found

    return make


def fp4_codes(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Two E2M1 codes a byte along the last axis, the first in the low half."""
    nearest = np.abs(np.abs(values)[..., None] - FP4).argmin(axis=-1)
    codes = (nearest + (values < 0) * 8).astype(np.uint8)
    return np.asarray(codes[..., ::2] | (codes[..., 1::2] << 4), np.uint8)


def nvfp4(module: str, shape: tuple[int, ...]) -> dict[str, Stored]:
    """compressed-tensors' "nvfp4-pack-quantized": scales of 16 values, multiplied by a global scale."""
    weight = gaussian(shape, module)
    whole = np.float32(FP8_MAX * FP4_MAX / LARGEST)
    blocks = weight.reshape(shape[0], -1, 16)
    scales = (np.abs(blocks).max(axis=2) / FP4_MAX * whole).astype(ml_dtypes.float8_e4m3fn)
    codes = fp4_codes((blocks / (scales.astype(np.float32) / whole)[:, :, None]).reshape(shape))
    return {
        f"{module}.input_global_scale": stored(np.array([256.0], np.float32)),
        f"{module}.weight_global_scale": stored(np.array([whole], np.float32)),
        f"{module}.weight_packed": stored(codes),
        f"{module}.weight_scale": stored(scales),
    }


def mxfp4(tensor: str, shape: tuple[int, ...]) -> dict[str, Stored]:
    """gpt-oss: ``_blocks`` [experts, out, in / 32, 16] and ``_scales`` [experts, out, in / 32], a power of two each."""
    blocks = gaussian(shape, tensor).reshape(*shape[:-1], -1, 32)
    exponents = np.floor(np.log2(np.abs(blocks).max(axis=-1))) - 2
    codes = fp4_codes((blocks / np.exp2(exponents)[..., None]).astype(np.float32))
    return {f"{tensor}_blocks": stored(codes), f"{tensor}_scales": stored((exponents + 127).astype(np.uint8))}


def ternary(module: str, shape: tuple[int, ...]) -> dict[str, Stored]:
    """BitNet: four rows' codes in a byte, a quarter of the rows apart."""
    weight = gaussian(shape, module)
    scale = np.abs(weight).mean()
    codes = (np.clip(np.round(weight / scale), -1, 1) + 1).astype(np.uint8).reshape(4, -1, shape[1])
    return {
        f"{module}.weight": stored(codes[0] | codes[1] << 2 | codes[2] << 4 | codes[3] << 6),
        f"{module}.weight_scale": stored(np.array([scale], ml_dtypes.bfloat16)),
    }


def mlx(*, bits: int = 4, group_size: int = 64) -> Maker:
    """MLX's affine form: words along the inputs, scale and bias a group; experts [experts, out, in] alike."""

    def make(module: str, shape: tuple[int, ...]) -> dict[str, Stored]:
        flat = (int(np.prod(shape[:-1])), shape[-1])
        codes, scales, zeros = grouped_codes(module, flat, group_size, bits, symmetric=False)
        packed = np.ascontiguousarray(words(codes.T, bits).T)
        return {
            f"{module}.weight": stored(packed.view(np.uint32).reshape(*shape[:-1], -1)),
            f"{module}.scales": stored(scales.astype(ml_dtypes.bfloat16).reshape(*shape[:-1], -1)),
            f"{module}.biases": stored((-zeros * scales).astype(ml_dtypes.bfloat16).reshape(*shape[:-1], -1)),
        }

    return make


def aqlm(module: str, shape: tuple[int, ...]) -> dict[str, Stored]:
    """1x16 in groups of 8 inputs. The code book has its full 65536 entries."""
    generator = np.random.default_rng(3)
    codes = generator.integers(-32768, 32768, (shape[0], shape[1] // 8, 1)).astype(np.int16)
    return {
        f"{module}.codebooks": stored(generator.standard_normal((1, 65536, 1, 8)).astype(np.float16)),
        f"{module}.codes": stored(codes),
        f"{module}.scales": stored(np.abs(gaussian((shape[0], 1, 1, 1), module)).astype(np.float16)),
    }


def int8_bitsandbytes(*, format_stored: bool = True) -> Maker:
    """LLM.int8(): a row's largest magnitude is code 127; older files lack ``weight_format``."""

    def make(module: str, shape: tuple[int, ...]) -> dict[str, Stored]:
        weight = gaussian(shape, module)
        largest = np.abs(weight).max(axis=1)
        found = {
            f"{module}.SCB": stored(largest),
            f"{module}.weight": stored(np.round(weight / largest[:, None] * 127).astype(np.int8)),
        }
        return found | ({f"{module}.weight_format": stored(np.array(0, np.uint8))} if format_stored else {})

    return make


def fp8_scalar(module: str, shape: tuple[int, ...]) -> dict[str, Stored]:
    """Mistral's own: one inverse scale a weight and one of the activations, both without dimensions."""
    weight = gaussian(shape, module)
    scale = np.abs(weight).max() / FP8_MAX
    return {
        f"{module}.activation_scale": stored(np.array(0.02, ml_dtypes.bfloat16)),
        f"{module}.weight": stored((weight / scale).astype(ml_dtypes.float8_e4m3fn)),
        f"{module}.weight_scale_inv": stored(np.array(scale, ml_dtypes.bfloat16)),
    }


def nvfp4_modelopt(module: str, shape: tuple[int, ...]) -> dict[str, Stored]:
    """NVIDIA's names for NVFP4: the second scale is the inverse of compressed-tensors' global one."""
    found = nvfp4(module, shape)
    whole = np.float32(LARGEST / FP8_MAX / FP4_MAX)
    return {
        f"{module}.input_scale": stored(np.array(0.004, np.float32)),
        f"{module}.weight": found[f"{module}.weight_packed"],
        f"{module}.weight_scale": found[f"{module}.weight_scale"],
        f"{module}.weight_scale_2": stored(np.array(whole)),
    }
