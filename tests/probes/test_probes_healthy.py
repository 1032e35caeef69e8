"""No false alarm: healthy checkpoints of every architecture and variant pass all static checks."""

from __future__ import annotations

import pytest
from models import FUSED_EXPERTS, MODELS, VARIANTS, Zoo, judge_files

from checker.domain import Outcome

CASES = [(name, variant) for name in MODELS for variant in VARIANTS]


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_a_healthy_checkpoint_has_no_failing_check(zoo: Zoo, name: str, variant: str):
    judged = judge_files(zoo.quantized(name, variant), zoo.baseline(name))
    print(judged.text(), judged.measurements.get("weights"))
    assert not judged.ids(Outcome.ERROR), judged.text()
    assert judged.ids(Outcome.FAIL) <= ({"layers.coverage", "memory.ratio"} if name in FUSED_EXPERTS else set()), (
        judged.text()
    )
