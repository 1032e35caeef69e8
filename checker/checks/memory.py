"""Whether the memory is saved: predicted byte by byte, never from a constant."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from checker.architecture import pattern
from checker.domain import Depth, Finding, Json, Limit, Measurement, Severity
from checker.errors import NotApplicable
from checker.facts import ArtifactFacts, ByteRow, StructureFacts
from checker.registry import Limits, Verdict, check


@check("memory.ratio", depth=Depth.STATIC)
def memory_ratio(artifact: ArtifactFacts) -> Verdict:
    """The bytes of every stored tensor equal the bytes predicted from the dense shapes and the declared method.

    With a baseline its shapes are used and the ratio of sizes is reported; without one, the dense shapes that the
    quantization state holds. Quantization state is counted: packed codes, absmax or SCB, code books, nested state. Only
    the state's JSON blob is taken at its own length, up to 1 KiB.
    """
    memory = artifact.memory
    if memory is None:
        raise NotApplicable("nothing is packed and there is no baseline to predict from")
    value: dict[str, Json] = {"stored_bytes": memory.stored_bytes, "predicted_bytes": memory.predicted_bytes}
    if memory.baseline_bytes is not None:
        value["baseline_bytes"] = memory.baseline_bytes
        if memory.predicted_bytes and memory.stored_bytes:
            ratios = {
                "predicted": memory.baseline_bytes / memory.predicted_bytes,
                "observed": memory.baseline_bytes / memory.stored_bytes,
            }
            value = {**ratios, **value}
    yield Measurement(key="memory.ratio", value=value)
    kinds: dict[tuple[str, bool, bool], list[ByteRow]] = defaultdict(list)
    for row in memory.rows:
        kinds[pattern(row.name), row.predicted is None, row.stored is None].append(row)
    for rows in sorted(kinds.values(), key=_difference, reverse=True):
        predicted, stored = _total(row.predicted for row in rows), _total(row.stored for row in rows)
        yield Finding(
            message=_sentence(rows, predicted, stored),
            # loaders drop a tensor that nothing asks for: it costs disk, not memory
            severity=Severity.WARN if predicted is None else Severity.FAIL,
            where=rows[0].name,
            observed=stored,
            limit=predicted,
            unit="bytes",
            hint="see layers.coverage, layers.complete and dtypes.storage for what is stored instead",
        )


def _total(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _difference(rows: list[ByteRow]) -> int:
    return sum(abs((row.stored or 0) - (row.predicted or 0)) for row in rows)


def _sentence(rows: list[ByteRow], predicted: int | None, stored: int | None) -> str:
    """One sentence for all tensors that differ only in their layer or expert number."""
    name = rows[0].name if len(rows) == 1 else f"{len(rows)} tensors {pattern(rows[0].name)}"
    verb, is_are = ("takes", "is") if len(rows) == 1 else ("take", "are")
    if stored is None:
        return f"{name} {is_are} not stored; {predicted:,} bytes were predicted"
    if predicted is None:
        return f"{name} {verb} {stored:,} bytes; nothing predicts such tensors"
    return f"{name} {verb} {stored:,} bytes instead of {predicted:,}"


UNPACKED = 1.1  # growth at the first forward that is worth a note where it is allowed


@check("memory.footprint", depth=Depth.LOAD, limits={"growth": Limit(fail=1.1)})
def memory_footprint(structure: StructureFacts, limits: Limits) -> Verdict:
    """``get_memory_footprint()`` and the true bytes are as predicted, and do not grow with the first forward.

    ``get_memory_footprint()`` sums parameters and buffers; it does not see absmax, code books, nested state and SCB, so
    that it reads the same with and without double quantization. The true bytes count every storage once. Some methods
    decompress at the first forward and silently take the memory of the dense model: ``growth`` is the largest allowed
    ratio of true bytes after it to before. (bitsandbytes repacks doubly quantized weights on some CPUs, which adds one
    per cent; hence not 1.) Where transformers has no kernels for a method and unpacks every file of it
    (compressed-tensors), that is a note and no finding: the file is sound, and other run times keep it packed.
    """
    before, after = structure.before, structure.after
    value = {
        "footprint": before.footprint,
        "predicted": structure.predicted_footprint,
        "true_bytes": before.true_bytes,
        "predicted_true_bytes": structure.predicted_true_bytes,
    }
    if after is not None:
        value |= {"footprint_after_forward": after.footprint, "true_bytes_after_forward": after.true_bytes}
    yield Measurement(key="memory.footprint", value=value)
    pairs = (
        ("get_memory_footprint() is", before.footprint, structure.predicted_footprint),
        ("the model truly takes", before.true_bytes, structure.predicted_true_bytes),
    )
    for words, observed, predicted in pairs:
        if observed != predicted:
            yield Finding(
                message=f"{words} {observed:,} bytes; {predicted:,} were predicted from the file",
                observed=observed,
                limit=predicted,
                unit="bytes",
                hint="some weight is held in another form than it is stored in; see layers.classes and dtypes.loaded",
            )
    growth = after.true_bytes / before.true_bytes if after is not None and before.true_bytes else 1.0
    bars = ((Severity.FAIL, limits["growth"].fail), (Severity.WARN, limits["growth"].warn))
    passed = next(((severity, bar) for severity, bar in bars if bar is not None and growth > bar), None)
    if after is not None and passed is not None:
        yield Finding(
            message=f"the first forward grows the model from {before.true_bytes:,} to {after.true_bytes:,} bytes",
            severity=passed[0],
            observed=growth,
            limit=passed[1],
            unit="ratio",
            hint="the method unpacks its weights at the first forward, so that no memory is saved; "
            "run it where kernels take them packed",
        )
    elif growth > UNPACKED:
        note = f"transformers unpacks these weights at the first forward: {growth:.2g} times the memory from then on"
        yield Measurement(key="notes", value=[note])
