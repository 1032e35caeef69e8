"""What a cell needs before a worker can judge it: its files, its libraries, and the reference of its baseline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from checker.checkpoint.hub import may_ask, token_to_send
from checker.checkpoint.network import Network, open_network
from checker.checkpoint.resolve import Resolved, resolve, resolve_remote
from checker.domain import Cell, CheckError, Depth, ErrorKind, ModelRef
from checker.errors import Unavailable
from checker.protocol import Job
from checker.references import Recorded, References, wants_reference


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """What holds for the whole run."""

    jobs: int = 1
    gpus: tuple[str, ...] = ()  # names for CUDA_VISIBLE_DEVICES; empty: leave it as it is
    offline: bool = False
    trust_remote_code: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Provision:
    """Fetches and finds. ``say`` tells what is being done for a cell, ``note`` what became known of it."""

    options: RunOptions
    references: References
    say: Callable[[str, str], None]
    note: Callable[[str, dict[str, str | None]], None]
    ended: Callable[[], bool]

    def job_for(self, cell: Cell, checks: tuple[str, ...], scratch: str) -> Job:
        """The job of a cell, with everything in its place but the GPUs.

        Raises:
            Unavailable: files or libraries cannot be had. A reference that cannot be had is the trouble of its checks.
            UsageError: a folder is no longer there.
        """
        network = open_network() if self._reads_ranges(cell) else None
        recorded, error = self._recorded(cell)
        spared = recorded is not None and cell.checkpoint is not None and _on_hub(cell.baseline)
        baseline = None if spared else self._fetch(cell, cell.baseline, network)
        checkpoint = self._fetch(cell, cell.checkpoint, network)
        overlay = self._lay_over(cell)
        reference = None if recorded is None else str(recorded.path)
        if spared and recorded is not None:
            self.note(cell.id, {"baseline_revision": recorded.revision})
        if recorded is None and error is None and baseline is not None and wants_reference(cell, checks):
            try:
                reference = str(self.references.made(cell, baseline))
            except Unavailable as reason:  # tried twice already, if that could help: the cell need not be
                error = CheckError(kind=ErrorKind.NOT_RUN, message=str(reason))
        known = self.references.known_good()
        job = Job(
            cell=cell,
            checks=checks,
            baseline=str(baseline.folder) if baseline else None,
            checkpoint=str(checkpoint.folder) if checkpoint else None,
            scratch=scratch,
            checkpoint_file=checkpoint.file if checkpoint else None,
            hub_files=tuple(checkpoint.files) if checkpoint else (),
            trust_remote_code=trusts(cell, self.options),
            baseline_repository=baseline.repository if baseline else None,
            checkpoint_repository=checkpoint.repository if checkpoint else None,
            overlay=overlay,
            reference=reference,
            reference_error=error,
            known_good=str(known) if known else None,
        )
        if network is not None and (job.baseline_repository or job.checkpoint_repository):
            job = replace(job, network=replace(network, token=token_to_send()))
        return job

    def baseline_of(self, cell: Cell) -> Resolved:
        """The files of a cell's baseline, fetched when need be."""
        found = self._fetch(cell, cell.baseline, None)
        assert found is not None, "the cell has a baseline"
        return found

    def _recorded(self, cell: Cell) -> tuple[Recorded | None, CheckError | None]:
        try:
            return self.references.recorded(cell), None
        except Unavailable as reason:
            return None, CheckError(kind=reason.kind, message=str(reason))

    def _reads_ranges(self, cell: Cell) -> bool:
        """Whether the cell's repositories are read by ranges instead of being downloaded.

        Not to load a model, for every byte of it, or with Python code that is not ours (its own, or libraries that the
        matrix names): that must not run in a worker with a token.
        """
        static = not needs_torch(cell) and cell.settings.weights != "full" and not trusts(cell, self.options)
        on_hub = _on_hub(cell.baseline) or _on_hub(cell.checkpoint)
        return static and on_hub and not cell.libraries and not self.options.offline and may_ask()

    def _fetch(self, cell: Cell, ref: ModelRef | None, network: Network | None) -> Resolved | None:
        if ref is None:
            return None
        if ref.kind == "hub":
            self.say(cell.id, f"reading {ref}" if network is not None else f"fetching {ref}")
        if ref.kind == "hub" and network is not None:
            resolved = resolve_remote(ref, network)
        else:
            resolved = resolve(ref, offline=self.options.offline, allow_code=trusts(cell, self.options))
        self.note(cell.id, {"baseline_revision" if ref is cell.baseline else "checkpoint_revision": resolved.revision})
        return resolved

    def _lay_over(self, cell: Cell) -> str | None:
        """The folder with the cell's libraries; making it counts as fetching, not towards the time limit."""
        if not cell.libraries:
            return None
        from checker.overlay import Site, lay_over

        site = Site(self.options.offline, lambda what: self.say(cell.id, what), self.ended)
        return str(lay_over(cell.libraries, site))


def _on_hub(ref: ModelRef | None) -> bool:
    return ref is not None and ref.kind == "hub"


def trusts(cell: Cell, options: RunOptions) -> bool:
    """Whether the cell's own Python code may run: matrix and command line both allow it."""
    return options.trust_remote_code and cell.settings.trust_remote_code


def needs_torch(cell: Cell) -> bool:
    """Whether judging a cell takes more than its files."""
    return cell.settings.depth is not Depth.STATIC or cell.quantization is not None
