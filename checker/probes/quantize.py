"""Quantize a baseline at load time and save it, so that it can be judged like any published checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from checker.domain import Cell, ErrorKind, Json
from checker.errors import Unavailable
from checker.probes.load import load_model, resolve_device
from checker.probes.roundtrip import try_save
from checker.probes.skeleton import import_transformers
from checker.registry import Method, method_declared

TOKENIZER_FILES = ("tokenizer*", "*.model", "vocab*", "merges.txt", "special_tokens_map.json", "chat_template*")


def quantize(baseline: Path, cell: Cell, target: Path, *, trust_remote_code: bool) -> Path:
    """Load the baseline with the cell's ``quantization_config``, save it to ``target``, free it.

    The tokenizer's files are copied, so that ``target`` is a checkpoint like any other. No forward is run before the
    save: one would repack 4-bit weights on some CPUs.

    Raises:
        Unavailable: the library cannot quantize this model; there is then nothing to judge.
    """
    wanted = dict(cell.quantization or {})
    method = method_declared(wanted)
    if method is None or not method.quantizes_here:
        raise Unavailable(f"{wanted.get('quant_method')!r} cannot be applied at load time; name a checkpoint instead")
    loaded = load_model(
        baseline,
        resolve_device(cell.settings.device),
        gpus=cell.settings.gpus,
        trust_remote_code=trust_remote_code,
        quantization_config=_config_object(method, wanted),
    )
    if loaded.model is None:
        raise Unavailable(f"the baseline could not be quantized: {loaded.flaw}", ErrorKind.INTERNAL)
    saved = try_save(loaded.model, target)
    if saved.flaw:
        raise Unavailable(f"the quantized baseline {saved.flaw}", ErrorKind.INTERNAL)
    for glob in TOKENIZER_FILES:
        for file in baseline.glob(glob):
            shutil.copyfile(file, target / file.name)
    return target


def _config_object(method: Method, wanted: Mapping[str, Json]) -> Any:
    assert method.config_class is not None
    return getattr(import_transformers(), method.config_class.rpartition(".")[2]).from_dict(dict(wanted))
