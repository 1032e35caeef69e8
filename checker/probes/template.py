"""Chat templates, which are programs of a stranger: rendered in a process of their own that can use up little.

The sandbox of jinja2 keeps a template from Python's insides, but not from looping for hours or from making a string of
gigabytes. ``python -P -m checker.probes.template`` reads one JSON request on standard input, takes limits upon itself,
renders as transformers does (utils/chat_template_utils.py) and writes one JSON answer.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from checker.domain import Json
from checker.errors import Unavailable

TEMPLATE_LIMIT = 1_000_000  # characters
RENDERED_LIMIT = 100_000  # characters
ANSWER_LIMIT = 2 << 20  # bytes of a file that the process may write: the answer, each character escaped
MEMORY_LIMIT = 1 << 30  # bytes of address space
CPU_SECONDS = 5
WALL_SECONDS = 60.0  # on a busy machine the CPU seconds take longer
TODAY = "2024-07-26"  # for every template that writes the date: a text must not depend on the day it was made
_TOO_LONG = f"renders to more than {RENDERED_LIMIT:,} characters"
_TOO_LARGE = f"needs more than {MEMORY_LIMIT >> 20:,} MiB of memory to render"
_TOO_SLOW = f"does not render within {CPU_SECONDS} s of CPU time"


class TemplateFault(Exception):
    """The checkpoint's chat template cannot be used; the message is one sentence that names the file."""


def render(template: str, source: str, text: str, special_tokens: Mapping[str, Json]) -> str:
    """A user's message as the template puts it to the model, the beginning of the answer included.

    ``source`` is the file, or the key of a file, that the template stands in. ``special_tokens`` are the template's
    variables ``bos_token``, ``eos_token`` and the like.

    Raises:
        TemplateFault: the template breaks a limit, is no valid template, or refuses the message.
        Unavailable: jinja2 is missing, or no process could be started.
    """
    if len(template) > TEMPLATE_LIMIT:
        raise _fault(source, f"has {len(template):,} characters; more than {TEMPLATE_LIMIT:,} are not read")
    request = {"template": template, "text": text, "special_tokens": dict(special_tokens), "today": TODAY}
    with tempfile.TemporaryFile() as answer:
        flaw = _run(json.dumps(request).encode(), answer.fileno())
        if flaw:
            raise _fault(source, flaw)
        answer.seek(0)
        said = _parse(answer.read(ANSWER_LIMIT))
    if said.get("missing"):
        raise Unavailable(f"a library is missing ({said['missing']}); pip install 'jinja2>=3.1.6' brings it")
    rendered = said.get("rendered")
    if not isinstance(rendered, str) or len(rendered) > RENDERED_LIMIT:
        raise _fault(source, str(said.get("flaw", "does not render")))
    return rendered


def _fault(source: str, flaw: str) -> TemplateFault:
    return TemplateFault(" ".join(f"the chat template in {source} {flaw}".split())[:400])  # it quotes the template


def _run(request: bytes, answer: int) -> str:
    """Let a process render; how it ended, if not well. It has nothing of this one's environment, nor its output."""
    root = str(Path(__file__).resolve().parent.parent.parent)
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-P", "-m", "checker.probes.template"]
    environment = {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"}
    try:
        done = subprocess.run(
            command,
            input=request,
            stdout=answer,
            stderr=subprocess.DEVNULL,
            env=environment,
            timeout=WALL_SECONDS,
            check=False,
            close_fds=True,
        )
    except subprocess.TimeoutExpired:
        return _TOO_SLOW
    except OSError as error:
        raise Unavailable(f"no process could be started to render a chat template: {error.strerror}") from error
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return _TOO_SLOW
    if done.returncode == -signal.SIGXFSZ:
        return _TOO_LONG
    return f"ends the process that renders it (status {done.returncode})" if done.returncode else ""


def _parse(raw: bytes) -> dict[str, Any]:
    """The answer, whatever a template that broke out may have written."""
    with contextlib.suppress(ValueError, RecursionError):
        said = json.loads(raw)
        if isinstance(said, dict):
            return said
    return {}


def main() -> None:
    """Answer the request on standard input."""
    request = json.loads(sys.stdin.buffer.read())
    try:
        from jinja2.exceptions import TemplateError
    except ImportError as error:
        sys.stdout.write(json.dumps({"missing": str(error)}))
        return
    _limit_this_process()
    try:
        answer = _rendered(_compile(request["template"], request["today"]), request)
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        answer = {"flaw": f"does not render: {_short(error)}{f' (line {line})' if line else ''}"}
    except MemoryError:
        answer = {"flaw": _TOO_LARGE}
    except RecursionError:
        answer = {"flaw": "is nested too deeply, or calls itself without end"}
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, SyntaxError, TypeError, ValueError) as error:
        answer = {"flaw": f"fails with {type(error).__name__}: {_short(error)}"}
    sys.stdout.write(json.dumps(answer))


def _rendered(template: Any, request: Mapping[str, Any]) -> dict[str, str]:
    """The text, or the flaw that it is too long; given up as soon as that is seen."""
    variables = {
        **request["special_tokens"],
        "messages": [{"role": "user", "content": request["text"]}],
        "tools": None,
        "documents": None,
        "add_generation_prompt": True,
    }
    pieces, length = [], 0
    for piece in template.generate(variables):
        length += len(piece)
        if length > RENDERED_LIMIT:
            return {"flaw": _TOO_LONG}
        pieces.append(piece)
    text = "".join(pieces)
    text.encode()  # half of a surrogate pair is no text
    return {"rendered": text}


def _short(error: Exception) -> str:
    """The first line of what an exception says; what it quotes may be long."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _limit_this_process() -> None:
    """No more than the limits above, no file beyond the answer, no further process, no core file."""
    import resource

    wanted = {
        resource.RLIMIT_AS: MEMORY_LIMIT,
        resource.RLIMIT_CPU: CPU_SECONDS,
        resource.RLIMIT_FSIZE: ANSWER_LIMIT,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: 0,
    }
    for kind, most in wanted.items():
        with contextlib.suppress(OSError, ValueError):  # macOS knows no limit on address space
            hard = resource.getrlimit(kind)[1]
            low = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(kind, (low, low))


def _compile(template: str, today: str) -> Any:
    """The template in transformers' environment: its filters, its globals, its tag, and nothing of Python's insides."""
    import jinja2.exceptions
    import jinja2.ext
    import jinja2.nodes
    import jinja2.sandbox

    def raise_exception(message: str) -> None:
        raise jinja2.exceptions.TemplateError(message)

    def strftime_now(form: str) -> str:
        return dt.datetime.fromisoformat(today).strftime(form)

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_generation_tag(), jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = strftime_now
    environment.globals["dict"] = _Dict()
    environment.globals["namespace"] = _namespace()
    return environment.from_string(template)


def _tojson(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    """Without the escapes for HTML that jinja2's own filter makes."""
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


class _Dict:
    """``dict`` for templates: called, and ``fromkeys``, but no type to climb from."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args, **kwargs)


def _namespace() -> type:
    """jinja2's namespace without attributes that begin with an underscore, which lead into Python's insides."""
    from jinja2.exceptions import SecurityError
    from jinja2.utils import Namespace

    def refuse(name: object) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise SecurityError(f"a template may not store the attribute {name!r}")

    class _Safe(Namespace):
        def __init__(*args: Any, **kwargs: Any) -> None:
            self, args = args[0], args[1:]
            attributes = dict(*args, **kwargs)
            for name in attributes:
                refuse(name)
            Namespace.__init__(self, attributes)

        def __setitem__(self, name: str, value: Any) -> None:
            refuse(name)
            Namespace.__setitem__(self, name, value)

    return _Safe


def _generation_tag() -> type:
    """``{% generation %}`` marks what the assistant said; it renders as what it holds."""
    import jinja2.nodes
    from jinja2.ext import Extension

    class _Tag(Extension):
        tags = {"generation"}  # noqa: RUF012 - as jinja2 wants it

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return jinja2.nodes.CallBlock(self.call_method("_render"), [], [], body).set_lineno(line)

        def _render(self, caller: Callable[[], str]) -> str:
            return caller()

    return _Tag


if __name__ == "__main__":
    main()
