"""The command line, with ``hostile_worker.py`` in the worker's place; run as a script."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from checker import cli, process

process.WORKER = ("-P", str(Path(__file__).with_name("hostile_worker.py")))

if __name__ == "__main__":
    cli.main()
