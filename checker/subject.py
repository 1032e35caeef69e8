"""What is under test in one cell: opened, loaded and run only as far as the checks ask, and freed on exit.

Facts are gathered on first demand and kept, failures too: a checkpoint that does not load is loaded once, and every
check that needs it learns the same reason.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from checker.checkpoint import Checkpoint, open_checkpoint
from checker.domain import ErrorKind
from checker.errors import NotApplicable, Unavailable
from checker.facts import ArtifactFacts, LoadFacts, OutputFacts, RoundtripFacts, StructureFacts, WeightFacts
from checker.probes.artifact import gather_artifact
from checker.protocol import Job
from checker.registry import Method, all_methods

if TYPE_CHECKING:
    from checker.probes.load import Loaded

FULL_SCAN_WEIGHTS = 1_000_000_000  # up to here every block is read, beyond it a sample


@dataclass
class Subject:
    """One cell's checkpoint, baseline and model. Use as a context manager; ``get`` gives facts by type."""

    job: Job
    say: Callable[[str], None] = lambda _: None
    needs_roundtrip: bool = False
    blocked: str = ""  # why nothing may be loaded
    detail: str = ""  # the traceback of a load that failed
    _facts: dict[type, object] = field(default_factory=dict)
    _errors: dict[type, Unavailable | NotApplicable] = field(default_factory=dict)
    _begun: set[type] = field(default_factory=set)
    _open: list[Checkpoint] = field(default_factory=list)
    _kept: dict[str, Any] = field(default_factory=dict)

    def __enter__(self) -> Subject:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.free_model()
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
                raise Unavailable("not run: gathering its facts failed before (see the first check with that error)")
            self._begun.add(kind)
            try:
                self._facts[kind] = _GATHER[kind](self)
            except (Unavailable, NotApplicable) as error:
                self._errors[kind] = error
                raise
        return self._facts[kind]

    @cached_property
    def folder(self) -> Path:
        """The checkpoint's folder; a cell that is quantized here is quantized and saved first."""
        if self.job.checkpoint is not None:
            return Path(self.job.checkpoint)
        from checker.probes.quantize import quantize

        assert self.job.baseline is not None  # noqa: S101 - a cell has a checkpoint or a baseline
        self.say("quantizing the baseline")
        target = Path(self.job.scratch) / "checkpoint"
        return quantize(Path(self.job.baseline), self.job.cell, target, trust_remote_code=self.job.trust_remote_code)

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint's headers and mapped tensors."""
        checkpoint = open_checkpoint(self.folder, listed=self.job.hub_files)
        self._open.append(checkpoint)
        return checkpoint

    @cached_property
    def baseline(self) -> Checkpoint | None:
        """The full-precision checkpoint, if the cell has one."""
        if self.job.baseline is None:
            return None
        baseline = open_checkpoint(Path(self.job.baseline))
        self._open.append(baseline)
        if not baseline.tensors:
            reason = baseline.problems[0].message if baseline.problems else "it holds no safetensors file"
            raise Unavailable(f"the baseline {self.job.cell.baseline} cannot be read: {reason}")
        return baseline

    @property
    def method(self) -> Method | None:
        """The declared method, else the one whose tensors are stored."""
        artifact = self.get(ArtifactFacts)
        name = artifact.declared_method or artifact.stored_method
        return next((method for method in all_methods() if method.id == name), None)

    @cached_property
    def device(self) -> str:
        """The torch device of this cell."""
        from checker.probes.load import resolve_device

        return resolve_device(self.job.cell.settings.device)

    def model(self) -> Any:
        """The loaded model.

        Raises:
            Unavailable: it did not load, or must not be loaded; the message names the check that says more.
        """
        facts = self.get(LoadFacts)
        if facts.flaw:
            raise Unavailable("not run: the checkpoint does not load (see loading.keys)")
        return self._kept["model"]

    def load(self, folder: Path) -> Loaded:
        """Load a model from a folder onto this cell's device; its traceback, if any, is kept for the report."""
        from checker.probes.load import load_model

        trust = self.job.trust_remote_code
        loaded = load_model(folder, self.device, gpus=self.job.cell.settings.gpus, trust_remote_code=trust)
        self.detail = loaded.detail
        return loaded

    def free_model(self) -> None:
        """Drop the model and give its memory back before the next one is loaded."""
        if self._kept.pop("model", None) is None:
            return
        gc.collect()
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.empty_cache()


def _artifact(subject: Subject) -> ArtifactFacts:
    return gather_artifact(subject.checkpoint, subject.baseline)


def _weights(subject: Subject) -> WeightFacts:
    from checker.probes.weights import gather_weights

    mode = subject.job.cell.settings.weights
    artifact = subject.get(ArtifactFacts)
    method = next((method for method in all_methods() if method.id == artifact.stored_method), None)
    if mode == "off":
        raise NotApplicable("weights: off keeps the numbers from being read")
    if method is None:
        raise NotApplicable("no weight is stored in a known quantized form (see config.present)")
    packed = sum(subject.checkpoint.tensors[weight.weight].nbytes for weight in artifact.weights if weight.weight in
                 subject.checkpoint.tensors)  # fmt: skip
    count = packed * 8 // int(artifact.weights[0].attributes.get("bits", 8))
    sampled = mode == "sampled" or (mode == "auto" and count > FULL_SCAN_WEIGHTS)
    subject.say("reading a sample of the weights" if sampled else "reading all weights")
    return gather_weights(subject.checkpoint, subject.baseline, artifact, method, sampled=sampled)


def _load(subject: Subject) -> LoadFacts:
    from checker.probes.load import load_facts

    if subject.blocked:
        raise Unavailable(subject.blocked, ErrorKind.NOT_RUN)
    subject.say(f"loading on {subject.device}")
    loaded = subject.load(subject.folder)
    subject._kept["model"] = loaded.model  # noqa: SLF001 - the gatherers below are part of Subject
    return load_facts(loaded, subject.folder, subject.method, trust_remote_code=subject.job.trust_remote_code)


def _structure(subject: Subject) -> StructureFacts:
    from checker.probes import outputs, roundtrip, skeleton, structure

    artifact, method = subject.get(ArtifactFacts), subject.method
    if method is None or method.inspect_module is None:
        raise NotApplicable("no known method is declared whose modules could be inspected")
    model = subject.model()
    config = skeleton.read_config(subject.folder, trust_remote_code=subject.job.trust_remote_code)
    bones = skeleton.build_skeleton(
        config, method, artifact.quantization_config or {}, trust_remote_code=subject.job.trust_remote_code
    )
    if subject.needs_roundtrip:  # before any forward
        subject.say("saving again")
        target = Path(subject.job.scratch) / "saved-again"
        subject._kept["digests"] = roundtrip.digest_state(model)
        subject._kept["saved"] = roundtrip.try_save(model, target)
    subject._kept["inputs"] = outputs.probe_inputs(model, subject.folder)

    def forward() -> str:
        subject.say("first forward")
        try:
            subject._kept["logits"] = outputs.run_forward(model, subject._kept["inputs"])
        except Unavailable as error:
            subject._kept["forward error"] = error
            return str(error)
        return ""

    return structure.gather_structure(model, bones, artifact, method, subject.device, forward)


def _outputs(subject: Subject) -> OutputFacts:
    from checker.probes.outputs import gather_outputs

    subject.get(StructureFacts)
    if "forward error" in subject._kept:
        raise subject._kept["forward error"]
    prompts = subject.job.cell.settings.prompts
    subject.say("generating" if prompts else "judging logits")
    return gather_outputs(
        subject.model(), subject._kept["logits"], subject._kept["inputs"], subject.folder, prompts, subject.device
    )


def _roundtrip(subject: Subject) -> RoundtripFacts:
    from checker.probes import outputs, roundtrip

    subject.get(StructureFacts)
    saved: roundtrip.Saved = subject._kept["saved"]
    if saved.flaw:
        subject.detail = saved.detail
        return RoundtripFacts(flaw=saved.flaw)
    if "forward error" in subject._kept:
        raise subject._kept["forward error"]
    subject.free_model()
    subject.say("loading the saved copy")
    again = subject.load(saved.folder)
    if again.model is None:
        return RoundtripFacts(flaw=f"the saved copy does not load: {again.flaw}")
    digests = roundtrip.digest_state(again.model)
    logits = outputs.run_forward(again.model, subject._kept["inputs"])
    return roundtrip.compare(subject._kept["digests"], digests, (subject._kept["logits"], logits), saved.note)


_GATHER: dict[type, Callable[[Subject], object]] = {
    ArtifactFacts: _artifact,
    WeightFacts: _weights,
    LoadFacts: _load,
    StructureFacts: _structure,
    OutputFacts: _outputs,
    RoundtripFacts: _roundtrip,
}
