"""What compressed-tensors has made of a loaded module. Imported when a model is inspected.

transformers marks modules with a ``quantization_scheme`` and a ``quantization_status``
(``apply_quantization_config`` in compressed_tensors/quantization/lifecycle/apply.py, 0.20); their classes stay those of
torch. Codes, scales and zero points are parameters. A hook of the whole model turns all codes into 16-bit weights at
the first forward (``ModelCompressor.add_decompress_hook``): such a weight still has the values of its codes, and its
module still rounds activations, so it counts as quantized; memory.footprint tells what became of the memory.
"""

from __future__ import annotations

from typing import Any

from checker.registry import LoadedWeight

CODES = ("int8", "float8_e4m3fn")  # where a code has a byte of its own and keeps the weight's name
OPTIMIZED = "CompressedTensorsFP8Linear"  # of transformers, with kernels (use_optimized_inference)


def inspect(module: Any) -> LoadedWeight | None:
    """The weight of one module; None when it is not quantized, or should be and holds no codes."""
    packed = getattr(module, "weight_packed", None)
    held = packed if packed is not None else getattr(module, "weight", None)
    dtype = str(getattr(held, "dtype", "none")).removeprefix("torch.")
    if type(module).__name__ == OPTIMIZED:
        return LoadedWeight(weight_dtype=dtype, compute_dtype=None, state=()) if dtype in CODES else None
    if getattr(getattr(module, "quantization_scheme", None), "weights", None) is None:  # attention has none, for caches
        return None
    status = getattr(module, "quantization_status", None)
    if getattr(status, "value", status) == "compressed" and packed is None and dtype not in CODES:
        return None
    return LoadedWeight(weight_dtype=dtype, compute_dtype=None, state=())
