"""What a matrix may name: checks, limits, and what a ``quantization_config`` may say."""

from __future__ import annotations

from collections.abc import Mapping

from checker.config_values import did_you_mean
from checker.domain import Json
from checker.matrix import Vocabulary
from checker.registry import all_checks, all_methods, config_flaws, method_declared


def vocabulary() -> Vocabulary:
    """The names that a matrix is checked against."""
    checks = all_checks()
    return Vocabulary(
        check_ids=[item.id for item in checks],
        limit_names=[f"{item.id}.{metric}" for item in checks for metric in item.limits],
        check_quantization=check_quantization,
    )


def check_quantization(config: Mapping[str, Json]) -> list[tuple[str, str]]:
    """What is wrong with a ``quantization_config`` that is to be applied at load time: (key, message) pairs."""
    method = method_declared(config)
    if method is None:
        known = sorted({item.quant_method for item in all_methods()})
        name = str(config.get("quant_method"))
        near = did_you_mean(name, known)
        return [("quant_method", f"quant_method {name!r} is no known method{near}; known: {', '.join(known)}")]
    if not method.quantizes_here:
        return [("quant_method", f"{method.id} cannot be applied at load time; name the checkpoint instead")]
    return config_flaws(method, config)
