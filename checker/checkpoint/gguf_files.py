"""Which GGUF file of a folder is the model: publishers put twenty recipes of one model side by side."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from checker.checkpoint.problem import Problem, about, quoted, shown
from checker.domain import Json

SUFFIX = ".gguf"

_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE)  # llama.cpp's gguf-split
_TOWER = "mmproj"  # the vision tower of a model, which goes with any recipe of it
_NAME_ONE = "name the file itself: quant-verify check ./folder/file.gguf"


def is_gguf(name: str) -> bool:
    """Whether a file of this name should be a GGUF file."""
    return name.lower().endswith(SUFFIX)


def choose_gguf(
    names: Collection[str], config: Mapping[str, Json], named: str | None
) -> tuple[tuple[str, ...], tuple[Problem, ...]]:
    """The files of the model, several when it is split, and why there are none or not all.

    ``named`` is what the user asked for; else config.json may name one (``quantization_config.gguf_file``).
    """
    models = sorted(name for name in names if is_gguf(name) and not name.lower().startswith(_TOWER))
    quantization = config.get("quantization_config")
    told = named or (quantization.get("gguf_file") if isinstance(quantization, dict) else None)
    if isinstance(told, str):
        if told not in names or not is_gguf(told):
            message = f"config.json names the weights {quoted(told)}, which is no GGUF file of the checkpoint"
            return (), (about("config.json")(message, where="quantization_config.gguf_file", hint=_NAME_ONE),)
        models = [told]
    sets = {match[1] if (match := _PART.fullmatch(name)) else name for name in models}
    if len(sets) > 1:
        message = f"{len(models):,} GGUF files of {len(sets):,} models or recipes, such as {shown(models[0])}"
        return (), (about(models[0])(message, hint=_NAME_ONE),)
    return _whole_set(models[0], names) if models else ((), ())


def _whole_set(name: str, names: Collection[str]) -> tuple[tuple[str, ...], tuple[Problem, ...]]:
    """All parts of the set that a file belongs to."""
    match = _PART.fullmatch(name)
    if match is None:
        return (name,), ()
    ending = name[match.end(3) :]
    parts = [f"{match[1]}-{number:05}-of-{match[3]}{ending}" for number in range(1, int(match[3]) + 1)]
    here = tuple(part for part in parts if part in names)
    missing = [part for part in parts if part not in here]
    if not missing:
        return here, ()
    message = f"{len(missing):,} of {len(parts):,} parts are missing, first {shown(missing[0])}"
    return here, (about(missing[0])(message, hint="download the other parts"),)
