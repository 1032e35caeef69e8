"""Large things in files, and freed memory given back: nothing is lost by it, and nothing is left behind."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from checker.probes import thrift

torch = pytest.importorskip("torch")


def test_room_is_float32_and_can_be_written(tmp_path):
    for folder in (None, tmp_path):
        tensor = thrift.room((3, 5), "cpu", folder)
        assert (tensor.dtype, tuple(tensor.shape)) == (torch.float32, (3, 5))
        tensor[:, 1:3] = torch.arange(6.0).reshape(3, 2)
        tensor += 1
        assert tensor[2, 2] == 6.0


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
def test_room_lies_in_a_file_that_has_no_name(tmp_path):
    tensor = thrift.room((1 << 10, 1 << 10), "cpu", tmp_path)
    tensor.fill_(1.0)
    lines = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line]
    assert len(lines) == 1
    assert lines[0].endswith("(deleted)")
    assert list(tmp_path.iterdir()) == []


def test_two_rooms_share_nothing(tmp_path):
    first, second = (thrift.room((4,), "cpu", tmp_path) for _ in range(2))
    first.fill_(1.0)
    second.fill_(2.0)
    assert first.tolist() == [1.0] * 4


def test_a_full_disk_is_found_before_anything_is_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    tensor = thrift.room((4,), "cpu", tmp_path)
    tensor.fill_(3.0)
    assert tensor.tolist() == [3.0] * 4


def test_a_system_that_cannot_claim_space_keeps_it_in_memory(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    assert thrift.room((4,), "cpu", tmp_path).fill_(1.0).tolist() == [1.0] * 4


def test_a_folder_that_is_gone_costs_nothing_but_memory(tmp_path):
    assert tuple(thrift.room((2, 2), "cpu", tmp_path / "gone").shape) == (2, 2)


def test_no_room_at_all(tmp_path):
    assert tuple(thrift.room((0, 7), "cpu", tmp_path).shape) == (0, 7)


@pytest.mark.parametrize(
    ("shape", "rows"),
    [
        pytest.param((64, 1 << 10), 512, id="two mebibytes"),
        pytest.param((2, 1 << 10), 512, id="may reach beyond"),
        pytest.param((64, 1 << 20), 1, id="one row is always taken"),
    ],
)
def test_rows_at_once(shape, rows):
    assert thrift.at_once(torch.empty(shape)) == rows


def test_a_device_of_its_own_takes_more_at_once():
    class Elsewhere:
        device, shape = torch.device("cuda"), (1024, 1 << 17)

    assert thrift.at_once(Elsewhere()) == 128


def test_memory_goes_back_after_each_module_and_at_the_end(monkeypatch):
    calls: list[int] = []
    monkeypatch.setattr(thrift, "give_back", lambda: calls.append(1))
    modules = [torch.nn.Linear(2, 2) for _ in range(4)]
    with thrift.giving_back(modules[1::2]):
        for module in modules:
            module(torch.zeros(1, 2))
    assert len(calls) == 3
    modules[1](torch.zeros(1, 2))
    assert len(calls) == 3, "no hook is left"


def test_memory_goes_back_when_the_model_fails_too(monkeypatch):
    calls: list[int] = []
    monkeypatch.setattr(thrift, "give_back", lambda: calls.append(1))
    with pytest.raises(RuntimeError, match="broken"), thrift.giving_back([]):
        raise RuntimeError("broken")
    assert calls == [1]
