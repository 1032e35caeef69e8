"""What a release writes into the repository: the image's digest into action.yml, the Action's commit into fan-out.yml.

Both are immutable, so that whoever pins the Action or the workflow by its commit has pinned all that runs.

    python pin.py version 1.2.3          is this version ready to be released?
    python pin.py image sha256:…         action.yml
    python pin.py action COMMIT 1.2.3    .github/workflows/fan-out.yml
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IMAGE = re.compile(r"(?<=ghcr\.io/org/quant-verify@)sha256:[0-9a-f]{64}\b")
ACTION = re.compile(r"(?<=uses: org/quant-verify@)[0-9a-f]{40} # v\S+")
DIGEST = re.compile(r"sha256:(?!0{64})[0-9a-f]{64}")
COMMIT = re.compile(r"(?!0{40})[0-9a-f]{40}")
VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")
USAGE = "usage: pin.py version VERSION | image DIGEST | action COMMIT VERSION"


def matching(pattern: re.Pattern[str], text: str, what: str) -> str:
    """The text, if it is all of the form that is asked for."""
    if not pattern.fullmatch(text):
        sys.exit(f"pin.py: {text!a} is not {what}")
    return text


def replace(root: Path, name: str, pattern: re.Pattern[str], value: str) -> None:
    """Write ``value`` wherever the pattern stands in a file; a file in which it stands nowhere has changed its form."""
    path = root / name
    text, count = pattern.subn(value, path.read_text(encoding="utf-8"))
    if not count:
        sys.exit(f"pin.py: {name} has no place for {value!a}")
    path.write_text(text, encoding="utf-8")


def pin_image(root: Path, digest: str) -> None:
    """The image that action.yml starts."""
    replace(root, "action.yml", IMAGE, matching(DIGEST, digest, "the digest of an image, sha256: and 64 hex digits"))


def pin_action(root: Path, commit: str, version: str) -> None:
    """The Action that the jobs of fan-out.yml use."""
    matching(COMMIT, commit, "a commit, 40 hex digits")
    matching(VERSION, version, "a version such as 1.2.3")
    replace(root, ".github/workflows/fan-out.yml", ACTION, f"{commit} # v{version}")


def check_version(root: Path, version: str) -> None:
    """A version is ready when the package says it and the change log has dated it."""
    matching(VERSION, version, "a version such as 1.2.3")
    package = (root / "checker" / "__init__.py").read_text(encoding="utf-8")
    if f'__version__ = "{version}"' not in package.splitlines():
        sys.exit(f"pin.py: checker/__init__.py does not say that this is {version}")
    changes = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    if not re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", changes, re.MULTILINE):
        sys.exit(f"pin.py: CHANGELOG.md has no line '## [{version}] - YEAR-MONTH-DAY'")


def main(arguments: list[str], root: Path = ROOT) -> None:
    """Do what the first word says."""
    match arguments:
        case ["version", version]:
            check_version(root, version)
        case ["image", digest]:
            pin_image(root, digest)
        case ["action", commit, version]:
            pin_action(root, commit, version)
        case _:
            sys.exit(USAGE)


if __name__ == "__main__":
    main(sys.argv[1:])
