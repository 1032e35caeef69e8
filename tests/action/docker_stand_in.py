"""In the place of ``docker``: notes every word, and runs quant-verify as the container would, with nothing else around.

Words: the folder of the notes, then docker's own. A file ``call-N`` gets the words of the N-th call, each ended by a
zero byte; ``environment-WORD.json`` what the container of that command saw of the environment. A file ``present`` says
that the image is here, and ``code-run``, ``code-pull``, ``code-comment`` what to exit with in place of that.
"""

from __future__ import annotations

import json
import os
import sys
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OF_THE_IMAGE = {"PATH": os.defpath, "HOME": "/tmp", "QUANT_VERIFY_IN_IMAGE": "1", "OMP_NUM_THREADS": "1"}


def main(notes: Path, words: list[str]) -> None:
    number = len(list(notes.glob("call-*")))
    (notes / f"call-{number:03}").write_bytes(b"".join(os.fsencode(word) + b"\0" for word in words))
    if words[:2] == ["image", "inspect"]:
        sys.exit(0 if (notes / "present").exists() else 1)
    for name in (f"code-{words[-1]}", f"code-{words[0]}"):
        if (notes / name).exists():
            sys.exit(int((notes / name).read_text()))
    if words[0] == "run":
        contain(notes, words)


def contain(notes: Path, words: list[str]) -> None:
    """Become the process in the container."""
    values = [after for before, after in pairwise(words) if before == "--env"]
    given = {
        value.partition("=")[0]: value.partition("=")[2] if "=" in value else os.environ[value] for value in values
    }
    (notes / f"environment-{words[-1]}.json").write_text(json.dumps(given))
    os.chdir(words[words.index("--workdir") + 1])
    entry = (notes / "entry").read_text() if (notes / "entry").exists() else str(ROOT / "entrypoint.py")
    os.execve(sys.executable, [sys.executable, entry, words[-1]], OF_THE_IMAGE | given)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
