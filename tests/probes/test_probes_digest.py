"""Digests of tensors that hold others inside, as torchao's do: they cannot be viewed as bytes, their parts can."""

from __future__ import annotations

import pytest

from checker.probes import roundtrip
from checker.probes.roundtrip import _digest, mixed_sum

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


def words_mixed(raw: bytes) -> int:
    """The digest of the docstring, in Python's integers."""
    mask, total = (1 << 64) - 1, len(raw)
    raw += bytes(-len(raw) % 8)
    for place in range(len(raw) // 8):
        word = int.from_bytes(raw[8 * place : 8 * place + 8], "little") + (place + 1) * 0x9E3779B97F4A7C15 & mask
        word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & mask
        word = (word ^ word >> 27) * 0x94D049BB133111EB & mask
        total += word ^ word >> 31
    return total & mask


@pytest.mark.parametrize("size", [0, 1, 7, 8, 1000, 4099])
@pytest.mark.parametrize("chunk", [64, 1 << 27])
def test_the_sum_of_mixed_words_is_what_it_says(monkeypatch, size: int, chunk: int):
    monkeypatch.setattr(roundtrip, "CHUNK", chunk)
    raw = torch.randint(0, 256, (size,), generator=torch.Generator().manual_seed(size), dtype=torch.uint8)
    assert mixed_sum(raw) == words_mixed(bytes(raw.tolist()))


@pytest.mark.parametrize("place", [0, 500, 999])
def test_every_byte_counts_in_the_sum_and_so_does_its_place(place: int):
    raw = torch.arange(1000, dtype=torch.int64).to(torch.uint8)
    changed = raw.clone()
    changed[place] ^= 1
    turned = raw.clone()
    turned[[place, (place + 8) % 1000]] = raw[[(place + 8) % 1000, place]]
    assert len({mixed_sum(raw), mixed_sum(changed), mixed_sum(turned), mixed_sum(raw[:-1])}) == 4


@pytest.mark.gpu
def test_the_sum_is_the_same_on_a_gpu():
    raw = torch.randint(0, 256, (1 << 20,), dtype=torch.uint8)
    assert mixed_sum(raw.cuda()) == mixed_sum(raw)
