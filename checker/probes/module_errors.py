"""Every quantized module while the model runs, against its weight decoded from the file.

A file can be right and the model still compute something else: a kernel that misreads scales, memory that changed after
loading, a compute dtype that overflows. Hooks take each module's real input and output; a few of its output rows are
computed again in float32. Nothing is kept but sums, and only a few modules' rows are decoded ahead of the forward pass.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from checker.architecture import architecture_of
from checker.checkpoint import Checkpoint
from checker.errors import NotApplicable
from checker.facts import ArtifactFacts, Flaw, StoredWeight
from checker.facts.parts import ModuleErrorFact, ModuleErrorFacts
from checker.probes.decoded import UNDECODED, Decoded, decode_rows
from checker.probes.weights import undecodable
from checker.registry import Method

POSITIONS = 64  # of each module; a wrong weight shows at every one
AHEAD = 16  # modules decoded before they run: a few megabytes
MOST_THREADS = 8
CANCELLED = 0.25  # of what inputs and weights of random sign would give: smaller outputs are mostly rounding
NO_LIMIT = 1e12  # stands for an infinite ratio, which JSON cannot hold
EXPECTED = 1  # of the sums: ‖ŷ‖²
LONGEST = 300  # characters of a reason
NOT_RUN = "it did not run, or no position reached it"


def compare_modules(
    model: Any,
    checkpoint: Checkpoint,
    artifact: ArtifactFacts,
    method: Method,
    run: Callable[[], object],
    ready: Mapping[str, Decoded] | None = None,
) -> ModuleErrorFacts:
    """Call ``run``, which runs the model forward once, and compare each quantized module on the way.

    ``ready``: rows that were decoded before, by the name of their packed tensor; those of other weights are decoded
    while the model runs. Modules that cannot be compared are listed with the reason. Whatever ``run`` raises passes.

    Raises:
        NotApplicable: the method's weights cannot be decoded.
    """
    if method.decode is None:
        raise NotApplicable(method.not_decoded or f"weights of {method.id} cannot be decoded yet")
    found, left_out = _match(model, checkpoint, artifact)
    modules = [model.get_submodule(name) for name in found]
    watch = _Watch(list(found.values()), lambda weight: decode_rows(checkpoint, weight, method), ready or {})
    with watch.hooks(modules):
        run()
    errors, failed = watch.results()
    declared = method.activations(artifact.quantization_config or {})
    return ModuleErrorFacts(
        activations=declared and not all(map(_is_plain, modules)),
        positions=watch.positions,
        errors=tuple(errors),
        not_compared=(*left_out, *failed),
    )


def _match(
    model: Any, checkpoint: Checkpoint, artifact: ArtifactFacts
) -> tuple[dict[str, StoredWeight], tuple[Flaw, ...]]:
    """The loaded module of each stored weight, in the order of the model; and the weights that have none.

    transformers renames as it loads, and joins experts into one parameter that no module stands for.
    """
    architecture = architecture_of(checkpoint.config or {})
    modules = {name: number for number, (name, _) in enumerate(model.named_modules()) if name}
    found: dict[str, StoredWeight] = {}
    flaws = []
    for weight in artifact.weights:
        name = architecture.counterpart(weight.module, modules)
        reason = weight.incomparable or undecodable(weight, checkpoint)
        if name is None or name in found:
            reason = reason or "the loaded model has no module for it alone: it is joined with others as it is loaded"
        if reason or name is None:
            flaws.append(Flaw(where=weight.module, message=reason))
        else:
            found[name] = weight
    return {name: found[name] for name in sorted(found, key=modules.__getitem__)}, tuple(flaws)


def _is_plain(module: Any) -> bool:
    """Whether a module was unpacked into an ordinary layer as it was loaded: nothing in it can round activations."""
    import torch

    from checker.probes.skeleton import is_linear

    return is_linear(module) and "forward" not in vars(module) and type(module.weight.data) is torch.Tensor


class _Watch:
    """The hooks of one forward pass, and what they have summed up."""

    def __init__(
        self,
        weights: Sequence[StoredWeight],
        decode: Callable[[StoredWeight], Decoded],
        ready: Mapping[str, Decoded],
    ) -> None:
        self.positions = 0
        self._weights, self._decode, self._ready = weights, decode, ready
        self._sums: dict[int, Any] = {}  # number of the weight -> tensor of sums, where the module runs
        self._flaws: dict[int, str] = {}
        self._integers: dict[int, str] = {}
        self._ahead: dict[int, Future[Decoded]] = {}
        self._next = 0
        self._pool: ThreadPoolExecutor | None = None

    @contextmanager
    def hooks(self, modules: Sequence[Any]) -> Iterator[None]:
        """Watch these modules, one for each weight, in the order in which they most likely run."""
        handles = []
        with ThreadPoolExecutor(max_workers=min(MOST_THREADS, os.cpu_count() or 1)) as self._pool:
            try:
                for number, module in enumerate(modules):
                    handles.append(module.register_forward_hook(self._hook(number), with_kwargs=True))
                self._order(0)
                yield
            finally:
                for handle in handles:
                    handle.remove()
                for future in self._ahead.values():
                    future.cancel()

    def results(self) -> tuple[list[ModuleErrorFact], list[Flaw]]:
        """The errors in running order, and why some modules have none."""
        errors = []
        for number, sums in self._sums.items():
            values = sums.tolist()
            if math.isfinite(values[EXPECTED]):
                fact = _fact(self._weights[number].module, values)
                errors.append(replace(fact, integer=self._integers.get(number, "")))
            else:
                self._flaws[number] = "its input or its stored weight is not finite"
        rest = [number for number in range(len(self._weights)) if number not in self._sums or number in self._flaws]
        reasons = ((self._weights[number].module, self._flaws.get(number, NOT_RUN)) for number in rest)
        return errors, [Flaw(where=module, message=reason) for module, reason in reasons]

    def _hook(self, number: int) -> Callable[..., None]:
        def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if number in self._sums or number in self._flaws:  # called again: its first call was compared
                return
            try:
                self._compare(number, module, _first_tensor((*args, *kwargs.values())), _first_tensor(output))
            except NotApplicable as reason:
                self._flaws[number] = str(reason)
            except UNDECODED as fault:  # of the comparison: the model must not be blamed for it
                self._flaws[number] = f"the comparison failed ({type(fault).__name__}: {fault})"[:LONGEST]

        return hook

    def _compare(self, number: int, module: Any, inputs: Any, output: Any) -> None:
        """Sum up one module's first call.

        Raises:
            NotApplicable: its weight cannot be decoded, or what it was given does not fit its weight.
        """
        import torch

        shape = self._weights[number].shape
        if inputs is None or output is None or inputs.dtype in (torch.int64, torch.int32):
            raise NotApplicable("it looks values up instead of multiplying them")
        if any(True for _ in module.children()):
            raise NotApplicable("it does more than to multiply with its weight: it is made of further modules")
        features = (output.shape[-1], inputs.shape[-1])
        if shape != features:
            message = f"it turned {features[1]} values into {features[0]}; its stored weight is {list(shape or ())}"
            raise NotApplicable(message)
        x = inputs.reshape(-1, features[1])[:POSITIONS].to(output.device, torch.float32)
        y = output.reshape(-1, features[0])[:POSITIONS]
        if not x.shape[0]:  # an expert that no position was sent to
            return
        numbers, values = self._take(number)
        rows = torch.from_numpy(numbers).to(y.device)
        weight = torch.from_numpy(values).to(y.device)
        bias = _first_tensor(getattr(module, "bias", None))
        self._sums[number] = _sums(x, y[:, rows].float(), weight, None if bias is None else bias[rows].float())
        self.positions = max(self.positions, int(x.shape[0]))
        whole = [str(tensor.dtype) for tensor in (inputs, output) if not tensor.is_floating_point()]
        if whole:
            self._integers[number] = whole[0].removeprefix("torch.")

    def _take(self, number: int) -> Decoded:
        """The decoded rows of a weight; those that come after it are begun, those that were passed over dropped."""
        if (ready := self._ready.get(self._weights[number].weight)) is not None:
            return ready
        for passed in [other for other in self._ahead if other < number]:
            self._ahead.pop(passed).cancel()
        future = self._ahead.pop(number, None)
        self._order(number + 1)
        return future.result() if future is not None else self._decode(self._weights[number])

    def _order(self, first: int) -> None:
        """Begin the next few weights."""
        assert self._pool is not None
        stop = min(first + AHEAD, len(self._weights))
        for number in range(max(first, self._next), stop):
            if self._weights[number].weight not in self._ready:
                self._ahead[number] = self._pool.submit(self._decode, self._weights[number])
        self._next = max(self._next, stop)


def _first_tensor(value: Any) -> Any:
    """The first tensor of what a module takes or gives."""
    import torch

    values = value if isinstance(value, tuple | list) else (value,)
    return next((item for item in values if isinstance(item, torch.Tensor)), None)


def _sums(x: Any, y: Any, weight: Any, bias: Any) -> Any:
    """‖y−ŷ‖², ‖ŷ‖², ⟨y,ŷ⟩, and what ‖ŷ‖² would be with signs at random; a tensor [4] where the module runs.

    Shapes: ``x`` [positions, in], ``y`` [positions, rows], ``weight`` [rows, in], ``bias`` [rows] or None.
    """
    import torch

    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")  # TF32 would err as much as what is measured
    try:
        expected = x @ weight.T
    finally:
        torch.set_float32_matmul_precision(precision)
    if bias is not None:
        expected += bias
    usual = torch.dot(x.square().sum(0), weight.square().sum(0))
    difference = y - expected
    return torch.stack([difference.square().sum(), expected.square().sum(), (y * expected).sum(), usual])


def _fact(layer: str, sums: Sequence[float]) -> ModuleErrorFact:
    """Relative error and gain; outputs that cancel to almost nothing are judged by what they are the difference of."""
    error, expected, product, usual = sums
    scale = max(expected, CANCELLED**2 * usual)
    if not math.isfinite(error):
        return ModuleErrorFact(layer=layer, error=NO_LIMIT, gain=1.0)
    if not scale:
        return ModuleErrorFact(layer=layer, error=NO_LIMIT if error else 0.0, gain=1.0)
    gain = product / expected if expected == scale else 1.0
    return ModuleErrorFact(layer=layer, error=min(math.sqrt(error / scale), NO_LIMIT), gain=gain)
