"""Whether a step of the self-test ended as it must: ``expect.py outcome=failure verdict=failed cells=4 …``.

``OUTCOME`` is the step's outcome, ``OUTPUTS`` its outputs as JSON. Each report that the step says it wrote must exist;
``reports`` as an argument asks for all four.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

REPORTS = ("junit", "json", "summary", "html")


def differences(expected: Sequence[str], outcome: str, outputs: Mapping[str, str]) -> Iterator[str]:
    """One sentence for each value that is not as it must be."""
    seen = {**outputs, "outcome": outcome}
    for word in expected:
        name, equals, value = word.partition("=")
        if equals and seen.get(name) != value:
            yield f"{name} is {seen.get(name)!a}, not {value!a}"
    for name in REPORTS:
        if (path := outputs.get(name)) and not Path(path).is_file():
            yield f"{name} names {path!a}, which is no file"
        elif not path and "reports" in expected:
            yield f"no output {name}"


def main() -> None:
    """Print all that differs; exit 1 when anything does."""
    found = list(differences(sys.argv[1:], os.environ["OUTCOME"], json.loads(os.environ["OUTPUTS"])))
    sys.exit("\n".join(found) if found else 0)


if __name__ == "__main__":
    main()
