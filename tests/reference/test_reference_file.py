"""The reference file: what is written comes back, and what is damaged is refused in one sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from checker.errors import NotApplicable, Unavailable
from checker.facts import Continuation
from checker.reference import Identity, Row, Sample, Summary, read_reference
from checker.reference.recorded import open_recorded
from checker.reference.write import bfloat16_bits, write_reference

WORDS, POSITIONS, KEPT = 300, 16, 256
TOKENS = tuple(range(5, 6 + POSITIONS))
IDENTITY = Identity(baseline="org/model", revision="a" * 40, tokenizer="t", prompts="p")
TEXT = Continuation(prompt="A", chat=False, prompt_tokens=(1,), tokens=(2, 3), text="b c", nll=0.5, entropy=0.7)
SUMMARY = Summary(
    identity=IDENTITY,
    dtype="bfloat16",
    device="cpu",
    full=True,
    vocabulary=WORDS,
    rows=1,
    noise_nrmse=0.05,
    parameters=1000,
    config={"model_type": "llama"},
    tensors={"w": ("F32", (6, 2)), "norm": ("BF16", (4,)), "other": ("F32", (2, 2))},
    norms={"w": 3.0},
    samples=(Sample(name="w", first=2, rows=3), Sample(name="norm", first=0, rows=4)),
    blocks=("layers.0",),
    block_positions=(0, 3),
    continuations=(TEXT,),
)
W = np.arange(12, dtype=np.float32).reshape(6, 2)
SAMPLES = {"w": W[2:5].view(np.uint8).reshape(-1), "norm": np.arange(8, dtype=np.uint8)}
HIDDEN = {"layers.0": np.array([[1.5, -2.25], [0.0, 1e-3]], np.float32)}


def row(*, full: bool = True) -> Row:
    random = np.random.default_rng(0)
    logs = np.log(random.dirichlet(np.ones(WORDS), POSITIONS)).astype(np.float32)
    order = np.argsort(-logs, axis=1)[:, :KEPT].astype(np.int32)
    figures = {name: random.random(POSITIONS, np.float32) for name in ("entropies", "noise", "self_noise")}
    return Row(
        tokens=TOKENS,
        true_log_probabilities=logs[np.arange(POSITIONS), TOKENS[1:]],
        most_likely=order[:, 0],
        log_probabilities=logs if full else np.take_along_axis(logs, order, axis=1),
        likely=None if full else order,
        **figures,
    )


def write(path: Path, summary: Summary = SUMMARY, **changes: object) -> Path:
    rows = [replace(row(full=summary.full), **changes)]
    write_reference(path, summary, rows, HIDDEN, SAMPLES)
    return path


@pytest.mark.parametrize("full", [pytest.param(True, id="cached"), pytest.param(False, id="recorded")])
def test_what_is_written_comes_back(tmp_path: Path, full: bool):
    found = read_reference(write(tmp_path / "new" / "x.safetensors", replace(SUMMARY, full=full)))
    assert found.summary == replace(SUMMARY, full=full)
    assert found.recorded is not full
    [back], sent = found.rows, row(full=full)
    assert (back.tokens, back.positions) == (sent.tokens, POSITIONS)
    for name in ("true_log_probabilities", "entropies", "most_likely", "noise", "self_noise", "log_probabilities"):
        np.testing.assert_array_equal(getattr(back, name), getattr(sent, name))
    assert full is (back.likely is None)
    np.testing.assert_allclose(found.hidden["layers.0"], HIDDEN["layers.0"], rtol=2**-8)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.safetensors"]  # nothing temporary is left


def test_bits_of_bfloat16_are_those_of_the_library():
    import ml_dtypes

    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    np.testing.assert_array_equal(bfloat16_bits(values), values.astype(ml_dtypes.bfloat16).view(np.uint16))


@pytest.mark.parametrize(
    ("summary", "changes", "says"),
    [
        pytest.param(SUMMARY, {"tokens": (*TOKENS[1:], 300)}, "tokens.0 does not fit a vocabulary of 300", id="token"),
        pytest.param(SUMMARY, {"tokens": (5,)}, "row 0 has 0 positions", id="no position"),
        pytest.param(SUMMARY, {"noise": np.full(POSITIONS, np.nan, np.float32)}, "not finite", id="NaN"),
        pytest.param(SUMMARY, {"entropies": np.zeros(3, np.float32)}, "entropies.0 is F32 [3]", id="too short"),
        pytest.param(SUMMARY, {"entropies": np.zeros(POSITIONS)}, "entropies.0 is F64 [16]", id="another type"),
        pytest.param(replace(SUMMARY, noise_nrmse=0.0), {}, "contradicts itself", id="no noise"),
        pytest.param(replace(SUMMARY, noise_nrmse=1e-9), {}, "contradicts itself", id="noise that explains anything"),
        pytest.param(replace(SUMMARY, noise_nrmse=float("nan")), {}, "noise_nrmse", id="noise that is no number"),
        pytest.param(SUMMARY, {"noise": np.zeros(POSITIONS, np.float32)}, "noise of row 0 is none", id="no effect"),
        pytest.param(SUMMARY, {"noise": -np.ones(POSITIONS, np.float32)}, "noise of row 0", id="negative noise"),
        pytest.param(replace(SUMMARY, parameters=-1), {}, "contradicts itself", id="fewer than no parameters"),
        pytest.param(replace(SUMMARY, rows=2), {}, "holds no tensor tokens.1", id="a row that is not there"),
        pytest.param(
            replace(SUMMARY, full=False), {"likely": np.full((POSITIONS, 256), 300, np.int32)}, "likely.0", id="id"
        ),
        pytest.param(
            replace(SUMMARY, full=False),
            {"log_probabilities": np.full((POSITIONS, 256), np.nan, np.float32)},
            "no logarithms of probabilities",
            id="NaN among the likely ones would hide any distance",
        ),
        pytest.param(
            replace(SUMMARY, full=False),
            {"log_probabilities": np.full((POSITIONS, 256), 2.0, np.float32)},
            "no logarithms of probabilities",
            id="probabilities above one",
        ),
    ],
)
def test_a_damaged_reference_is_refused(tmp_path: Path, summary: Summary, changes: dict[str, object], says: str):
    path = write(tmp_path / "x.safetensors", summary, **changes)
    with pytest.raises(Unavailable, match="quant-verify record") as caught:
        read_reference(path)
    assert says in str(caught.value)


def test_a_file_that_is_cut_short_is_refused(tmp_path: Path):
    path = write(tmp_path / "x.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(Unavailable, match="cannot be used"):
        read_reference(path)


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"{}"], ids=["empty", "pickle", "JSON"])
def test_what_is_no_reference_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(Unavailable, match=r"x\.safetensors cannot be used"):
        read_reference(path)


def test_another_safetensors_file_is_no_reference(tmp_path: Path):
    from safetensors.numpy import save_file

    save_file({"weight": W}, tmp_path / "x.safetensors")
    with pytest.raises(Unavailable, match="holds no summary"):
        read_reference(tmp_path / "x.safetensors")


def test_a_reference_stands_for_its_baseline(tmp_path: Path):
    baseline = open_recorded(read_reference(write(tmp_path / "x.safetensors")))
    assert baseline.config == {"model_type": "llama"}
    assert {name: header.shape for name, header in baseline.tensors.items()} == {
        "w": (6, 2),
        "norm": (4,),
        "other": (2, 2),
    }
    np.testing.assert_array_equal(baseline.part("w", 2, 5), W[2:5])
    np.testing.assert_array_equal(baseline.float32("w", 4, 8), W.reshape(-1)[4:8])
    assert baseline.float32("norm").shape == (4,)
    assert not baseline.remote


@pytest.mark.parametrize("read", [("w", 0, 4), ("w", 4, 12), ("other", 0, 4)], ids=["before", "after", "not sampled"])
def test_what_was_not_sampled_cannot_be_read(tmp_path: Path, read: tuple[str, int, int]):
    baseline = open_recorded(read_reference(write(tmp_path / "x.safetensors")))
    with pytest.raises(NotApplicable, match="holds no such part"):
        baseline.float32(*read)


@pytest.mark.parametrize("sample", [Sample(name="w", first=4, rows=3), Sample(name="w", first=2, rows=2)])
def test_a_sample_that_does_not_fit_is_refused(tmp_path: Path, sample: Sample):
    summary = replace(SUMMARY, samples=(sample, SUMMARY.samples[1]))
    with pytest.raises(Unavailable, match="sample of w does not fit"):
        open_recorded(read_reference(write(tmp_path / "x.safetensors", summary)))
