"""Checks and methods are found, not listed: a decorator fills a table, discovery imports the package that holds them.

A check is a pure generator from facts to findings. Its parameters say, by their types, which facts it reads; the
subject gathers just those. Its docstring is its documentation (``quant-verify explain ID``).
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from checker.config_values import Domain, did_you_mean, resembles
from checker.domain import Depth, Finding, Json, Limit, Measurement
from checker.errors import UsageError

Verdict = Iterator[Finding | Measurement]
CheckFunction = typing.TypeVar("CheckFunction", bound=Callable[..., Verdict])


@dataclass(frozen=True, slots=True)
class Limits:
    """The bars that hold for one check in one cell, already resolved (see ``resolve_limits``)."""

    values: Mapping[str, Limit]

    def __getitem__(self, metric: str) -> Limit:
        return self.values[metric]


@dataclass(frozen=True, slots=True)
class Need:
    """One parameter of a check: a facts type, or ``Limits``. Optional ones are None at a lesser depth."""

    kind: type
    optional: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """A registered check: its identity, what it needs, and the function that judges."""

    id: str
    depth: Depth
    function: Callable[..., Verdict]
    limits: Mapping[str, Limit]
    needs: tuple[Need, ...]  # in the order of the function's parameters
    opt_in: str | None  # the option that asks for it; None: it runs whenever its depth does
    guards_load: bool  # a failure means that loading could crash a kernel, so nothing is loaded

    @property
    def documentation(self) -> str:
        """The docstring, dedented."""
        return inspect.getdoc(self.function) or ""

    @property
    def summary(self) -> str:
        """The first line of the documentation."""
        return self.documentation.partition("\n")[0]


_CHECKS: dict[str, Check] = {}


def check(
    check_id: str,
    *,
    depth: Depth,
    limits: Mapping[str, Limit] | None = None,
    opt_in: str | None = None,
    guards_load: bool = False,
) -> Callable[[CheckFunction], CheckFunction]:
    """Register a check under its id (``family.name``). A second check of the same id is a programming error."""

    def register(function: CheckFunction) -> CheckFunction:
        if check_id in _CHECKS:
            raise ValueError(f"two checks are called {check_id}")
        hints = typing.get_type_hints(function)  # a parameter without a type is a KeyError here, at import
        needs = tuple(_need(hints[name]) for name in inspect.signature(function).parameters)
        _CHECKS[check_id] = Check(
            id=check_id,
            depth=depth,
            function=function,
            limits=limits or {},
            needs=needs,
            opt_in=opt_in,
            guards_load=guards_load,
        )
        return function

    return register


def _need(annotation: typing.Any) -> Need:
    members = [member for member in typing.get_args(annotation) if member is not type(None)]
    return Need(members[0], optional=True) if members else Need(annotation)


def all_checks() -> tuple[Check, ...]:
    """Every check of ``checker.checks``, cheapest depth first, then by id."""
    _import_package("checker.checks")
    return tuple(sorted(_CHECKS.values(), key=lambda item: (list(Depth).index(item.depth), item.id)))


def selected_checks(
    depth: Depth, select: Iterable[str], ignore: Iterable[str], opted: Iterable[str] = ()
) -> tuple[Check, ...]:
    """The checks of a depth that ``select`` (all, when empty) names and ``ignore`` does not; both are globs.

    A check that an option has to ask for runs only when ``opted`` holds that option.

    Raises:
        UsageError: a glob matches no check at all; the message offers the nearest id.
    """
    checks = all_checks()
    select, ignore = tuple(select), tuple(ignore)
    for glob in (*select, *ignore):
        if not any(fnmatchcase(item.id, glob) for item in checks):
            raise UsageError(f"no check is called {glob!r}{did_you_mean(glob, [item.id for item in checks])}")
    return tuple(
        item
        for item in checks
        if depth.includes(item.depth)
        and (item.opt_in is None or item.opt_in in opted)
        and (not select or any(fnmatchcase(item.id, glob) for glob in select))
        and not any(fnmatchcase(item.id, glob) for glob in ignore)
    )


def resolve_limits(item: Check, method_limits: Mapping[str, Limit], cell_limits: Mapping[str, Limit]) -> Limits:
    """The one place where limits resolve: cell (matrix, environment, command line) > method > check.

    ``method_limits`` and ``cell_limits`` are keyed by ``check.metric``. A bar that a higher source leaves out
    (``{fail: 0.9}`` alone) keeps the lower source's value.
    """
    resolved = {}
    for metric, default in item.limits.items():
        key = f"{item.id}.{metric}"
        sources = [source[key] for source in (cell_limits, method_limits) if key in source] + [default]
        resolved[metric] = Limit(
            warn=next((limit.warn for limit in sources if limit.warn is not None), None),
            fail=next((limit.fail for limit in sources if limit.fail is not None), None),
        )
    return Limits(resolved)


def config_flaws(method: Method, config: Mapping[str, Json]) -> list[tuple[str, str]]:
    """Every unknown key, value outside its domain, and contradiction of a ``quantization_config``: (key, message)."""
    flaws = []
    for key, value in config.items():
        if key not in method.keys:
            if method.open_keys and not resembles(key, method.keys):
                continue
            shown = key[:100] if key.isprintable() else ascii(key)[:100]
            near = did_you_mean(key, method.keys)
            flaws.append((key, f"{shown} is no key of {method.id}{near}; it would be ignored"))
        elif (wrong := method.keys[key](value)) is not None:
            flaws.append((key, f"{key} {wrong}"))
    return flaws + method.contradictions(config)


@dataclass(frozen=True, kw_only=True, slots=True)
class Intent:
    """What a config asks for one module. ``quantized`` None: the general rules decide (role, default skip list)."""

    quantized: bool | None = None
    open: bool = False  # dense or quantized, both are right
    reason: str = ""  # why it is kept dense, as the second half of "x is quantized although …"
    attributes: Mapping[str, Json] | None = None  # None: those that ``Method.declared`` gives for the whole model


Planner = Callable[[tuple[str, ...], str], Intent]
"""(a module's names: stored, then as transformers loads it; its role) → what the config asks for it."""

Unfit = Callable[[tuple[int, ...]], str]
"""(dense shape) → why a tool leaves such a weight dense; "" when it fits."""

LINEAR_ROLES = frozenset(["linear", "expert", "vision"])


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """One quantization method: what its config may say, how it stores a weight, how to read it back.

    The functions that are None are what the method cannot do; ``quant-verify methods`` shows them. Types of the
    functions' arguments: ``checker.facts``, ``checker.inventory``, ``checker.checkpoint`` and ``checker.coded``.
    """

    id: str
    quant_method: str  # as in config.json
    documentation: str
    keys: Mapping[str, Domain]  # every key the quantization_config may hold
    declares: Callable[[Mapping[str, Json]], bool]
    declared: Callable[[Mapping[str, Json]], dict[str, Json]]  # bits, quant_type, … as the config declares them
    recognise: Callable[..., typing.Any]  # Inventory -> tuple[StoredWeight, ...]
    layout: Callable[..., typing.Any]  # (dense tensor name, dense shape, attributes) -> tuple[ExpectedTensor, ...]
    skips: Callable[[Mapping[str, Json]], tuple[str, ...] | None]  # the config's skip list; None: the default list
    contradictions: Callable[[Mapping[str, Json]], list[tuple[str, str]]] = field(default=lambda _: [])  # key, message
    open_keys: bool = False  # the config may hold further keys (tools write their own there)
    planner: Callable[[Mapping[str, Json]], Planner] | None = None  # per-module settings; None: skips and roles decide
    unfit: Callable[[Mapping[str, Json]], Unfit] | None = None  # which shapes the tools leave dense
    entry_matches: Callable[[str, str], bool] | None = None  # (skip entry, module name); None: transformers' own rule
    listed: Callable[[Mapping[str, Json]], tuple[str, ...]] | None = None  # entries to count; None: those of ``skips``
    dense_in_any_float: bool = False  # its writer keeps what is skipped in a float type of its own
    own_names: bool = False  # tensors are named and shaped otherwise than the baseline's (GGUF)
    ties_quantized: bool = False  # a quantized embedding may serve as the output head
    roles: frozenset[str] = LINEAR_ROLES  # what is quantized unless the config says otherwise
    stored_dense: Callable[[Mapping[str, Json]], str] = field(default=lambda _: "")  # why no tensor need be packed
    activations: Callable[[Mapping[str, Json]], bool] = field(default=lambda _: False)  # quantized as well, when run
    decode: Callable[..., typing.Any] | None = None  # (Checkpoint, StoredWeight, Window | None) -> tuple of CodedWeight
    not_decoded: str = ""  # why there is no ``decode``
    rescales: bool = False  # calibration may scale columns and rows (AWQ, SmoothQuant): fit their gains first
    from_documentation: bool = False  # no tool could make a checkpoint to test the layout against
    inspect_module: Callable[..., LoadedWeight | None] | None = None  # of a torch module; None: not quantized
    config_class: str | None = None  # "transformers.BitsAndBytesConfig"
    quantizes_here: bool = False  # a baseline can be quantized at load time and saved
    limits: Mapping[str, Limit] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedWeight:
    """What a method finds in one loaded module that it quantized."""

    weight_dtype: str
    compute_dtype: str | None
    state: tuple[typing.Any, ...]  # tensors that are neither parameters nor buffers: absmax, code book, SCB


_METHODS: dict[str, Method] = {}


def register_method(method: Method) -> Method:
    """Add a method to the table; a second one of the same id is a programming error."""
    if method.id in _METHODS:
        raise ValueError(f"two methods are called {method.id}")
    _METHODS[method.id] = method
    return method


def all_methods() -> tuple[Method, ...]:
    """Every method of ``checker.methods``, by id."""
    _import_package("checker.methods")
    return tuple(sorted(_METHODS.values(), key=lambda item: item.id))


def method_declared(config: Mapping[str, Json]) -> Method | None:
    """The method that a ``quantization_config`` declares, or None when no known method does."""
    return next((method for method in all_methods() if method.declares(config)), None)


@functools.cache
def _import_package(name: str) -> None:
    package = importlib.import_module(name)
    for module in pkgutil.iter_modules(package.__path__):
        if not module.name.startswith("_"):  # those are imported by the ones that need them
            importlib.import_module(f"{name}.{module.name}")
