"""Which files hold a checkpoint's weights: chosen as transformers chooses, and judged where it chooses silently."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from checker.checkpoint.files import Folder, Stream, is_pickle
from checker.checkpoint.gguf_files import choose_gguf, is_gguf
from checker.checkpoint.header import Header, TensorHeader, read_opened
from checker.checkpoint.index import INDEX, Index, compare, is_sound, read_index, refused_shards
from checker.checkpoint.problem import Problem, Refused, about, capped, quoted, shown
from checker.domain import Json, Severity

SINGLE = "model.safetensors"

_OTHER_LOADERS = ("consolidated*.safetensors", "adapter_*.safetensors")  # what no loader of transformers looks at
_CONVERT = "convert the weights to safetensors; a pickle can run code and is never opened"
_REBUILD = "write the checkpoint again with save_pretrained"


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """The tensors of all weights files; ``complete`` is False when something of them could not be read."""

    tensors: dict[str, TensorHeader]
    metadata: dict[str, str]
    problems: tuple[Problem, ...]
    complete: bool
    gguf: str = ""  # the first GGUF file, when the weights are of that format


@dataclass(frozen=True, kw_only=True, slots=True)
class _Choice:
    """The files a loader would read; ``complete`` is False when others belong to them."""

    files: tuple[str, ...]
    index: Index | None = None
    problems: tuple[Problem, ...] = ()
    complete: bool = True


def read_weights(
    folder: Folder, config: Mapping[str, Json] | None, listed: Collection[str] = (), named: str | None = None
) -> Weights:
    """Read the headers of the files that a loader would take, and say what is odd about the others.

    ``named``: the GGUF file that the user asked for, in a folder that may hold others.
    """
    choice = _choose(folder, config or {}, named)
    headers = dict(zip(choice.files, folder.each(lambda name: _header(folder, name), choice.files), strict=True))
    problems = [*choice.problems]
    problems += [problem for header in headers.values() for problem in header.problems]
    problems += capped(_repeated(headers), "more tensors in two files")
    if choice.index is not None:
        problems += compare(choice.index, headers)
    problems += capped(_unused(folder, choice), "more unused files") if named is None else ()
    problems += _other_formats(folder.names | {name for name in listed if "/" not in name}, choice)
    return Weights(
        tensors={name: tensor for header in headers.values() for name, tensor in header.tensors.items()},
        metadata={key: value for header in headers.values() for key, value in header.metadata.items()},
        problems=tuple(problems),
        complete=choice.complete and bool(headers) and all(is_sound(header) for header in headers.values()),
        gguf=next((name for name in choice.files if is_gguf(name)), ""),
    )


def _choose(folder: Folder, config: Mapping[str, Json], named: str | None) -> _Choice:
    loads_others = bool({SINGLE, INDEX} & folder.names) or "transformers_weights" in config
    if named is not None or (not loads_others and any(map(is_gguf, folder.names))):
        files, wrong = choose_gguf(folder.names, config, named)
        return _Choice(files=files, problems=wrong, complete=bool(files) and not wrong)
    explicit = config.get("transformers_weights")  # overrides every other rule of transformers
    if isinstance(explicit, str):
        return _explicit(folder, explicit)
    indexed = _indexed(folder, INDEX) if INDEX in folder.names else None
    if SINGLE not in folder.names:
        return indexed if indexed is not None else _unindexed(folder)
    if indexed is None or indexed.files == (SINGLE,):  # MLX writes an index that names the one file: harmless
        return _Choice(
            files=(SINGLE,), index=indexed.index if indexed else None, problems=indexed.problems if indexed else ()
        )
    others = f", not {len(indexed.files):,} files such as {shown(indexed.files[0])}" if indexed.files else ""
    message = f"{SINGLE} and an index are both present; {SINGLE} is loaded{others}"
    both = about(SINGLE)(message, hint="delete the one that is stale")
    return _Choice(files=(SINGLE,), problems=(both, *indexed.problems))


def _explicit(folder: Folder, name: str) -> _Choice:
    if name.endswith(".safetensors.index.json"):
        return _indexed(folder, name)
    if name.endswith(".safetensors"):
        return _Choice(files=(name,))
    message = f"transformers_weights names {quoted(name)}, which is not a safetensors file"
    problem = about("config.json")(message, where="transformers_weights", hint=_CONVERT)
    return _Choice(files=(), problems=(problem,), complete=False)


def _indexed(folder: Folder, name: str) -> _Choice:
    index = read_index(folder, name)
    if not index.weight_map:
        return _Choice(files=tuple(_candidates(folder)), problems=index.problems, complete=False)
    refused = refused_shards(folder, index)
    files = tuple(sorted({*index.weight_map.values()} - refused.keys()))
    problems = (*index.problems, *capped(refused.values(), "more refused shards"))
    return _Choice(files=files, index=index, problems=problems, complete=not refused)


def _unindexed(folder: Folder) -> _Choice:
    files = tuple(_candidates(folder))
    if not files:
        return _Choice(files=(), complete=False)
    if len(files) == 1:
        message = f"the only weights file is {shown(files[0])}; transformers looks for {SINGLE}"
        problem = about(files[0])(message, severity=Severity.WARN, hint=f"rename it to {SINGLE}")
    else:
        message = f"{len(files):,} safetensors files but neither {SINGLE} nor {INDEX}; transformers cannot load them"
        problem = about(INDEX)(message, hint=_REBUILD)
    return _Choice(files=files, problems=(problem,), complete=len(files) == 1)


def _candidates(folder: Folder) -> list[str]:
    stored = sorted(name for name in folder.names if name.endswith(".safetensors"))
    return [name for name in stored if not _for_another_loader(name)] or stored


def _for_another_loader(name: str) -> bool:
    return any(fnmatchcase(name, glob) for glob in _OTHER_LOADERS)


def _header(folder: Folder, name: str) -> Header:
    try:
        if is_gguf(name):
            from checker.checkpoint.gguf import parse_gguf

            with folder.open(name) as (stream, size):
                return parse_gguf(lambda begin, end: _cut(stream, begin, end), size, name)
        return read_opened(folder.open(name), name)
    except Refused as refused:
        return Header(tensors={}, metadata={}, problems=(refused.problem,))


def _cut(stream: Stream, begin: int, end: int) -> bytes:
    stream.seek(begin)
    return stream.read(end - begin)


def _repeated(headers: Mapping[str, Header]) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for file, header in headers.items():
        for name in header.tensors:
            if name in seen:
                message = f"tensor {quoted(name)} is stored in {shown(seen[name])} and in {shown(file)}"
                yield about(file)(message, where=name, hint=_REBUILD)
            seen[name] = file


def _unused(folder: Folder, choice: _Choice) -> Iterator[Problem]:
    for name in sorted(folder.names):
        if name.endswith(".safetensors") and name not in choice.files and not _for_another_loader(name):
            message = f"nothing refers to {shown(name)}; it is not loaded"
            yield about(name)(message, severity=Severity.WARN, hint="delete it, or add it to the index")


def _other_formats(names: Collection[str], choice: _Choice) -> Iterator[Problem]:
    pickles = sorted(name for name in names if is_pickle(name))
    more = f" and {len(pickles) - 1:,} more files" if len(pickles) > 1 else ""
    if choice.files or choice.problems:
        if pickles:
            message = f"{shown(pickles[0])}{more} may hold pickled code; it is never opened"
            hint = "delete them from the checkpoint; other loaders may open them, and a pickle can run code"
            yield about(pickles[0])(message, severity=Severity.WARN, hint=hint)
    elif pickles:
        yield about(pickles[0])(f"the only weights are pickles: {shown(pickles[0])}{more}", hint=_CONVERT)
    elif any(map(is_gguf, names)):  # listed on the Hub, but not downloaded
        first = min(filter(is_gguf, names))
        message = f"the only weights are GGUF ({shown(first)}), which are not downloaded to be loaded"
        yield about(first)(message, hint="judge them at depth static, or download one file and check that")
    else:
        hint = f"put {SINGLE}, or shards and {INDEX}, into the folder"
        yield about(SINGLE)("the checkpoint holds no safetensors file", hint=hint)
