"""What is under test in one cell: opened, loaded and run only as far as the checks ask, and freed on exit.

Facts are gathered on first demand and kept, failures too: a checkpoint that does not load is loaded once, and every
check that needs it learns the same reason.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from checker.checkpoint import Checkpoint, open_checkpoint
from checker.checks.divergence import is_settled, judge_divergence
from checker.domain import ErrorKind, Severity
from checker.errors import NotApplicable, Unavailable
from checker.facts import (
    ArchitectureFacts,
    ArtifactFacts,
    DivergenceFacts,
    KnownText,
    LoadFacts,
    ModuleErrorFacts,
    OutputFacts,
    RoundtripFacts,
    StructureFacts,
    TextFacts,
    WeightFacts,
)
from checker.handover import Handed, read_handed, read_rows
from checker.probes.artifact import find_quantization_config, gather_artifact
from checker.protocol import Job
from checker.reference import Reference, read_reference
from checker.registry import Check, Limits, Method, all_checks, all_methods, resolve_limits

if TYPE_CHECKING:
    from typing import Self

    from checker.live import LiveModel


@dataclass
class Subject:
    """One cell's checkpoint, baseline and model. Use as a context manager; ``get`` gives facts by type."""

    job: Job
    say: Callable[[str], None] = lambda _: None
    needs_roundtrip: bool = False
    blocked: str = ""  # why nothing may be loaded
    _facts: dict[type, object] = field(default_factory=dict)
    _errors: dict[type, Unavailable | NotApplicable] = field(default_factory=dict)
    _begun: set[type] = field(default_factory=set)
    _open: list[Checkpoint] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if "_live" in self.__dict__:
            self._live.free()
        for checkpoint in self._open:
            checkpoint.close()

    def get(self, kind: type) -> Any:
        """Facts of a type, gathered once.

        Raises:
            Unavailable, NotApplicable: there are none, for the reason given; the same one each time.
        """
        if kind in self._errors:
            raise self._errors[kind]
        if kind not in self._facts:
            if kind in self._begun:
                raise Unavailable("gathering its facts failed before (see the first check with that error)")
            self._begun.add(kind)
            try:
                self._facts[kind] = _GATHER[kind](self)
            except (Unavailable, NotApplicable) as error:
                self._errors[kind] = copy.copy(error)  # without the traceback, whose frames hold the model
                raise
        return self._facts[kind]

    def gathered(self, kind: type) -> Any:
        """Facts of a type if they are there already, else None."""
        return self._facts.get(kind)

    @cached_property
    def _handed(self) -> Handed:
        return read_handed(Path(self.job.scratch)) if self.job.stage == "model" else Handed()

    @property
    def folder(self) -> Path:
        """The checkpoint's folder; a cell that is quantized here is quantized and saved first."""
        folder: Path = self.get(Path)
        return folder

    def _folder(self) -> Path:
        if self.job.checkpoint is not None:
            return Path(self.job.checkpoint)
        from checker.probes.quantize import quantize

        assert self.job.baseline is not None, "a cell has a checkpoint or a baseline"
        self.say("quantizing the baseline")
        target = Path(self.job.scratch) / "checkpoint"
        return quantize(Path(self.job.baseline), self.job.cell, target, trust_remote_code=self.job.trust_remote_code)

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint's headers and mapped tensors."""
        job = self.job
        checkpoint = open_checkpoint(
            self.folder, listed=job.hub_files, repository=job.checkpoint_repository, network=job.network,
            file=job.checkpoint_file,
        )  # fmt: skip
        self._open.append(checkpoint)
        return checkpoint

    @cached_property
    def baseline(self) -> Checkpoint | None:
        """The full-precision checkpoint, if the cell has one; else what a recorded reference holds of it."""
        job = self.job
        if job.baseline is None:
            from checker.reference.recorded import open_recorded

            return None if job.reference is None else open_recorded(self.reference())
        baseline = open_checkpoint(Path(job.baseline), repository=job.baseline_repository, network=job.network)
        self._open.append(baseline)
        if find_quantization_config(baseline.config or {})[1] is not None:
            message = f"the baseline {self.job.cell.baseline} is itself quantized; name the full-precision model"
            raise Unavailable(message)
        if not baseline.tensors:
            reason = baseline.problems[0].message if baseline.problems else "it holds no safetensors file"
            raise Unavailable(f"the baseline {self.job.cell.baseline} cannot be read: {reason}")
        return baseline

    def reference(self) -> Reference:
        """What is known of the baseline's outputs, from the cache or recorded.

        Raises:
            NotApplicable: the cell has no baseline.
            Unavailable: there is no reference, it is damaged, or it was made with another tokenizer.
        """
        found: Reference = self.get(Reference)
        return found

    def _reference(self) -> Reference:
        job = self.job
        if job.reference_error is not None:
            raise Unavailable(job.reference_error.message, job.reference_error.kind)
        if job.reference is None:
            raise NotApplicable("there is no baseline to compare with")
        reference = read_reference(Path(job.reference))
        theirs, ours = reference.summary.identity.tokenizer, self.tokenizer
        if theirs and ours and theirs != ours:
            message = f"the reference {job.reference} was made with another tokenizer than this checkpoint's"
            raise Unavailable(f"{message}; is {reference.summary.identity.baseline} its baseline?")
        return reference

    @cached_property
    def tokenizer(self) -> str:
        """Digest of the checkpoint's tokenizer, "" when it has none."""
        from checker.reference.identity import tokenizer_digest

        return tokenizer_digest(self.folder) if self._handed.tokenizer is None else self._handed.tokenizer

    def known(self) -> tuple[KnownText, ...]:
        """The texts that this cell was recorded with, if any."""
        if self.job.known_good is None:
            return ()
        from checker.known_good import read

        return read(Path(self.job.known_good)).get(self.job.cell.id, ())

    def limits(self, item: Check) -> Limits:
        """The limits of a check in this cell; a method's belong to the numbers that are stored, not to the claim."""
        method = self.stored_method or self.method
        return resolve_limits(item, method.limits if method else {}, self.job.cell.settings.limits)

    @property
    def traffic(self) -> dict[str, int]:
        """Requests to the Hub and bytes received so far; empty when every file is local."""
        counts = (Counter(item.source.traffic) for item in self._open if item.source is not None)
        return dict(sum(counts, start=Counter[str]()))

    @property
    def method(self) -> Method | None:
        """The declared method, else the one whose tensors are stored."""
        artifact = self.get(ArtifactFacts)
        return _method(artifact.declared_method or artifact.stored_method)

    @property
    def stored_method(self) -> Method | None:
        """The method whose tensors are stored, whatever the config says."""
        return _method(self.get(ArtifactFacts).stored_method)

    @cached_property
    def device(self) -> str:
        """The torch device of this cell."""
        from checker.probes.load import resolve_device

        return resolve_device(self.job.cell.settings.device)

    def _artifact(self) -> ArtifactFacts:
        return self._handed.artifact or gather_artifact(self.checkpoint, self.baseline)

    def _weights(self) -> WeightFacts:
        if self._handed.weights is not None:
            return self._handed.weights
        from checker.probes.extent import reads_sample
        from checker.probes.weights import gather_weights

        artifact, method = self.get(ArtifactFacts), self.stored_method
        sampled = reads_sample(self.job.cell.settings.weights, artifact, self.checkpoint, self.baseline)
        if method is None:
            raise NotApplicable("no weight is stored in a known quantized form (see config.present)")
        self.say("reading a sample of the weights" if sampled else "reading all weights")
        return gather_weights(self.checkpoint, self.baseline, artifact, method, sampled=sampled)

    def _architecture(self) -> ArchitectureFacts:
        from checker.probes.architecture import gather_architecture

        self.say("building the model without weights")
        artifact, trust = self.get(ArtifactFacts), self.job.trust_remote_code
        return gather_architecture(self.folder, artifact, self.method, trust_remote_code=trust)

    @cached_property
    def _live(self) -> LiveModel:
        """The loaded model; loading it is refused where a guarding check fails."""
        from checker.behaviour import Behaviour
        from checker.live import LiveModel

        if self.blocked:
            raise Unavailable(self.blocked, ErrorKind.NOT_RUN)
        behaviour = Behaviour(
            job=self.job,
            folder=self.folder,
            checkpoint=lambda: self.checkpoint,
            baseline=lambda: self.baseline,
            method=self.stored_method or self.method,  # whose tensors are decoded
            device=self.device,
            reference=self.reference,
            known=self.known,
            facts=self.get,
            decoded=lambda: read_rows(Path(self.job.scratch), self._handed.rows),
            say=self.say,
        )
        return LiveModel(
            behaviour=behaviour,
            job=self.job,
            folder=self.folder,
            method=self.method,  # of the files, before the library has a say
            device=self.device,
            needs_roundtrip=self.needs_roundtrip,
            facts=self.get,
            say=self.say,
        )

    def _divergence(self) -> DivergenceFacts:
        limits = self.limits(next(item for item in all_checks() if item.id == "outputs.divergence"))

        def is_failing(facts: DivergenceFacts) -> bool:
            return any(finding.severity is Severity.FAIL for finding in judge_divergence(facts, limits))

        self.reference()  # before anything is loaded for it
        return self._live.running().divergence(lambda facts: is_settled(facts, limits), is_failing)

    @property
    def detail(self) -> str:
        """The traceback of a load or save that failed."""
        return self._live.detail if "_live" in self.__dict__ else ""


def _method(name: str | None) -> Method | None:
    return next((method for method in all_methods() if method.id == name), None)


_GATHER: dict[type, Callable[[Subject], object]] = {
    Path: Subject._folder,  # noqa: SLF001 - as those below
    Reference: Subject._reference,  # noqa: SLF001
    ArtifactFacts: Subject._artifact,  # noqa: SLF001 - the table belongs to the class
    WeightFacts: Subject._weights,  # noqa: SLF001
    ArchitectureFacts: Subject._architecture,  # noqa: SLF001
    LoadFacts: lambda subject: subject._live.load(),  # noqa: SLF001
    StructureFacts: lambda subject: subject._live.structure(),  # noqa: SLF001
    OutputFacts: lambda subject: subject._live.running().outputs(),  # noqa: SLF001
    ModuleErrorFacts: lambda subject: subject._live.running().module_errors(),  # noqa: SLF001
    DivergenceFacts: Subject._divergence,  # noqa: SLF001
    TextFacts: lambda subject: subject._live.running().texts(),  # noqa: SLF001
    RoundtripFacts: lambda subject: subject._live.roundtrip(),  # noqa: SLF001
}
