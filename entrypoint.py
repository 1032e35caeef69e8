"""The entry point of the image, of the Action and of the installed command: all three are this file."""

from __future__ import annotations

from checker.cli import main

if __name__ == "__main__":
    main()
