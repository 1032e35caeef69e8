"""Digests of tensors that hold others inside, as torchao's do: they cannot be viewed as bytes, their parts can."""

from __future__ import annotations

import pytest

from checker.probes.roundtrip import _digest

torch = pytest.importorskip("torch")


class Packed(torch.Tensor):
    """Codes and scales behind a dense shape; like the real ones it refuses every operation that it does not know."""

    @staticmethod
    def __new__(cls, codes, scale):
        return torch.Tensor._make_wrapper_subclass(cls, codes.shape, dtype=torch.bfloat16)

    def __init__(self, codes, scale):
        self.codes, self.scale = codes, scale

    def __tensor_flatten__(self):
        return ["codes", "scale"], None

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), options=None):
        raise NotImplementedError(function)


def packed(code: int = 1, scale: float = 0.5) -> Packed:
    return Packed(torch.full((2, 3), code, dtype=torch.int8), torch.tensor([scale, 1.0]))


def test_the_same_parts_have_the_same_digest():
    assert _digest(packed()) == _digest(packed())


@pytest.mark.parametrize("other", [packed(code=2), packed(scale=0.25)], ids=["another code", "another scale"])
def test_each_part_counts(other):
    assert _digest(other) != _digest(packed())


def test_it_is_not_taken_for_a_plain_tensor():
    assert _digest(packed()).startswith("Packed [2, 3] (torch.int8 [2, 3] ")
