"""What must hold of any file whatever: shared by the fuzz tests and the long-running fuzz target."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from models import Judged

from checker.domain import ErrorKind, Json
from checker.registry import LINEAR_ROLES, Method, config_flaws

NAMES = (("model.layers.0.mlp.up_proj",), ("lm_head", "model.lm_head"), ("h.0.attn.c_attn",), ("",))
ROLES = (*sorted(LINEAR_ROLES), "head", "embedding", "router", "other")


def ask(method: Method, config: Mapping[str, Json]) -> None:
    """Everything that a method can be asked about a config."""
    assert isinstance(method.declares(config), bool)
    declared = method.declared(config)
    json.dumps(declared)
    skips = method.skips(config)
    assert skips is None or all(isinstance(entry, str) for entry in skips)
    for key, message in [*method.contradictions(config), *config_flaws(method, config)]:
        assert isinstance(key, str)
        assert message
        assert message.isprintable()
    assert isinstance(method.stored_dense(config), str)
    if method.planner is not None:
        plan = method.planner(config)
        for names in NAMES:
            for role in ROLES:
                intent = plan(names, role)
                assert intent.quantized in (None, True, False)
                json.dumps(intent.attributes and dict(intent.attributes))


def assert_judged(judged: Judged, folder: Path) -> None:
    """Every check came to a verdict of some kind; none raised what nobody foresaw."""
    assert judged.results
    crashed = {
        name: result.error.detail
        for name, result in judged.results.items()
        if result.error is not None and result.error.kind is ErrorKind.INTERNAL
    }
    assert not crashed, f"{folder}: " + "\n".join(f"{name}:\n{detail}" for name, detail in crashed.items())
    for result in judged.results.values():
        assert all(finding.message.isprintable() for finding in result.findings), result.findings
