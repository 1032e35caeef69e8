"""``make fuzz``: the fuzz target for some minutes, in an environment of its own that is made when it is not there."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "fixtures"))

from remake import environment  # noqa: E402 - it lies where the fixtures are made

SECONDS = 10  # of one input: a hang
MEGABYTES = 2048


def main() -> None:
    """Exit with the fuzzer's code: 0 when nothing was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    arguments = parser.parse_args()
    python = environment(HERE, ROOT / ".fixtures")
    corpus = ROOT / ".fixtures" / "fuzz-corpus"
    corpus.mkdir(exist_ok=True)
    options = [
        f"-max_total_time={arguments.minutes * 60:.0f}",
        f"-timeout={SECONDS}",
        f"-rss_limit_mb={MEGABYTES}",
        "-max_len=8192",
        f"-artifact_prefix={corpus.parent}/",
        f"-dict={HERE / 'json.dict'}",
    ]
    sys.exit(subprocess.run([python, HERE / "fuzz_checkpoint.py", *options, corpus], check=False).returncode)


if __name__ == "__main__":
    main()
