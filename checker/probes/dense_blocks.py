"""Single blocks of a baseline, built without the rest of it and filled from its file."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from checker.checkpoint import Checkpoint
from checker.errors import NotApplicable
from checker.probes.conversion import Conversion, Placement
from checker.probes.load import one_line
from checker.probes.skeleton import model_dtype

DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}


class DenseBlocks:
    """The blocks of a quantized model's baseline: its class on the meta device, and where its tensors lie."""

    def __init__(self, model: Any, baseline: Checkpoint) -> None:
        """Build the baseline's modules without data, of the class that the loaded model has.

        Raises:
            NotApplicable: its config does not fit that class, or transformers does not tell how it renames tensors.
        """
        self._baseline = baseline
        self._skeleton = _skeleton(model, baseline)
        self._conversion = Conversion(self._skeleton)
        self._placement: Placement = self._conversion.place(baseline.tensors)

    def run(self, name: str, quantized: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, Any]:
        """Run the baseline's block on what the quantized one is about to get: (its input, its output).

        Raises:
            NotApplicable: the block cannot be built or filled, or does not take this input.
        """
        import torch

        block = self._block(name, quantized, _first(args, kwargs))
        with torch.no_grad():
            own = [_copied(value) for value in args]
            named = {key: _copied(value) for key, value in kwargs.items()}
            entered = _first(args, kwargs).clone()
            try:
                return entered, block(*own, **named)
            except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
                raise NotApplicable(f"the baseline's {name} does not run on this input: {one_line(error)}") from error

    def _block(self, name: str, quantized: Any, stream: Any) -> Any:
        """A block with its parameters, on the device of its input and in the dtypes of the quantized model."""
        try:
            block = deepcopy(self._skeleton.get_submodule(name)).eval()
        except AttributeError as error:
            raise NotApplicable(f"the baseline has no {name}") from error
        present = {key: tensor for key, tensor in quantized.named_parameters() if tensor.is_floating_point()}
        state = {}
        for key, tensor in block.state_dict().items():
            ours = present.get(key)
            dtype = ours.dtype if ours is not None and ours.shape == tensor.shape else stream.dtype
            found = self._tensor(f"{name}.{key}")
            if found.shape != tensor.shape:
                message = f"{name}.{key} has shape {list(found.shape)} in the baseline instead of {list(tensor.shape)}"
                raise NotApplicable(message)
            state[key] = found.to(stream.device, dtype)
        block.load_state_dict(state, assign=True)
        buffers = dict(quantized.named_buffers())
        for key, tensor in block.named_buffers():  # those that no file holds
            if tensor.is_meta:
                owner, _, last = key.rpartition(".")
                if key not in buffers or buffers[key].shape != tensor.shape:
                    raise NotApplicable(f"{name}.{key} is in no file")
                setattr(block.get_submodule(owner), last, buffers[key])
        return block

    def _tensor(self, parameter: str) -> Any:
        """A parameter of the baseline, read from its file; joined or split where loading does that."""
        sources = self._placement.sources.get(parameter)
        if not sources:
            raise NotApplicable(f"no tensor of the baseline's files becomes {parameter}")
        if "" in sources.values():
            return self._stored(next(iter(sources)))
        made = self._conversion.convert_tensors(parameter, sources, {name: self._stored(name) for name in sources})
        if parameter not in made:
            raise NotApplicable(f"the baseline's {parameter} cannot be made of {', '.join(sources)}"[:300])
        return made[parameter]

    def _stored(self, name: str) -> Any:
        import torch

        header = self._baseline.tensors[name]
        if header.dtype not in DTYPES:
            raise NotApplicable(f"the baseline stores {name} as {header.dtype}: it is no full-precision model")
        data = torch.from_numpy(self._baseline.read(name).copy())  # the file is mapped read-only
        return data.view(getattr(torch, DTYPES[header.dtype])).reshape(header.shape)


def _skeleton(model: Any, baseline: Checkpoint) -> Any:
    import torch

    previous = torch.get_default_dtype()
    try:
        config = type(model.config).from_pretrained(baseline.folder, local_files_only=True)
        config._attn_implementation = model.config._attn_implementation  # noqa: SLF001 - masks are made for it
        torch.set_default_dtype(model_dtype(config))
        with torch.device("meta"):
            return type(model)(config)
    except (AttributeError, ImportError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise NotApplicable(f"the baseline's modules cannot be built: {one_line(error)}") from error
    finally:
        torch.set_default_dtype(previous)


def _first(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The residual stream that goes into a block.

    Raises:
        NotApplicable: there is none.
    """
    import torch

    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.Tensor) and value.is_floating_point() and value.dim() > 1:
            return value
    raise NotApplicable("a block takes no residual stream")


def _copied(value: Any) -> Any:
    """A tensor of its own, in case the block works in place."""
    import torch

    return value.clone() if isinstance(value, torch.Tensor) else value
