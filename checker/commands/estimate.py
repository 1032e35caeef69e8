"""``estimate``: predicted bytes and ratios from a config alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from checker.commands.child import ask
from checker.commands.vocabulary import check_quantization
from checker.domain import ExitCode, Json
from checker.errors import UsageError
from checker.registry import method_declared

SECONDS = 300
TABLE_WIDTH = 100  # ratios are printed to the last digit and must not be cut
DEFAULTS: Mapping[str, dict[str, Json]] = {
    "nf4": {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "nf4 + double quantization": {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
    },
    "int8": {"quant_method": "bitsandbytes", "load_in_8bit": True},
}


def estimate_config(config: str, quantization: str | None, dtype: str | None, *, as_json: bool) -> ExitCode:
    """Print what the model and its quantized forms will take.

    Raises:
        UsageError: no such config, or a quantization that is none.
        Unavailable: the architecture cannot be built, or torch is not installed.
    """
    path = _config_file(config)
    wanted = {"as given": _parse(quantization)} if quantization else dict(DEFAULTS)
    request = {"config": str(path.resolve()), "quantizations": wanted, "dtype": dtype}
    answer = ask("checker.probes.estimate", request, timeout=SECONDS)
    if as_json:
        sys.stdout.write(json.dumps(answer, indent=2) + "\n")
    else:
        _show(answer)
    return ExitCode.PASSED


def _config_file(config: str) -> Path:
    path = Path(config)
    if not (path.is_file() or (path / "config.json").is_file()):
        raise UsageError(f"{config} is neither a config.json nor a folder that holds one")
    file = path if path.is_file() else path / "config.json"
    try:
        value = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{file} cannot be read as JSON: {error}") from None
    if not isinstance(value, dict) or not value.get("architectures") or not value.get("model_type"):
        raise UsageError(f"{file} is no model's config.json: it must hold model_type and architectures")
    return path


def _parse(text: str) -> dict[str, Json]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--quantization is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise UsageError('--quantization must be an object, such as {"quant_method": "bitsandbytes", …}')
    method = method_declared(value)
    if method is not None and not method.quantizes_here:
        message = f"estimate does not predict {method.id}; check predicts the bytes of its checkpoints (memory.ratio)"
        raise UsageError(f"--quantization: {message}")
    wrong = check_quantization(value)
    if wrong:
        raise UsageError("--quantization: " + "; ".join(message for _, message in wrong))
    return value


def _show(answer: Mapping[str, Json]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("form", "footprint", "ratio", "true bytes", "true ratio", "modules"):
        table.add_column(title, justify="left" if title == "form" else "right", no_wrap=True)
    dense = answer["footprint"]
    table.add_row("dense", f"{dense:,}", "", f"{dense:,}", "", "")
    for name, row in answer["quantizations"].items():
        table.add_row(
            name,
            f"{row['footprint']:,}",
            repr(row["ratio"]),
            f"{row['true_bytes']:,}",
            f"{row['true_ratio']:.4f}",
            str(row["quantized_modules"]),
        )
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    assumed = " (assumed: the config names none; --dtype says otherwise)" if answer["dtype_assumed"] else ""
    console.print(f"{answer['architecture']}, {answer['dtype']}{assumed}", markup=False)
    console.print(table, width=max(console.width, TABLE_WIDTH))
    console.print("footprint: get_memory_footprint(); true bytes: with the quantization state that it does not see")
    experts = [row["dense_experts"] for row in answer["quantizations"].values()]
    if any(experts):
        console.print(f"{max(experts)} fused expert parameters stay dense under bitsandbytes in transformers 5.")
