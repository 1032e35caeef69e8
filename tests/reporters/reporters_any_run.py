"""Runs with any text in any place."""

from __future__ import annotations

import datetime as dt

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from checker.domain import (
    Cell,
    CellResult,
    CheckError,
    CheckResult,
    Depth,
    Environment,
    ErrorKind,
    ExitCode,
    Finding,
    Location,
    ModelRef,
    RunResult,
    Settings,
    Severity,
    Waived,
)

_ATTACKS = (
    "::error::x", "::stop-commands::t", "##[error]x", "\n", "\r", "\x1b[31m", "\x00", "\ud800", "\ufffe", "|", "\\|",
    "`", "``", "<script>", "<!--", "&amp;", "]]>", "@user", "https://x.y", "[a](b)", "![a](b)", "#1", " ", "%0A",
    "\u202e", "\u200b", "\\", "-", "=", "*", "_", "a" * 90, "| |\n|-|-|\n", "```\n", "\U0001f600", "\u2028",
)  # fmt: skip
texts = st.one_of(
    st.lists(st.sampled_from(_ATTACKS), max_size=5).map("".join),
    st.text(st.characters(), max_size=12),
)
messages = texts.map(lambda text: text.replace("\n", " ")).filter(lambda text: text.strip())
names = texts.filter(lambda text: text.strip() and "@" not in text)
seconds = st.floats(0, 1e5)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=4,
)
findings = st.builds(
    Finding,
    message=messages,
    severity=st.sampled_from(Severity),
    where=texts,
    observed=json_values,
    limit=json_values,
    unit=texts,
    hint=texts,
    waived=st.none() | st.builds(Waived, reason=texts, until=st.dates(dt.date(1, 1, 1))),
)
checks = st.builds(
    CheckResult,
    id=texts,
    seconds=seconds,
    findings=st.lists(findings, max_size=3).map(tuple),
    skip_reason=st.none() | texts,
    error=st.none() | st.builds(CheckError, kind=st.sampled_from(ErrorKind), message=texts, detail=st.just("")),
)
models = st.builds(ModelRef, kind=st.just("folder"), name=names) | st.builds(
    ModelRef, kind=st.just("hub"), name=names, revision=st.none() | names
)
figures = (
    st.floats() | st.integers(-9, 10**12) | st.sampled_from(["NaN", "Infinity", "-Infinity", 10**400]) | json_values
)


def _rows(*keys: str, names: tuple[str, ...] = ()) -> st.SearchStrategy[list[object]]:
    row = st.fixed_dictionaries(dict.fromkeys(names, texts), optional=dict.fromkeys(keys, figures))
    return st.lists(row | json_values, max_size=4)


_interval = st.dictionaries(st.sampled_from(["value", "low", "high"]), figures) | json_values
_divergence = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("positions", "expected_kl", "excess", "perplexity", "baseline_perplexity"), figures)
    | dict.fromkeys(("kl", "top1", "perplexity_ratio", "delta_p", "kl_percentiles"), _interval)
    | {"kl_histogram": st.lists(st.tuples(figures, figures).map(list) | json_values, max_size=4)},
)
measurements = st.dictionaries(texts, json_values, max_size=2) | st.fixed_dictionaries(
    {},
    optional={
        "notes": st.lists(texts, max_size=2),
        "weights": _rows("R", "nrmse", "sqnr_db", names=("layer",)) | json_values,
        "memory.ratio": st.dictionaries(
            st.sampled_from(["observed", "stored_bytes", "baseline_bytes", "predicted_bytes"]), figures
        ),
        "memory.footprint": st.dictionaries(st.sampled_from(["true_bytes", "predicted_true_bytes"]), figures),
        "outputs.divergence": _divergence | json_values,
        "outputs.blocks": _rows("drift", "error", names=("block",)) | json_values,
        "outputs.modules": _rows("error", names=("layer",)) | json_values,
        "outputs.likelihood": st.dictionaries(st.sampled_from(["nll", "baseline_nll"]), figures) | json_values,
        "texts": _rows("accepted", "agreement", names=("prompt", "text", "baseline")) | json_values,
    },
)


@st.composite
def cell_results(draw: st.DrawFn) -> CellResult:
    """A cell that report.json can hold in full."""
    baseline, checkpoint = draw(st.none() | models), draw(st.none() | models)
    return CellResult(
        cell=Cell(
            id=draw(texts),
            baseline=baseline,
            checkpoint=checkpoint,
            settings=Settings(depth=draw(st.sampled_from(Depth))),
            origin=draw(st.none() | st.builds(Location, file=texts, line=st.integers(1, 9999))),
        ),
        checks=tuple(draw(st.lists(checks, max_size=3))),
        measurements=draw(measurements),
        method=draw(st.none() | texts),
        device=draw(st.none() | texts),
        baseline_revision=None if baseline is None else draw(st.none() | texts),
        checkpoint_revision=None if checkpoint is None else draw(st.none() | texts),
        attempts=draw(st.integers(1, 3)),
        seconds=draw(seconds),
    )


runs = st.builds(
    RunResult,
    environment=st.builds(
        Environment,
        python=texts,
        packages=st.dictionaries(texts, texts, max_size=2),
        device=texts,
        driver=st.none() | texts,
    ),
    planned=st.lists(texts, max_size=3).map(tuple),
    cells=st.lists(cell_results(), max_size=3).map(tuple),
    matrix_path=st.none() | texts,
    matrix_sha256=st.none() | texts,
    shard=st.none() | st.just("3/7"),
    fail_on=st.sampled_from(Severity),
    interrupted=st.none() | st.sampled_from([ExitCode.HANGUP, ExitCode.INTERRUPTED, ExitCode.TERMINATED]),
)

patiently = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For tests of whole runs: the first one imports a library, and a busy machine is no fault of ours."""
