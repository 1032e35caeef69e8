"""Runs images of a store, in name spaces and a changed root in place of a container engine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from building import Image, Store

SOMEBODY = 12345  # a uid and gid without a name, in the image and here


@dataclass(frozen=True)
class Container:
    """How to run an image; the defaults are how the Action runs it, a plain ``docker run`` is ``by_hand``."""

    store: Store
    image: Image
    owner: int = SOMEBODY
    read_only: bool = True
    tmpfs: bool = True
    network: bool = False
    volumes: Sequence[str] = ()
    workdir: str = ""
    entrypoint: Sequence[str] = ()
    variables: Mapping[str, str] = field(default_factory=dict)

    def by_hand(self) -> Container:
        """Without any option but ``--user`` and ``--volume``."""
        return replace(self, read_only=False, tmpfs=False)

    def run(self, *arguments: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """Run to the end; both streams are text."""
        with self.start(*arguments) as process:
            out, err = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    @contextmanager
    def start(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """A running container; the process is that of the entry point, as nothing here waits in between."""
        with self.store.unpacked(self.image.name) as root:
            process = subprocess.Popen(
                [*self._spaces(), Path(__file__).parent / "sandbox.sh", *self._words(arguments)],
                env={"PATH": os.environ["PATH"], **self._settings(root)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            try:
                yield process
            finally:
                process.kill()
                process.communicate()

    def _spaces(self) -> list[str]:
        return ["unshare", "--mount", *([] if self.network else ["--net"]), "--"]

    def _words(self, arguments: Sequence[str]) -> list[str]:
        """What the image says is run: its variables with ours over them, its entry point, its words if we have none."""
        variables = {**self.image.environment, **self.variables}
        command = [*(self.entrypoint or self.image.config["Entrypoint"])]
        command += arguments or ([] if self.entrypoint else self.image.config["Cmd"])
        return [*(f"{name}={value}" for name, value in variables.items()), *command]

    def _settings(self, root: Path) -> dict[str, str]:
        return {
            "ROOT": str(root),
            "OWNER": f"{self.owner}:{self.owner}",
            "WORKDIR": self.workdir or str(self.image.config["WorkingDir"]),
            "READ_ONLY": "yes" if self.read_only else "no",
            "TMPFS": "yes" if self.tmpfs else "no",
            "VOLUMES": "\n".join(self.volumes),
        }
