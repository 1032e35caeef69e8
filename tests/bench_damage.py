"""Who sees what: damaged copies of a real model and of the fixtures, judged by this checker and by two others.

A checker sees a damage when it says something else than of the healthy copy: another exit code, other findings, or for
an audit of outputs a figure outside the interval that it gives for the healthy copy.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from bench_peers import LONGEST, OFFLINE, QUICK, Peers
from bench_processes import COMMAND, measure, progress, table
from models import WEIGHTS, Damaged, damage, read_checkpoint

Change = Callable[[Damaged, Path], None]  # of the tensors and the config; the path is the baseline's

LAYER = "model.layers.14.mlp.down_proj.weight"
FIRST, SECOND = "model.layers.3.self_attn.q_proj.weight", "model.layers.4.self_attn.q_proj.weight"
ITEM_BYTES = 2  # of bfloat16


def nothing(_: Damaged, __: Path) -> None:
    """The healthy copy."""


def nibbles(file: Damaged, _: Path) -> None:
    codes = file.u8(LAYER)
    codes[:] = (codes << 4) | (codes >> 4)


def zero_scales(file: Damaged, _: Path) -> None:
    file.f32(f"{LAYER}.nested_absmax")[:] = 0


def nan_scale(file: Damaged, _: Path) -> None:
    file.f32(f"{LAYER}.nested_absmax")[0] = np.nan


def shifted_scales(file: Damaged, _: Path) -> None:
    absmax = file.u8(f"{LAYER}.absmax")
    absmax[:] = np.roll(absmax, 1)


def swapped_layers(file: Damaged, _: Path) -> None:
    ends = [name.removeprefix(FIRST) for name in (FIRST, *file.parts(FIRST))]
    for end in ends:
        file.tensors[FIRST + end], file.tensors[SECOND + end] = file.tensors[SECOND + end], file.tensors[FIRST + end]


def zero_codes(file: Damaged, _: Path) -> None:
    """Blocks lost in transfer: the second half of a weight is zero bytes."""
    codes = file.u8(LAYER)
    codes[codes.size // 2 :] = 0


def no_scales(file: Damaged, _: Path) -> None:
    del file.tensors[f"{LAYER}.absmax"]


def no_state(file: Damaged, _: Path) -> None:
    del file.tensors[file.state_name(LAYER)]


def other_dtype(file: Damaged, _: Path) -> None:
    """Nested scales in half precision, as a careless cast of the whole model leaves them."""
    name = f"{LAYER}.nested_absmax"
    values = file.f32(name).astype("<f2")
    file.put(name, "F16", [values.size], values.tobytes())


def dense_layer(file: Damaged, baseline: Path) -> None:
    source = read_checkpoint(baseline).tensors[LAYER]
    for name in file.parts(LAYER):
        del file.tensors[name]
    file.put(LAYER, source.dtype, source.shape, bytes(source.data))


def all_dense(file: Damaged, baseline: Path) -> None:
    """The config says NF4, the file holds the unquantized model."""
    file.tensors = read_checkpoint(baseline).tensors


def wrong_type(file: Damaged, _: Path) -> None:
    file.quantization["bnb_4bit_quant_type"] = "fp4"


def no_config(file: Damaged, _: Path) -> None:
    del file.config["quantization_config"]


def misspelt_key(file: Damaged, _: Path) -> None:
    file.quantization["bnb_4bit_use_double_quantization"] = file.quantization.pop("bnb_4bit_use_double_quant")


CHANGES: dict[str, Change] = {
    "healthy": nothing,
    "nibbles of one layer swapped": nibbles,
    "scales of one layer zero": zero_scales,
    "one scale is NaN": nan_scale,
    "scales of one layer shifted by one block": shifted_scales,
    "two layers swapped": swapped_layers,
    "half of one layer's codes zero": zero_codes,
    "scales of one layer missing": no_scales,
    "quantization state of one layer missing": no_state,
    "nested scales of one layer cast to half": other_dtype,
    "one layer left dense": dense_layer,
    "every layer left dense": all_dense,
    "config says FP4": wrong_type,
    "config has no quantization_config": no_config,
    "a key of the config misspelt": misspelt_key,
}


def cut(folder: Path) -> None:
    path = folder / WEIGHTS
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1_000_000)


def padded(folder: Path) -> None:
    with (folder / WEIGHTS).open("ab") as file:
        file.write(b"PK\x03\x04" + bytes(1000))


def doubled_name(folder: Path) -> None:
    """A tensor's name stands twice in the header, the second time with another layer's place: readers disagree."""
    raw = (folder / WEIGHTS).read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    text = json.dumps(header)[:-1] + f', "{FIRST}": {json.dumps(header[SECOND])}}}'
    (folder / WEIGHTS).write_bytes(len(text.encode()).to_bytes(8, "little") + text.encode() + raw[8 + length :])


def pickled(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02cos\nsystem\n.")


FILES: dict[str, Callable[[Path], None]] = {
    "file cut short": cut,
    "bytes of another format after the last tensor": padded,
    "a tensor's name twice in the header": doubled_name,
    "a pickle beside the weights": pickled,
}


@dataclass(frozen=True)
class Said:
    """What one checker said of one copy."""

    code: int
    short: str  # for the table
    detail: str = ""  # compared with the healthy copy
    interval: tuple[float, float] | None = None  # of the divergence of outputs


def ask_us(checkpoint: Path, baseline: Path | None) -> Said:
    more = ("--baseline", str(baseline)) if baseline else ()
    result = measure((*COMMAND, "check", str(checkpoint), *more, "--format", "json", "--quiet"))
    try:
        [cell] = json.loads(result.output)["cells"]
    except (ValueError, KeyError):
        return Said(result.code, "", result.errors)
    bad = [check["id"] for check in cell["checks"] if check["outcome"] in ("fail", "error")]
    warned = [check["id"] for check in cell["checks"] if check["outcome"] == "warn"]
    return Said(result.code, ", ".join(bad or warned), " ".join(bad + warned))


def ask_grit(checkpoint: Path, peers: Peers) -> Said:
    result = measure(peers.grit(checkpoint))
    try:
        report = json.loads(result.output)
    except ValueError:
        return Said(result.code, "crashed", result.errors[-300:])
    kinds = sorted(
        {finding["kind"] for finding in report["findings"]} | ({"unparseable"} if report["unparseable"] else set())
    )
    detail = re.sub(re.escape(str(checkpoint)), "", json.dumps(report["findings"], sort_keys=True))
    return Said(result.code, ", ".join(kinds), detail)


def ask_audit(checkpoint: Path, baseline: Path, peers: Peers) -> Said:
    with tempfile.TemporaryDirectory() as folder:
        command = peers.audit(baseline, checkpoint, Path(folder), *QUICK)
        result = measure(command, environment=OFFLINE, timeout=LONGEST)
        try:
            metrics = json.loads((Path(folder) / "report.json").read_text("utf-8"))["metrics"]
        except (OSError, ValueError, KeyError):
            errors = re.findall(r"^(?:\w+\.)*(\w+Error)\b", result.errors, re.MULTILINE)
            return Said(result.code, f"stops with {errors[-1]}" if errors else "stops without a report")
    [divergence] = [item for item in metrics if item["name"] == "output_divergence_kl"]
    low, high = divergence["ci_low"], divergence["ci_high"]
    return Said(result.code, f"KL {divergence['delta']:.2f}", interval=(low, high))


def sees(said: Said, healthy: Said) -> bool:
    """Whether it says something else than of the healthy copy."""
    if said.code != healthy.code or said.detail != healthy.detail:
        return True
    if said.interval is None or healthy.interval is None:
        return said.interval != healthy.interval
    nan = any(value != value for value in said.interval)  # noqa: PLR0124 - NaN
    return nan or said.interval[0] > healthy.interval[1] or said.interval[1] < healthy.interval[0]


@contextmanager
def damaged(name: str, healthy: Path, baseline: Path) -> Iterator[Path]:
    """A copy of the healthy checkpoint with one damage."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / healthy.name
        with damage(healthy, target) as file:
            CHANGES.get(name, nothing)(file, baseline)
        if name in FILES:
            FILES[name](target)
        yield target


def judge_all(healthy: Path, baseline: Path, peers: Peers) -> str:
    """The table of damages to the real model, one row for each."""
    rows = []
    first: tuple[Said, ...] = ()
    for name in (*CHANGES, *FILES):
        with damaged(name, healthy, baseline) as copy:
            said = [ask_us(copy, baseline)]
            if peers.has("grit-scan"):
                said += [ask_grit(copy, peers), ask_audit(copy, baseline, peers)]
        first = first or tuple(said)
        rows.append((name, *(_cell(one, two) for one, two in zip(said, first, strict=True))))
        progress(" | ".join(rows[-1]))
    head = ("damage", "quant-verify (static)", "grit-scan", "modeldiffr audit")
    return table(head[: len(rows[0])], *rows)


def _cell(said: Said, healthy: Said) -> str:
    mark = "" if said is healthy else "● " if sees(said, healthy) else "○ "
    return f"{mark}exit {said.code}" + (f": {said.short}" if said.short else "")


def summary(text: str) -> str:
    """How many damages each checker saw."""
    rows = [line.split(" | ") for line in text.splitlines()[3:]]
    count = len(rows)
    names = ("quant-verify", "grit-scan", "modeldiffr audit")
    seen = [sum(row[column].startswith("● ") for row in rows) for column in range(1, len(rows[0]))]
    return ", ".join(f"{name} {number} of {count}" for name, number in zip(names, seen, strict=False))
