"""What a torchao configuration in ``config.json`` says: keys, and the layout that it asks for of each module.

``quant_type`` is ``{"default": <configuration>}``; a configuration is ``{"_type": class, "_version": n, "_data":
fields}`` (``config_to_dict`` in torchao/core/config.py). ``FqnToConfig`` (``ModuleFqnToConfig`` before 0.15) names one
for each module or parameter: exact parameter name, exact module name, the first ``re:`` expression that matches all of
either, ``_default`` for the linear layers left over; null keeps a module dense (torchao/quantization/quant_api.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from checker.architecture import skip_matches
from checker.config_values import Domain, boolean, names_or_none, one_of
from checker.domain import Json
from checker.registry import LINEAR_ROLES, Intent, Planner, Unfit

FLOAT8 = {"float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2"}
FLOAT8_TILE = 16
LARGEST_SIZE = 1 << 31
LONGEST_EXPRESSION = 500
LONGEST_NAME = 250
MOST_QUANTIFIERS = 3  # with more of them, or with groups repeated, an expression can search for hours
_ESCAPED = re.compile(r"\\.|\(\?[:=!]")
_QUANTIFIER = re.compile(r"[*+?{]")
_MIXED = ("FqnToConfig", "ModuleFqnToConfig")


def _quant_type(value: Json) -> str | None:
    if isinstance(value, str):
        return f"is the name {value[:60]!r}; transformers 5 reads only a configuration object, {{'default': {{…}}}}"
    if not isinstance(value, Mapping) or list(value) != ["default"]:
        return "must be an object with the one key 'default'"
    return _configuration(value["default"], nested=False)


def _configuration(value: Json, *, nested: bool) -> str | None:
    if not isinstance(value, Mapping) or not isinstance(value.get("_type"), str):
        return "must hold a configuration: an object with _type and _data"
    if not isinstance(value.get("_data"), Mapping):
        return f"has no _data for {value['_type'][:60]}"
    if value["_type"] not in _MIXED:
        return None
    if nested:
        return f"nests one {value['_type']} in another"
    entries = _entries(value)
    faults = ((key, _configuration(item, nested=True)) for key, item in entries.items() if item is not None)
    wrong = next((f"{key[:60]!r} {fault}" for key, fault in faults if fault), None)
    return wrong if entries else "names no module"


KEYS: Mapping[str, Domain] = {
    "quant_method": one_of("torchao"),
    "quant_type": _quant_type,
    "quant_type_kwargs": lambda value: None if isinstance(value, Mapping) else "must be an object",
    "modules_to_not_convert": names_or_none,
    "include_input_output_embeddings": boolean,
    "untie_embedding_weights": boolean,
}


def contradictions(config: Mapping[str, Json]) -> list[tuple[str, str]]:
    """The configuration itself must be there; transformers takes it out without asking."""
    return [] if "quant_type" in config else [("quant_type", "quant_type is missing; nothing says what torchao did")]


def default_of(config: Mapping[str, Json]) -> Mapping[str, Json]:
    """The configuration object, empty where it is not one."""
    kinds = config.get("quant_type")
    default = kinds.get("default") if isinstance(kinds, Mapping) else None
    return default if isinstance(default, Mapping) and _configuration(default, nested=False) is None else {}


def _entries(mixed: Mapping[str, Json]) -> Mapping[str, Json]:
    data = mixed["_data"]
    for key in ("fqn_to_config", "module_fqn_to_config"):
        if isinstance(data.get(key), Mapping) and data[key]:
            return {str(name): item for name, item in data[key].items()}
    return {}


def attributes_of(configuration: Mapping[str, Json]) -> dict[str, Json]:
    """What one configuration declares of the weights it makes; only what is certain."""
    data = configuration.get("_data", {})
    read = _READERS.get(str(configuration.get("_type")))
    return {key: value for key, value in read(data).items() if _is_sound(key, value)} if read else {}


def _is_sound(key: str, value: Json) -> bool:
    """Whether a value may stand for itself in predictions; the config is a file's word."""
    number = isinstance(value, int) and not isinstance(value, bool) and 0 < value < LARGEST_SIZE
    return number if key in ("bits", "group_size") else isinstance(value, str | bool)


def _int8(data: Mapping[str, Json]) -> dict[str, Json]:
    return {"bits": 8, "tensor_class": "Int8Tensor", **_granularity(data.get("granularity"))}


def _float8(data: Mapping[str, Json]) -> dict[str, Json]:
    plain = _name(data.get("packing_format", {"_data": "PLAIN"})) == "PLAIN"
    dtype = _name(data.get("weight_dtype"))
    return {
        "bits": 8,
        "tensor_class": "Float8Tensor" if plain else None,
        "quant_type": dtype,
        **_granularity(data.get("granularity")),
    }


def _int4(data: Mapping[str, Json]) -> dict[str, Json]:
    classes = {
        "PLAIN": "Int4Tensor",
        "TILE_PACKED_TO_4D": "Int4TilePackedTo4dTensor",
        "PLAIN_INT32": "Int4PlainInt32Tensor",
    }
    kind = classes.get(str(_name(data.get("int4_packing_format"))))
    return {"bits": 4, "tensor_class": kind, "granularity": "group", "group_size": data.get("group_size")}


def _intx(data: Mapping[str, Json]) -> dict[str, Json]:
    dtype = str(_name(data.get("weight_dtype", {"_data": "int8"})))
    mapping = _name(data.get("mapping_type", data.get("weight_mapping_type")))
    bits = int(dtype[3:]) if re.fullmatch(r"int[1-8]", dtype) else None
    granularity = data.get("granularity", data.get("weight_granularity"))
    return {
        "bits": bits,
        "tensor_class": "IntxUnpackedToInt8Tensor",
        "symmetric": None if mapping is None else mapping != "ASYMMETRIC",
        **_granularity(granularity),
    }


def _mx(data: Mapping[str, Json]) -> dict[str, Json]:
    dtype = _name(data.get("weight_dtype"))
    bits = 4 if dtype == "float4_e2m1fn_x2" else 8
    return {"bits": bits, "tensor_class": "MXTensor", "quant_type": dtype, "group_size": data.get("block_size")}


def _nvfp4(data: Mapping[str, Json]) -> dict[str, Json]:
    del data
    return {"bits": 4, "tensor_class": "NVFP4Tensor", "group_size": 16}


_READERS = {
    "Int8WeightOnlyConfig": _int8,
    "Int8DynamicActivationInt8WeightConfig": _int8,
    "Int8StaticActivationInt8WeightConfig": _int8,
    "Float8WeightOnlyConfig": _float8,
    "Float8DynamicActivationFloat8WeightConfig": _float8,
    "Int4WeightOnlyConfig": _int4,
    "IntxWeightOnlyConfig": _intx,
    "Int8DynamicActivationIntxWeightConfig": _intx,
    "MXDynamicActivationMXWeightConfig": _mx,
    "NVFP4WeightOnlyConfig": _nvfp4,
    "NVFP4DynamicActivationNVFP4WeightConfig": _nvfp4,
}


def _name(value: Json) -> str | None:
    """The name of an enumeration's member or of a dtype."""
    found = value.get("_data") if isinstance(value, Mapping) else None
    return found if isinstance(found, str) else None


def _granularity(value: Json) -> dict[str, Json]:
    """``granularity`` and ``group_size``; of a pair the second one is the weight's. Nothing where it is not said."""
    if isinstance(value, list):
        value = value[-1] if value else None
    if not isinstance(value, Mapping):
        return {}
    kind, data = value.get("_type"), value.get("_data")
    size = data.get("group_size") if isinstance(data, Mapping) else None
    if kind == "PerGroup" and isinstance(size, int):
        return {"granularity": "group", "group_size": size}
    return {"granularity": {"PerRow": "row", "PerAxis": "row", "PerTensor": "tensor"}.get(str(kind))}


def declared(config: Mapping[str, Json]) -> dict[str, Json]:
    """What holds for every quantized weight; of a mixture, nothing."""
    default = default_of(config)
    return {} if default.get("_type") in _MIXED else attributes_of(default)


def activations(config: Mapping[str, Json]) -> bool:
    """Whether some module's activations are quantized as well: the class of its configuration says so."""
    default = default_of(config)
    used = _entries(default).values() if default.get("_type") in _MIXED else (default,)
    return any("Activation" in str(item.get("_type")) for item in used if item is not None)


def unfit(config: Mapping[str, Json]) -> Unfit:
    """Shapes that torchao passes over without a word: int4 needs whole groups, float8 matrix products 16 by 16."""
    default = default_of(config)
    mixed = default.get("_type") in _MIXED
    used = [item for item in _entries(default).values() if item is not None] if mixed else [default]
    groups = [item["_data"].get("group_size") for item in used if item.get("_type") == "Int4WeightOnlyConfig"]
    sizes = [size for size in groups if isinstance(size, int) and size > 0]
    tiled = any(item.get("_type") == "Float8DynamicActivationFloat8WeightConfig" for item in used)

    def reason(shape: tuple[int, ...]) -> str:
        if any(shape[-1] % size for size in sizes):
            return f"its {shape[-1]} inputs are no multiple of the group size"
        if tiled and any(size % FLOAT8_TILE for size in shape[-2:]):
            return "float8 matrix products need multiples of 16"
        return ""

    return reason


def entry_matches(entry: str, name: str) -> bool:
    """Either name is meant: transformers 5 compares with ``<module>.weight``, older versions with the module."""
    return skip_matches(entry, name) or skip_matches(entry, f"{name}.weight")


def planner(config: Mapping[str, Json]) -> Planner:
    """What the configuration asks for each module."""
    default, listed = default_of(config), config.get("modules_to_not_convert")
    entries = _entries(default) if default.get("_type") in _MIXED else None
    embeddings = config.get("include_input_output_embeddings") is True
    skipped = [str(entry) for entry in listed] if isinstance(listed, list) else []

    def plan(names: tuple[str, ...], role: str) -> Intent:
        entry = next((entry for entry in skipped if any(entry_matches(entry, name) for name in names)), None)
        if entry is not None and not (embeddings and role in ("head", "embedding")):
            return Intent(quantized=False, reason=f"{entry!r} of modules_to_not_convert keeps it")
        if entries is not None:
            return _of_entries(entries, names, role, kept=listed is None and not embeddings)
        if role == "head" and embeddings:
            return Intent(quantized=True)
        return Intent()

    return plan


def _of_entries(entries: Mapping[str, Json], names: tuple[str, ...], role: str, *, kept: bool) -> Intent:
    found = next(_matches(entries, names), None)
    if role == "head" and kept:  # the default skip list comes before the mapping
        return Intent()
    if found is None and "_default" in entries and role in (*LINEAR_ROLES, "head"):
        found = "_default"
    if found is None:
        return Intent(quantized=False, reason="no entry of fqn_to_config names it", attributes={})
    configuration = entries[found]
    if configuration is None:
        return Intent(quantized=False, reason=f"{found!r} of fqn_to_config keeps it", attributes={})
    return Intent(quantized=True, attributes=attributes_of(configuration))


def _matches(entries: Mapping[str, Json], names: tuple[str, ...]) -> Iterator[str]:
    """Keys that name a module or its parameter, in the order of precedence."""
    parameters = tuple(f"{name}.weight" for name in names)
    yield from (name for name in (*parameters, *names) if name in entries)
    for key in entries:
        if key.startswith("re:") and any(_full_match(key[3:], name) for name in (*parameters, *names)):
            yield key


def _full_match(expression: str, name: str) -> bool:
    """Expressions that could backtrack for ever are taken as text: they come from a file that may be hostile."""
    plain = _ESCAPED.sub("", expression)
    few = len(_QUANTIFIER.findall(plain)) <= MOST_QUANTIFIERS and not re.search(r"\)[*+?{]", plain)
    if not few or len(expression) > LONGEST_EXPRESSION or len(name) > LONGEST_NAME:
        return expression == name
    try:
        return re.fullmatch(expression, name) is not None
    except (re.error, RecursionError, OverflowError):
        return False
