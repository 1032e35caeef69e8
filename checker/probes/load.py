"""Loading a checkpoint with transformers: from files that may be wrong to a model, or to the reason why not."""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checker.domain import ErrorKind, Json, Severity
from checker.errors import Unavailable
from checker.facts import Flaw, LoadFacts
from checker.probes.load_report import explain
from checker.probes.skeleton import import_transformers, model_class, read_config
from checker.registry import Method

SYNCHRONOUS = "HF_DEACTIVATE_ASYNC_LOAD"  # read by transformers at every load


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """A model in memory with what loading it said; ``model`` is None when it did not load, ``flaw`` says why."""

    model: Any
    info: Mapping[str, Any]
    flaw: str = ""
    exception: str = ""
    detail: str = ""  # the traceback


def resolve_device(wanted: str) -> str:
    """The torch device of ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        Unavailable: a GPU was demanded and there is none.
    """
    import_transformers()
    import torch

    if wanted == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda"):
        index = int(wanted.partition(":")[2] or 0)
        if not torch.cuda.is_available():
            raise Unavailable("device cuda was asked for, but torch sees no GPU; run quant-verify doctor")
        if index >= torch.cuda.device_count():
            raise Unavailable(f"device {wanted} was asked for, but there are {torch.cuda.device_count()} GPUs")
        return f"cuda:{index}"
    return wanted


def placement(device: str, gpus: int) -> Any:
    """The device map: everything on one device, or spread over the visible GPUs when the cell asks for several."""
    return "auto" if gpus > 1 and device.startswith("cuda") else {"": device}


def load_model(folder: Path, device: str, *, gpus: int = 1, trust_remote_code: bool = False, **options: Any) -> Loaded:
    """Load a model of the class its config names: safetensors only, offline.

    A model that does not load is a result, not an error: it may be just what the user asked about.

    Raises:
        Unavailable: out of memory, a missing library, a full disk: the machine's fault.
    """
    try:
        config = read_config(folder, trust_remote_code=trust_remote_code)
        with _in_turn(wanted=device == "cpu"):
            model, info = model_class(config, trust_remote_code=trust_remote_code).from_pretrained(
                folder,
                dtype="auto",
                device_map=placement(device, gpus),
                output_loading_info=True,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=trust_remote_code,
                **options,
            )
    except Exception as error:  # noqa: BLE001 - one of the two boundaries: whatever a checkpoint makes a library raise
        raise_environment_fault(error)
        flaw, name = explain(error), type(error).__name__
        return Loaded(model=None, info={}, flaw=flaw, exception=name, detail=traceback.format_exc())
    return Loaded(model=model.eval(), info=info)


@contextmanager
def _in_turn(*, wanted: bool) -> Iterator[None]:
    """Have transformers take one tensor after the other: what stays on the CPU is mapped, not copied.

    Its four threads (transformers/core_model_loading.py, ``GLOBAL_WORKERS``) pay off on the way to a GPU.
    """
    if not wanted or SYNCHRONOUS in os.environ:
        yield
        return
    os.environ[SYNCHRONOUS] = "1"
    try:
        yield
    finally:
        del os.environ[SYNCHRONOUS]


def load_facts(loaded: Loaded, folder: Path, method: Method | None, *, trust_remote_code: bool = False) -> LoadFacts:
    """What the checks need to know about a load, successful or not."""
    if loaded.model is None:
        return LoadFacts(flaw=loaded.flaw, exception=loaded.exception)
    model, info = loaded.model, loaded.info
    quantizer = getattr(model, "hf_quantizer", None)
    mismatched = (key[0] if isinstance(key, tuple) else key for key in info["mismatched_keys"])
    return LoadFacts(
        model_class=type(model).__name__,
        missing_keys=tuple(sorted(info["missing_keys"])),
        unexpected_keys=tuple(sorted(info["unexpected_keys"])),
        mismatched_keys=tuple(sorted(map(str, mismatched))),
        is_quantized=bool(getattr(model, "is_quantized", False)),
        quantizer=type(quantizer).__name__ if quantizer is not None else None,
        config_roundtrip=config_class_flaws(read_config(folder, trust_remote_code=trust_remote_code), method),
    )


def raise_environment_fault(error: BaseException) -> None:
    """Raise ``Unavailable`` when an exception is the machine's fault and not the model's; else return."""
    import torch

    text = one_line(error)
    if isinstance(error, Unavailable):
        raise error
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "out of memory" in text.lower():
        message = f"out of memory: {text}; use a larger device, or depth static for this cell"
        raise Unavailable(message, ErrorKind.OUT_OF_MEMORY) from error
    if isinstance(error, ImportError):
        cause: BaseException = error  # transformers wraps what really failed
        while isinstance(cause.__cause__, ImportError):
            cause = cause.__cause__
        remedy = "; pip install 'quant-verify[torch]' brings what load needs" if "pip install" not in str(cause) else ""
        message = f"a library is missing ({one_line(cause)}){remedy}"
        raise Unavailable(message, ErrorKind.NOT_RUN) from error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM):
        raise Unavailable(f"{error.strerror}: free some space and run again", ErrorKind.NOT_RUN) from error


def one_line(error: BaseException) -> str:
    """``Type: first line of the message``, of bounded length; bare assertions have no message at all."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:400]


def config_class_flaws(config: Any, method: Method | None) -> tuple[Flaw, ...]:
    """What the library's config class loses or changes in from_dict → to_dict → from_dict."""
    stored = getattr(config, "quantization_config", None)
    if method is None or method.config_class is None or not isinstance(stored, Mapping):
        return ()
    cls = getattr(import_transformers(), method.config_class.rpartition(".")[2])
    once = _plain(cls.from_dict(dict(stored)).to_dict())
    twice = _plain(cls.from_dict(dict(once)).to_dict())
    flaws = []
    for key, value in stored.items():
        if key in once and not _same(once[key], value):
            flaws.append(_flaw(key, f"{cls.__name__} turns {key} into another value", once[key], value))
        elif key not in once and value not in (None, False):
            flaws.append(_flaw(key, f"{cls.__name__} drops {key}", None, value))
    changed = sorted(key for key in {*once, *twice} if once.get(key) != twice.get(key))
    return (
        *flaws,
        *(_flaw(key, f"{key} changes each time it is saved", twice.get(key), once.get(key)) for key in changed),
    )


def _flaw(key: str, message: str, observed: Json, expected: Json) -> Flaw:
    return Flaw(
        where=key,
        message=message,
        severity=Severity.WARN,
        observed=observed,
        expected=expected,
        hint="the next save_pretrained writes another config than this one",
    )


def _plain(values: Mapping[str, Any]) -> dict[str, Json]:
    """As JSON would hold it: dtypes and enums as strings, tuples as lists."""
    return {
        key: list(value)
        if isinstance(value, tuple)
        else value
        if _is_json(value)
        else str(value).removeprefix("torch.")
        for key, value in values.items()
    }


def _is_json(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float | str | list | dict)


def _same(one: Json, other: Json) -> bool:
    """Equal, or two ways to say nothing (``llm_int8_skip_modules`` null and an empty default)."""
    return bool(one == other) or (not one and not other)
