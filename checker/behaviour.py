"""What a loaded model does: run over the probe text once, and further only as far as the checks ask."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checker.checkpoint import Checkpoint
from checker.errors import NotApplicable, Unavailable
from checker.facts import (
    ArtifactFacts,
    BlockFact,
    DivergenceFacts,
    KnownText,
    ModuleErrorFacts,
    OutputFacts,
    TextFacts,
    WeightFacts,
)
from checker.protocol import Job
from checker.reference import STAGES, Reference
from checker.registry import Method

if TYPE_CHECKING:
    from checker.probes.decoded import Decoded
    from checker.probes.divergence import RowDistance

NOT_RUN = "the forward pass fails (see outputs.finite)"
# whatever comparing single blocks may run into, of our own making or a library's
_UNLOCATED = (NotApplicable, Unavailable, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)
Settled = Callable[[DivergenceFacts], bool]


@dataclass(kw_only=True)
class Behaviour:
    """The outputs of one loaded model. ``model`` is None before it is loaded, and while its saved copy is read."""

    job: Job
    folder: Path
    checkpoint: Callable[[], Checkpoint]
    baseline: Callable[[], Checkpoint | None]
    method: Method | None
    device: str
    reference: Callable[[], Reference]  # raises NotApplicable, Unavailable
    known: Callable[[], tuple[KnownText, ...]]
    facts: Callable[[type], Any]
    decoded: Callable[[], Mapping[str, Decoded]]  # rows of weights, by the name of their packed tensor
    say: Callable[[str], None]
    model: Any = None
    logits: Any = None  # of the first row, [positions, vocabulary] float32 on the model's device
    finite: bool = True  # of the model's own output head
    error: Unavailable | None = None  # this machine's fault
    flaw: str = ""  # the model's
    drift: tuple[BlockFact, ...] = ()
    modules: ModuleErrorFacts | None = None
    _distances: list[RowDistance] = field(default_factory=list)

    @cached_property
    def rows(self) -> tuple[tuple[int, ...], ...]:
        """The probe text as token ids: the reference's, else by the checkpoint's own tokenizer."""
        from checker.probes.probe_tokens import probe_rows
        from checker.probes.tokenizer import load_tokenizer

        reference, words = self._reference(), int(self.model.config.get_text_config().vocab_size)
        rows = () if reference is None else tuple(row.tokens for row in reference.rows)
        if rows and max(map(max, rows)) < words:  # else it belongs to another model, which divergence says
            return rows
        return probe_rows(self.model, load_tokenizer(self.folder))

    def first_forward(self) -> str:
        """Run the first row once, with every quantized module and block watched; why it did not run, or ""."""
        from checker.probes.block_errors import drift, hidden_states
        from checker.probes.forward import ForwardFailed

        if self.logits is not None or self.flaw or self.error is not None:
            return self.flaw or str(self.error or "")
        self.say("first forward")
        reference = self._reference()
        try:
            if reference is not None and reference.hidden:
                positions = reference.summary.block_positions
                self.drift = drift(hidden_states(self.model, self._watch_modules, positions), reference.hidden)
            else:
                self._watch_modules()
        except Unavailable as error:
            self.error = error
            return str(error)
        except ForwardFailed as failure:
            self.flaw = str(failure)
        return self.flaw

    def need_logits(self) -> None:
        """Have the first row run.

        Raises:
            Unavailable: this machine cannot run it.
        """
        self.first_forward()
        if self.error is not None:
            raise self.error

    @property
    def scratch(self) -> Path:
        """Where large things lie while they are needed."""
        return Path(self.job.scratch)

    @cached_property
    def not_finite(self) -> int:
        """How many logits are NaN or infinite."""
        from checker.probes.forward import count_not_finite

        return count_not_finite(self.logits)

    def outputs(self) -> OutputFacts:
        """Whether the logits are finite, and if not, where they stop to be."""
        from checker.probes.outputs import first_not_finite

        self.need_logits()
        if self.flaw:
            return OutputFacts(flaw=self.flaw)
        count = self.not_finite
        bad = count or not self.finite
        where = first_not_finite(self.model, self.rows[0][:-1]) if bad else ""
        return OutputFacts(
            positions=int(self.logits.shape[0]), not_finite=count, first_not_finite=where, head_finite=self.finite
        )

    def module_errors(self) -> ModuleErrorFacts:
        """Each quantized module against its weight decoded from the file."""
        if self.method is None or self.method.decode is None:
            raise NotApplicable(f"weights of {self.method.id if self.method else 'an unknown method'} are not decoded")
        self._need_run()
        assert self.modules is not None
        return self.modules

    def divergence(self, settled: Settled, failing: Settled) -> DivergenceFacts:
        """The distance from the baseline, over as many positions as a verdict needs.

        Raises:
            NotApplicable: there is no baseline.
            Unavailable: its reference cannot be had, or the model's logits are not finite.
        """
        reference = self.reference()
        self._need_run()
        self._need_finite(reference)
        found = None
        for number in dict.fromkeys(min(stage, len(reference.rows)) for stage in STAGES):
            self._run_rows(reference, number)
            found = self._divergence(reference)
            if settled(found):
                break
        assert found is not None, "a reference has rows"
        return self._located(found) if failing(found) else found

    def texts(self) -> TextFacts:
        """What the model continues prompts with, beside what its baseline does."""
        from checker.probes.generation import DEFAULT_PROMPTS, Surroundings, gather_texts

        self._need_run()
        self._need_finite(None)
        reference, missing = None, ""
        try:
            reference = self.reference()
        except NotApplicable:
            pass  # without a baseline there is less to say
        except Unavailable as reason:
            missing = str(reason)
        self.say("continuing the prompts")
        prompts = self.job.cell.settings.prompts or DEFAULT_PROMPTS
        theirs = () if reference is None else reference.summary.continuations
        around = Surroundings(words=self._words(), device=self.device, scratch=self.scratch)
        found = gather_texts(self.model, around, prompts, theirs, self.known())
        if reference is None:
            return replace(found, unreferenced=missing, bits=self._weight_error()[1])
        parameters = reference.summary.parameters
        return replace(found, language=reference.models_text, parameters=parameters, bits=self._weight_error()[1])

    def _words(self) -> Path:
        """Where the tokenizer lies: with the checkpoint, else with the baseline that is at hand."""
        from checker.probes.tokenizer import has_tokenizer

        if not has_tokenizer(self.folder) and self.job.baseline is not None:
            return Path(self.job.baseline)
        return self.folder

    def _reference(self) -> Reference | None:
        try:
            return self.reference()
        except (NotApplicable, Unavailable):
            return None

    def _watch_modules(self) -> None:
        """The first row's forward; where weights can be decoded, every module is compared on its way."""
        from checker.probes.module_errors import compare_modules

        if self.method is None or self.method.decode is None:
            self._run_first()
            return
        artifact: ArtifactFacts = self.facts(ArtifactFacts)
        self.modules = compare_modules(
            self.model, self.checkpoint(), artifact, self.method, self._run_first, self.decoded()
        )

    def _run_first(self) -> None:
        from checker.probes.forward import run_first

        self.logits, self.finite = run_first(self.model, self.rows[0][:-1], self.scratch)

    def _need_run(self) -> None:
        self.need_logits()
        if self.flaw:
            raise Unavailable(NOT_RUN)

    def _need_finite(self, reference: Reference | None) -> None:
        if self.not_finite:
            raise Unavailable("logits are not finite (see outputs.finite)")
        if reference is not None and self.logits.shape[1] != reference.summary.vocabulary:
            have, want = self.logits.shape[1], reference.summary.vocabulary
            raise Unavailable(f"the model has {have:,} output tokens and its baseline {want:,}; is this its baseline?")

    def _run_rows(self, reference: Reference, count: int) -> None:
        from checker.probes.divergence import distance_of
        from checker.probes.forward import run_row
        from checker.probes.thrift import give_back

        for row in reference.rows[len(self._distances) : count]:
            logits = self.logits
            if self._distances:
                self.say(f"position {sum(len(part.kl) for part in self._distances)} of the probe text")
                logits, _ = run_row(self.model, row.tokens[:-1], self.scratch)
            self._distances.append(distance_of(logits, row))
        give_back()

    def _divergence(self, reference: Reference) -> DivergenceFacts:
        from checker.probes.divergence import ExplainedError, summarise

        nrmse, bits = self._weight_error()
        declared = self.facts(ArtifactFacts).quantization_config or {}
        error = ExplainedError(
            weights=nrmse,
            modules=None if self.modules is None else self.modules.root_mean_square,
            activations=self.method is not None and self.method.activations(declared),
            bits=bits,
        )
        return summarise(self._distances, reference, error=error, blocks=self.drift)

    def _weight_error(self) -> tuple[float | None, int | None]:
        """The relative error that scales and codes predict of quantized weights, and the bits of most.

        Layers that were left dense do not lower it: those that are sensitive are the ones left.
        """
        artifact: ArtifactFacts = self.facts(ArtifactFacts)
        counts = Counter(weight.attributes.get("bits") for weight in artifact.weights)
        common = counts.most_common(1)[0][0] if counts else None
        bits = common if isinstance(common, int) else None
        try:
            weights: WeightFacts = self.facts(WeightFacts)
        except (NotApplicable, Unavailable):
            return None, bits
        squares = [fact.nrmse**2 / fact.ratio for fact in weights.errors if not fact.flaw and fact.ratio > 0]
        if not squares:
            return None, bits
        return math.sqrt(sum(squares) / len(squares)), bits or weights.errors[0].bits

    def _located(self, found: DivergenceFacts) -> DivergenceFacts:
        """The same with the first block that departs, where the baseline's files are at hand."""
        from checker.probes.block_errors import compare_blocks, culprit

        baseline = self.baseline()
        if baseline is None or not baseline.folder.is_dir():
            return found
        self.say("comparing block by block")
        try:
            errors = dict(compare_blocks(self.model, baseline, self._run_again))
        except _UNLOCATED:
            return found  # the verdict stands without the place
        drifts = {row.block: row.drift for row in found.blocks}
        names = list(dict.fromkeys([*drifts, *errors]))
        rows = tuple(BlockFact(block=name, drift=drifts.get(name), error=errors.get(name)) for name in names)
        return replace(found, blocks=rows, culprit=culprit(rows))

    def _run_again(self) -> None:
        from checker.probes.forward import run_row

        run_row(self.model, self.rows[0][:-1], self.scratch)
