"""Cells with everything that can be measured: healthy, wrong, half known, and written by somebody hostile."""

from __future__ import annotations

import dataclasses
import math

from checker.domain import (
    Cell,
    CellResult,
    CheckError,
    CheckResult,
    Depth,
    Environment,
    ErrorKind,
    Finding,
    Json,
    Location,
    ModelRef,
    RunResult,
    Settings,
    Severity,
)

BLOCKS, KINDS = 12, ("mlp.down_proj", "mlp.up_proj", "self_attn.k_proj", "self_attn.q_proj")
BASELINE = ModelRef(kind="hub", name="HuggingFaceTB/SmolLM2-135M", revision="12fd25f")
COMMIT = "12fd25f77366fa6b3b4b768ec3050bf629380bac"
IDS = (
    "config.keys", "config.method", "config.present", "config.roundtrip", "config.truthful", "dtypes.storage",
    "files.valid", "layers.complete", "layers.coverage", "layers.excluded", "layers.tied", "memory.ratio",
    "weights.codes", "weights.error", "weights.scales", "dtypes.loaded", "layers.classes", "loading.keys",
    "loading.quantized", "memory.footprint", "outputs.divergence", "outputs.finite", "outputs.known-good",
    "roundtrip.checkpoint",
)  # fmt: skip
ATTACKS = (
    "</script><img src=x onerror=alert(1)>", "</style><style>*{display:none}</style>", '"><svg onload=alert(1)>',
    "' onmouseover='x", "{{ 7*7 }}", "{% raw %}", "<!-- -->", "::error::pwned", "##[error]pwned",
    "javascript:alert(1)", "https://evil.example/x", "\u202eabc\u202c", "\u200b", "\ud800", "\x00\x1b[31m", "&lt;",
    "]]>", "url(https://evil.example)", "a\nb\r\nc\u2028d",
)  # fmt: skip
HOSTILE = " ".join(ATTACKS)


def weights(wrong: int | None = None) -> list[Json]:
    """Every layer, the worst first, as the check gives them; ``wrong`` is the block with a damaged layer."""
    rows = [
        {"layer": f"model.layers.{block}.{kind}", "R": 0.93 + 0.003 * ((7 * block + place) % 11), "gain": 0.99}
        | {"nrmse": 0.0935 + 0.001 * place, "sqnr_db": 20.6 - 0.1 * place}
        for block in range(BLOCKS)
        for place, kind in enumerate(KINDS)
    ]
    if wrong is not None:
        rows[wrong * len(KINDS)] |= {"R": 210.5, "nrmse": 1.415, "sqnr_db": -3.01, "gain": 0.05}
    return sorted(rows, key=lambda row: row["R"], reverse=True)


def divergence(scale: float = 1.0) -> dict[str, Json]:
    """KL of a 4-bit model, times ``scale``."""
    kl = {"value": 0.285 * scale, "low": 0.24 * scale, "high": 0.33 * scale}
    shift = round(2 * math.log10(scale)) / 2
    counts = (3, 5, 9, 21, 48, 92, 64, 14)
    return {
        "positions": 256,
        "reference": "recorded",
        "kl": kl,
        "kl_percentiles": {"p10": 0.01, "p50": 0.13, "p90": 0.6, "p95": 0.91, "p99": 1.6, "max": 2.3},
        "kl_histogram": [[-3.5 + shift + 0.5 * number, count] for number, count in enumerate(counts)],
        "expected_kl": 0.281,
        "excess": kl["value"] / 0.281,
        "noise_constant": 32.1,
        "self_noise": 0.0006,
        "weight_nrmse": 0.0935,
        "module_error": 0.0021,
        "top1": {"value": 0.746, "low": 0.69, "high": 0.8},
        "delta_p": {"mean": -0.013, "rms": 0.118},
        "perplexity": 27.3,
        "baseline_perplexity": 24.8,
        "perplexity_ratio": {"value": 1.1, "low": 1.02, "high": 1.19},
        "entropy_ratio": 1.02,
    }


def measurements(wrong: int | None = None) -> dict[str, Json]:
    """All that the checks of a full run measure."""
    prompt = "The first president of the United States was George"
    blocks = [
        {"block": f"model.layers.{block}", "drift": 0.03 + 0.004 * block, "error": None if wrong is None else 0.09}
        for block in range(BLOCKS)
    ]
    if wrong is not None:
        blocks[wrong]["error"] = 1.37
    modules = [{"layer": f"model.layers.{block}.mlp.up_proj", "error": 0.0024 - 1e-4 * block} for block in range(10)]
    return {
        "memory.ratio": {
            "predicted": 2.408,
            "observed": 2.408,
            "stored_bytes": 111_726_673,
            "predicted_bytes": 111_726_673,
            "baseline_bytes": 269_030_016,
        },
        "memory.footprint": {
            "footprint": 109_777_792,
            "predicted": 109_777_792,
            "true_bytes": 111_692_152,
            "predicted_true_bytes": 111_692_152,
            "true_bytes_after_forward": 113_108_992,
        },
        "weights": weights(wrong),
        "outputs.divergence": divergence(1.0 if wrong is None else 4.87),
        "outputs.blocks": blocks,
        "outputs.modules": modules,
        "outputs.likelihood": {"nll": 1.218, "baseline_nll": 0.888, "tokens": 144},
        "texts": [
            {"prompt": prompt, "text": " Washington, a planter", "baseline": " Washington. He was", "accepted": True}
            | {"agreement": 0.97, "tokens": [1, 2]},
            {"prompt": "1, 2, 3,", "text": " 4, 5, 6", "baseline": " 4, 5, 6", "accepted": None, "agreement": 1.0},
            {"prompt": "To repeal a law", "text": " law law law law", "baseline": None, "accepted": False},
        ],
        "notes": ["the reference came from the cache"],
    }


def cell(name: str, **parts: Json) -> CellResult:
    """A full run of one cell; the checks that are not given passed."""
    given = {check.id: check for check in parts.pop("checks", ())}
    known = {"method": "bitsandbytes-4bit", "device": "cuda:0", "baseline_revision": COMMIT, "seconds": 42.5}
    return CellResult(
        cell=Cell(
            id=name,
            baseline=BASELINE,
            quantization={"quant_method": "bitsandbytes"},
            settings=Settings(depth=Depth.FULL),
            origin=Location(file="quant-verify.yml", line=4),
        ),
        checks=tuple(given.get(check_id, CheckResult(id=check_id, seconds=0.01)) for check_id in IDS),
        **known | parts,
    )


def healthy(name: str = "smollm2/nf4") -> CellResult:
    """Nothing wrong, everything measured."""
    return cell(name, measurements=measurements())


def failing(name: str = "smollm2/damaged") -> CellResult:
    """One damaged layer, found three times."""
    layer = Finding(
        message="model.layers.7.mlp.down_proj is 210.5 times as far from the baseline as its codes explain",
        where="model.layers.7.mlp.down_proj",
        observed=210.5,
        limit=1.5,
        unit="R",
        hint="codes, scales or their order are wrong in this layer; quantize it again from the baseline",
    )
    kl = Finding(
        message="the KL divergence is 4.9 times what this quantization explains",
        observed=4.94,
        limit=2.0,
        unit="times the expected",
        hint="model.layers.7 is the first block whose own output departs",
    )
    text = Finding(message="a text is not among the accepted", severity=Severity.WARN, observed=" law law law law")
    checks = (
        CheckResult(id="weights.error", seconds=1.5, findings=(layer,)),
        CheckResult(id="outputs.divergence", seconds=8.2, findings=(kl,)),
        CheckResult(id="outputs.known-good", seconds=3.0, findings=(text,)),
        CheckResult(id="layers.tied", skip_reason="no tied weights"),
    )
    return cell(name, measurements=measurements(7), checks=checks, attempts=2)


def erring(name: str = "smollm2/int8") -> CellResult:
    """The worker died after the static checks."""
    crash = CheckError(kind=ErrorKind.CRASH, message="the worker died of signal 11", detail="Traceback:\n  line 1\n")
    lost = CheckError(kind=ErrorKind.NOT_RUN, message="never reached: the worker died of signal 11")
    rest = tuple(CheckResult(id=check_id, error=lost) for check_id in IDS[16:])
    kept = {key: value for key, value in measurements().items() if key in ("memory.ratio", "weights")}
    return cell(name, measurements=kept, checks=(CheckResult(id=IDS[15], error=crash), *rest))


def bare(name: str = "published") -> CellResult:
    """Nothing was checked and nothing measured."""
    skipped = tuple(CheckResult(id=check_id, skip_reason="no baseline") for check_id in IDS)
    return dataclasses.replace(cell(name, checks=skipped), method=None, device=None, baseline_revision=None)


def hostile() -> CellResult:
    """Every string an attack, every text long, every figure one that JSON lacks or that no model has."""
    finding = Finding(
        message=HOSTILE.replace("\n", " "), where=HOSTILE, observed=HOSTILE, limit=[HOSTILE], unit=HOSTILE
    )
    checks = (
        CheckResult(id=HOSTILE, findings=(dataclasses.replace(finding, hint=HOSTILE),)),
        CheckResult(id=HOSTILE, skip_reason=HOSTILE),
        CheckResult(id=HOSTILE, error=CheckError(kind=ErrorKind.CRASH, message=HOSTILE, detail=HOSTILE)),
    )
    figures: list[Json] = ["NaN", "Infinity", "-Infinity", 10**400, -(10**400), 0, -1.0, 1e308, True, None, HOSTILE, []]
    wild = {
        "memory.ratio": {"predicted": "NaN", "observed": 10**400, "stored_bytes": -1, "baseline_bytes": 0},
        "memory.footprint": dict.fromkeys(("true_bytes", "predicted_true_bytes"), 10**400),
        "weights": [{"layer": HOSTILE, "R": item, "nrmse": item, "sqnr_db": item} for item in figures],
        "outputs.divergence": divergence()
        | {"positions": -1, "kl": {"value": "NaN", "low": "NaN", "high": 1}, "top1": {"value": "Infinity"}}
        | {"kl_histogram": [[item, item] for item in figures], "excess": "Infinity", "reference": HOSTILE}
        | {"expected_kl": "NaN", "kl_percentiles": {HOSTILE: HOSTILE, "p50": "NaN", "p95": 10**400, "max": "Infinity"}},
        "outputs.blocks": [{"block": HOSTILE, "drift": item, "error": item} for item in figures],
        "outputs.modules": [{"layer": HOSTILE, "error": item} for item in figures],
        "outputs.likelihood": {"nll": "Infinity", "baseline_nll": -1},
        "texts": [
            {"prompt": HOSTILE, "text": HOSTILE * 40, "baseline": HOSTILE * 39 + "x" + HOSTILE, "accepted": HOSTILE}
            | {"agreement": "NaN", "tokens": HOSTILE},
            {"prompt": 7, "text": "a" * 10_000, "baseline": "a" * 9_999 + "b"},
        ],
        "notes": [HOSTILE, 7],
        HOSTILE: HOSTILE,
    }
    made = cell(f"hostile {HOSTILE}", measurements=wild, method=HOSTILE, device=HOSTILE, baseline_revision=HOSTILE)
    return dataclasses.replace(made, checks=checks)


def run_of(*cells: CellResult) -> RunResult:
    """A run of these cells."""
    return RunResult(
        environment=Environment(
            python="3.11.7",
            packages={"torch": "2.10.0", "transformers": "5.5.0", HOSTILE: HOSTILE},
            device="NVIDIA H200",
            driver="570.1",
        ),
        planned=tuple(result.cell.id for result in cells),
        cells=cells,
        matrix_path="ci/quant-verify.yml",
        matrix_sha256="a" * 64,
        shard="1/1",
    )
