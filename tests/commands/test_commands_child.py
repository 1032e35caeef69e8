"""A question to a process of its own: whatever becomes of it is one sentence."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from checker.commands import child
from checker.errors import Unavailable


@pytest.fixture
def answers(monkeypatch):
    """Put a line of Python in the place of the module that is asked."""
    real = child.subprocess.run

    def become(code: str) -> None:
        def run(command, **options):
            return real([sys.executable, "-c", "import sys, os; " + code], **options)

        names = {"run": run, "TimeoutExpired": child.subprocess.TimeoutExpired}
        monkeypatch.setattr(child, "subprocess", SimpleNamespace(**names))

    return become


def test_an_answer(answers):
    answers("print('noise of a library'); print(sys.stdin.read())")
    assert child.ask("some.module", {"a": [1]}, timeout=20) == {"a": [1]}


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("", "some.module ended with exit code 0: it said nothing"),
        ("sys.exit(3)", "ended with exit code 3"),
        ("os.kill(os.getpid(), 9)", "ended with exit code -9"),
        ("sys.exit('first\\nlast words')", "exit code 1: last words"),
        ("print('[1]')", "ended with exit code 0"),
        ("print('{')", "ended with exit code 0"),
        ('print(\'{"error": "no torch"}\')', "no torch"),
        ("import time; time.sleep(60)", "did not answer within 1 s"),
    ],
)
def test_every_trouble_is_one_sentence(answers, code, says):
    answers(code)
    with pytest.raises(Unavailable) as caught:
        child.ask("some.module", {}, timeout=1 if "sleep" in code else 20)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
