"""Can this machine quantize and run? Calls real kernels, for an import that succeeds proves nothing.

bitsandbytes imports without its CUDA library and fails only when a native function is called. Run as a process of its
own: one JSON request on standard input, one JSON answer on standard output.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from checker.domain import Json
from checker.errors import Unavailable
from checker.probes.load import one_line, resolve_device

SHAPE = (64, 128)
LARGEST_ERROR = 0.15  # relative; healthy: 0.09 for NF4, 0.01 for int8


def examine(wanted: str) -> dict[str, Json]:
    """Device, memory, and one row for each kernel: name, whether it worked, what it said, the remedy."""
    device = resolve_device(wanted)
    import torch

    answer: dict[str, Json] = {"device": device, "threads": torch.get_num_threads()}
    if device.startswith("cuda"):
        free, total = torch.cuda.mem_get_info(device)
        answer |= {
            "gpu": torch.cuda.get_device_name(device),
            "capability": ".".join(map(str, torch.cuda.get_device_capability(device))),
            "cuda": torch.version.cuda,
            "free_bytes": free,
            "total_bytes": total,
        }
    kernels: tuple[tuple[str, Callable[[Any], float]], ...] = (
        ("matrix product", _matrix_product),
        ("bitsandbytes 4-bit", _four_bit),
        ("bitsandbytes 8-bit", _eight_bit),
    )
    weight = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)).to(device)
    answer["kernels"] = [_try(name, kernel, weight) for name, kernel in kernels]
    return answer


def _try(name: str, kernel: Callable[[Any], float], weight: Any) -> dict[str, Json]:
    try:
        error = kernel(weight)
    except ImportError as missing:
        return {
            "name": name,
            "works": False,
            "says": f"{missing.name} is not installed",
            "remedy": "quant-verify[torch]",
        }
    except (RuntimeError, NotImplementedError, AttributeError, ValueError, OSError) as failure:
        remedy = "install the bitsandbytes build for this CUDA version; python -m bitsandbytes says which it looks for"
        return {"name": name, "works": False, "says": one_line(failure), "remedy": remedy}
    if not error < LARGEST_ERROR:
        remedy = "the library computes wrong results on this device; try another version"
        return {"name": name, "works": False, "says": f"relative error {error:.3g}", "remedy": remedy}
    return {"name": name, "works": True, "says": f"relative error {error:.2g}", "remedy": ""}


def _matrix_product(weight: Any) -> float:
    return _error(weight @ weight.T, (weight.cpu().double() @ weight.cpu().double().T))


def _four_bit(weight: Any) -> float:
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    codes, state = quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    return _error(dequantize_4bit(codes, state), weight)


def _eight_bit(weight: Any) -> float:
    import torch
    from bitsandbytes.nn import Linear8bitLt

    layer = Linear8bitLt(weight.shape[1], weight.shape[0], bias=False, has_fp16_weights=False)
    layer.load_state_dict({"weight": weight.cpu()})
    layer = layer.to(weight.device)
    inputs = torch.eye(weight.shape[1], dtype=torch.float16, device=weight.device)
    return _error(layer(inputs).T, weight)


def _error(result: Any, exact: Any) -> float:
    result, exact = result.double().cpu(), exact.double().cpu()
    return float((result - exact).norm() / exact.norm())


def main() -> None:
    """Answer one request: ``{"device": "auto"}``."""
    request = json.load(sys.stdin)
    try:
        answer = examine(request["device"])
    except Unavailable as error:
        answer = {"error": str(error)}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
