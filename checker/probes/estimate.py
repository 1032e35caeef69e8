"""Bytes of a model and of its quantized forms, from its config alone: built on the meta device, nothing allocated.

Run as a process of its own (``python -m checker.probes.estimate``), for the command line never imports torch: one JSON
request on standard input, one JSON answer on standard output.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from checker.domain import Json
from checker.errors import Unavailable
from checker.facts import ExpectedTensor
from checker.probes.skeleton import Skeleton, build_skeleton, import_transformers, read_config
from checker.probes.structure import IN_MEMORY
from checker.registry import Method, method_declared


def estimate(config_file: Path, quantizations: Mapping[str, Mapping[str, Json]], dtype: str | None) -> dict[str, Json]:
    """Footprint and true bytes of the dense model and of each quantization, and their ratios.

    ``footprint`` is what ``get_memory_footprint()`` reads; ``true_bytes`` adds the quantization state that it does not
    see. A ratio divides the dense footprint by the quantized one.
    """
    config = read_config(config_file)
    config.quantization_config = None
    stated = getattr(config, "dtype", None)
    config.dtype = dtype or (str(stated).removeprefix("torch.") if stated else "float16")
    dense = _dense_bytes(build_skeleton(config, None, {}))
    rows = {}
    for name, quantization in quantizations.items():
        method = method_declared(quantization)
        assert method is not None
        skeleton = build_skeleton(config, method, quantization)
        footprint, true_bytes = _quantized_bytes(skeleton, method, method.declared(quantization))
        rows[name] = {
            "footprint": footprint,
            "true_bytes": true_bytes,
            "ratio": dense / footprint,
            "true_ratio": dense / true_bytes,
            "quantized_modules": len(skeleton.quantizable),
            "dense_experts": len(skeleton.fused_experts),
        }
    return {
        "architecture": config.architectures[0],
        "dtype": config.dtype,
        "dtype_assumed": dtype is None and stated is None,
        "footprint": dense,
        "quantizations": rows,
    }


def _dense_bytes(skeleton: Skeleton) -> int:
    tensors = [*skeleton.model.parameters(), *skeleton.model.buffers()]
    return int(sum(tensor.numel() * tensor.element_size() for tensor in tensors)) + _float32_extra(skeleton)


def _float32_extra(skeleton: Skeleton) -> int:
    """What parameters kept in float32 take beyond the model's dtype."""
    parameters = dict(skeleton.model.named_parameters())
    return sum(parameters[name].numel() * (4 - parameters[name].element_size()) for name in skeleton.kept_in_float32)


def _quantized_bytes(skeleton: Skeleton, method: Method, attributes: Mapping[str, Any]) -> tuple[int, int]:
    parameters = dict(skeleton.model.named_parameters())
    footprint, state = _dense_bytes(skeleton), 0
    for module in skeleton.quantizable:
        weight = parameters[f"{module}.weight"]
        parts: tuple[ExpectedTensor, ...] = method.layout(f"{module}.weight", tuple(weight.shape), attributes)
        packed = sum(part.nbytes or 0 for part in parts if not part.companion)
        footprint += packed - weight.numel() * weight.element_size()
        state += sum(part.nbytes or 0 for part in parts if part.name.endswith(IN_MEMORY))
        state += 4 if attributes.get("double_quantization") else 0
    return footprint, footprint + state


def main() -> None:
    """Answer one request."""
    request = json.load(sys.stdin)
    answer: dict[str, Json]
    try:
        import_transformers()
        answer = estimate(Path(request["config"]), request["quantizations"], request["dtype"])
    except (Unavailable, AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        answer = {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
