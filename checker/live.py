"""A cell's model in memory: loaded, looked at, saved again, and freed, each once and only when asked for."""

from __future__ import annotations

import gc
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checker.behaviour import Behaviour
from checker.errors import NotApplicable, Unavailable
from checker.facts import ArtifactFacts, LoadFacts, RoundtripFacts, StructureFacts
from checker.protocol import Job
from checker.registry import Method

if TYPE_CHECKING:
    from checker.probes.load import Loaded
    from checker.probes.roundtrip import Saved


SHARDS = 16  # of the saved copy


@dataclass(kw_only=True)
class LiveModel:
    """The model of one checkpoint. ``facts`` gives what was gathered before, and remembers what failed."""

    job: Job
    folder: Path
    method: Method | None
    device: str
    needs_roundtrip: bool
    facts: Callable[[type], Any]
    say: Callable[[str], None]
    behaviour: Behaviour
    detail: str = ""  # the traceback of a load that failed
    model: Any = None
    digests: dict[str, str] = field(default_factory=dict)
    saved: Saved | None = None
    ready: bool = False

    def load(self) -> LoadFacts:
        """Load the model; that it does not load is a fact."""
        from checker.probes.load import load_facts

        self.say(f"loading on {self.device}")
        loaded = self._load_from(self.folder)
        self.model = loaded.model
        return load_facts(loaded, self.folder, self.method, trust_remote_code=self.job.trust_remote_code)

    def structure(self) -> StructureFacts:
        """Look at the modules before and after the first forward.

        Raises:
            NotApplicable: modules of the method are not known.
        """
        from checker.probes import skeleton, structure

        artifact: ArtifactFacts = self.facts(ArtifactFacts)
        if self.method is None or self.method.inspect_module is None:
            raise NotApplicable(
                f"modules of {self.method.id if self.method else 'an unknown method'} are not inspected"
            )
        self._make_ready()
        trust = self.job.trust_remote_code
        config = skeleton.read_config(self.folder, trust_remote_code=trust)
        declared = artifact.quantization_config or {}
        bones = skeleton.build_skeleton(config, self.method, declared, trust_remote_code=trust)
        return structure.gather_structure(
            self.model, bones, artifact, self.method, self.device, self.behaviour.first_forward
        )

    def running(self) -> Behaviour:
        """The outputs of the model, which is loaded, looked at and saved again before its first forward."""
        self._look_around()
        return self.behaviour

    def roundtrip(self) -> RoundtripFacts:
        """What the copy that was saved before any forward loads to."""
        from checker.probes import forward, roundtrip

        self._look_around()
        saved = self.saved
        assert saved is not None, "this check is why the model was saved"
        if saved.flaw:
            self.detail = saved.detail
            return RoundtripFacts(flaw=saved.flaw)
        self.behaviour.need_logits()
        logits, tokens = self.behaviour.logits, self.behaviour.rows[0][:-1]
        self.free()
        self.say("loading the saved copy")
        again = self._load_from(saved.folder)
        threading.Thread(target=shutil.rmtree, args=(saved.folder, True)).start()  # gigabytes take a while to go
        if again.model is None:
            return RoundtripFacts(flaw=f"the saved copy does not load: {again.flaw}")
        digests = roundtrip.digest_state(again.model)
        second = None if logits is None else forward.run_first(again.model, tokens, Path(self.job.scratch))[0]
        return roundtrip.compare(self.digests, digests, (logits, second), saved.note)

    def free(self) -> None:
        """Drop the model and give its memory back before the next one is loaded."""
        from checker.probes.thrift import give_back

        if self.model is None:
            return
        self.model = self.behaviour.model = None
        gc.collect()
        give_back()
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.empty_cache()

    def _make_ready(self) -> None:
        """Load the model, and save it again where a check asks for that; once."""
        from checker.probes import roundtrip
        from checker.probes.thrift import give_back

        load: LoadFacts = self.facts(LoadFacts)
        if load.flaw:
            raise Unavailable("the checkpoint does not load (see loading.keys)")
        if self.ready:
            return
        if self.needs_roundtrip:  # before any forward
            self.say("saving again")
            with ThreadPoolExecutor(max_workers=1) as beside:  # both only read
                digests = beside.submit(roundtrip.digest_state, self.model)
                self.saved = roundtrip.try_save(self.model, Path(self.job.scratch) / "saved-again", shards=SHARDS)
                self.digests = digests.result()
            give_back()  # the copies of tensors that were written
        self.behaviour.model = self.model
        self.ready = True

    def _look_around(self) -> None:
        """The model loaded, and its modules looked at before and after the first forward where that can be done."""
        if self.method is not None and self.method.inspect_module is not None:
            self.facts(StructureFacts)
        else:
            self._make_ready()

    def _load_from(self, folder: Path) -> Loaded:
        """Load a model from a folder onto this cell's device; its traceback, if any, is kept for the report."""
        from checker.probes.load import load_model

        trust = self.job.trust_remote_code
        loaded = load_model(folder, self.device, gpus=self.job.cell.settings.gpus, trust_remote_code=trust)
        self.detail = loaded.detail
        return loaded
