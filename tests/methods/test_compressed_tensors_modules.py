"""What of a loaded module counts as quantized by compressed-tensors, by the marks that the library leaves on it.

With the library itself: tests/full/test_full_compressed_tensors.py.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from decoding import method_of

torch = pytest.importorskip("torch")

METHOD = method_of("compressed-tensors")
WEIGHTS = SimpleNamespace(weights=SimpleNamespace(num_bits=4))
CACHE = SimpleNamespace(weights=None)


def linear(dtype: Any, scheme: Any, status: str, *, packed: bool = False, name: str = "Linear") -> Any:
    module = type(name, (torch.nn.Linear,), {})(8, 8, bias=False)
    codes = torch.nn.Parameter(torch.zeros(8, 8).to(dtype), requires_grad=False)
    if packed:
        del module.weight
        module.weight_packed = codes
    else:
        module.weight = codes
    if scheme is not None:
        module.quantization_scheme = scheme
        module.quantization_status = SimpleNamespace(value=status)
    return module


@pytest.mark.parametrize(
    ("module", "dtype"),
    [
        pytest.param(linear(torch.int32, WEIGHTS, "compressed", packed=True), "int32", id="packed in words"),
        pytest.param(linear(torch.uint8, WEIGHTS, "compressed", packed=True), "uint8", id="two to a byte"),
        pytest.param(linear(torch.int8, WEIGHTS, "compressed"), "int8", id="a byte each"),
        pytest.param(linear(torch.float8_e4m3fn, WEIGHTS, "compressed"), "float8_e4m3fn", id="8-bit floats"),
        pytest.param(linear(torch.bfloat16, WEIGHTS, "decompressed"), "bfloat16", id="unpacked by a first forward"),
        pytest.param(linear(torch.bfloat16, WEIGHTS, "frozen"), "bfloat16", id="rounded as it runs"),
        pytest.param(
            linear(torch.float8_e4m3fn, None, "", name="CompressedTensorsFP8Linear"), "float8_e4m3fn", id="with kernels"
        ),
        pytest.param(linear(torch.bfloat16, WEIGHTS, "compressed"), None, id="marked, and yet dense"),
        pytest.param(linear(torch.bfloat16, None, ""), None, id="not marked"),
        pytest.param(linear(torch.int8, None, ""), None, id="another method's codes"),
        pytest.param(linear(torch.bfloat16, CACHE, "compressed"), None, id="only a cache is quantized"),
        pytest.param(linear(torch.bfloat16, None, "", name="CompressedTensorsFP8Linear"), None, id="kernels, no codes"),
    ],
)
def test_a_module_is_quantized_when_it_holds_codes_or_their_values(module: Any, dtype: str | None) -> None:
    assert METHOD.inspect_module is not None
    found = METHOD.inspect_module(module)
    assert (found.weight_dtype if found is not None else None) == dtype
