"""A config completed from beside it: formats whose quantization is not described by config.json."""

from __future__ import annotations

from checker.checkpoint.files import Folder
from checker.checkpoint.json_file import JsonFile, read_json
from checker.checkpoint.weights import Weights

KEY = "quantization_config"
QUANTO_MAP = "quanto_qmap.json"  # optimum-quanto: {module: {"weights": "qint8", "activations": "none"}}


def completed(folder: Folder, config: JsonFile, weights: Weights) -> JsonFile:
    """The config with what a GGUF file, or optimum-quanto's map, says of the quantization; its own word stands."""
    if weights.gguf:
        return _with_gguf(config, weights, absent="config.json" not in folder.names)
    if QUANTO_MAP in folder.names and config.value is not None and KEY not in config.value:
        found = read_json(folder, QUANTO_MAP)
        problems = (*config.problems, *found.problems)
        if found.value is None:
            return JsonFile(value=config.value, problems=problems)
        own = {"quant_method": "quanto", "quantization_map": found.value}
        return JsonFile(value={**config.value, KEY: own}, problems=problems)
    return config


def _with_gguf(config: JsonFile, weights: Weights, *, absent: bool) -> JsonFile:
    """With what the file says of itself; it is the whole checkpoint when there is no config."""
    from checker.checkpoint.gguf_types import gguf_config

    own = gguf_config(weights.metadata, weights.gguf)
    if absent:
        return JsonFile(value=own, problems=())
    if config.value is None:
        return config
    said = config.value.get(KEY, {})
    if not isinstance(said, dict):
        return config
    return JsonFile(value={**config.value, KEY: {**own[KEY], **said}}, problems=config.problems)
