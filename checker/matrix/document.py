"""The matrix file as pydantic models: what may stand where (design §6).

``python -m checker.matrix.document`` prints the JSON Schema, for editors.

Everything but ``baseline``, ``name`` and ``checkpoints`` may stand in ``defaults``, in a model or in an override, hence
the common base. Defaults shown here are those of ``checker.domain.Settings``; only keys that a file really sets
(``model_fields_set``) take part in the merging.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from checker.domain import Json
from checker.matrix.problems import shown


def _listed(value: Json) -> Json:
    """A single text is a list of one, as in GitHub's ``runs-on``."""
    return [value] if isinstance(value, str) else value


def _day(value: Json) -> Json:
    """A day in quotes is a day; the YAML reader has made one of it already when it had none."""
    try:
        return dt.date.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _checkpoints(value: Json) -> dict[str, str] | list[str]:
    entries = _listed(value)
    items = entries.values() if isinstance(entries, dict) else entries
    if not isinstance(entries, dict | list) or not all(isinstance(item, str) and item for item in items):
        raise PydanticCustomError("checkpoints", "must be a list of references or a mapping of names to references")
    return entries


def _one_or_more(value: Json) -> Json:
    """A single mapping of packages is an axis of one entry."""
    return [value] if isinstance(value, dict) else value


def _packages(value: Json) -> Json:
    if isinstance(value, dict):
        return value
    template = "must be a mapping of packages to versions, such as {bitsandbytes: 0.49.2}, not {value}"
    raise PydanticCustomError("libraries", template, {"value": shown(value)})


def _version(value: Json) -> Json:
    """The version as text: an unquoted 0.50 has become the number 0.5 before anybody could see its zero."""
    if isinstance(value, str):
        return value
    template = 'must be a version in quotes, such as "0.50": without them YAML reads {value}, which is no text'
    raise PydanticCustomError("library_version", template, {"value": shown(value)})


_TEXTS_SCHEMA = {"type": "array", "items": {"type": "string", "minLength": 1}}
_TEXT_SCHEMA = {"type": "string", "minLength": 1}
_REFERENCES_SCHEMA = {"type": "object", "additionalProperties": _TEXT_SCHEMA}
Text = Annotated[str, StringConstraints(min_length=1, pattern=r"\S")]
Texts = Annotated[list[Text], BeforeValidator(_listed), WithJsonSchema({"anyOf": [_TEXT_SCHEMA, _TEXTS_SCHEMA]})]
Checkpoints = Annotated[
    dict[str, str] | list[str],
    PlainValidator(_checkpoints),
    WithJsonSchema({"anyOf": [_TEXT_SCHEMA, _TEXTS_SCHEMA, _REFERENCES_SCHEMA]}),
]
_PACKAGES_SCHEMA = {"type": "object", "additionalProperties": _TEXT_SCHEMA, "maxProperties": 20}
Packages = Annotated[
    dict[str, Annotated[str, BeforeValidator(_version)]], BeforeValidator(_packages), Field(max_length=20)
]
Libraries = Annotated[
    list[Packages],
    Field(max_length=100),
    BeforeValidator(_one_or_more),
    WithJsonSchema({"anyOf": [_PACKAGES_SCHEMA, {"type": "array", "items": _PACKAGES_SCHEMA, "maxItems": 100}]}),
]
Bar = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Strict(BaseModel):
    """No unknown key, no conversion: ``"0.9"`` is no number and ``1`` no truth value."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class LimitEntry(_Strict):
    """The two bars of one metric."""

    warn: Bar | None = Field(default=None, description="from here on a warning")
    fail: Bar | None = Field(default=None, description="from here on a failure")

    @model_validator(mode="before")
    @classmethod
    def _says_something(cls, value: Json) -> Json:
        if isinstance(value, dict) and (not value or None in value.values()):
            raise PydanticCustomError(
                "limit", "give warn, fail, or both, each a number; leave out what is not to change"
            )
        return value


class PromptEntry(_Strict):
    """A text to continue, and the beginnings that count as known good."""

    text: Text
    chat: bool = Field(default=False, description="apply the chat template")
    max_new_tokens: int = Field(default=10, ge=1)
    accept: dict[str, Texts] = Field(default={}, description='accepted beginnings by device class; "*" is any')


class Common(_Strict):
    """What ``defaults``, a model and an override may all set."""

    quantizations: Texts = Field(default=[], description="names from the top-level quantizations, made of the baseline")
    libraries: Libraries = Field(
        default=[],
        description="each cell once for each entry, with these packages laid over the installed ones, at exact "
        "versions; {} is the installed ones alone",
    )
    depth: Literal["static", "load", "full"] = "full"
    timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=None, description="seconds per cell, downloads not counted; null: no limit"
    )
    device: Annotated[str, StringConstraints(pattern=r"^(auto|cpu|cuda(:[0-9]{1,3})?)$")] = "auto"
    gpus: int = Field(default=1, ge=0, le=1024)
    runs_on: Texts = Field(default=[], alias="runs-on", description="labels of the GitHub runner")
    select: Texts = Field(default=[], description="globs of check ids; empty: all of the depth")
    ignore: Texts = Field(default=[], description="globs of check ids to leave out")
    require: Texts = Field(default=[], description="globs of check ids that may not be skipped")
    limits: dict[str, LimitEntry] = Field(
        default={}, description="by check.metric, for example outputs.divergence.top1"
    )
    prompts: list[PromptEntry] = []
    trust_remote_code: bool = Field(default=False, description="needs --trust-remote-code on the command line as well")
    weights: Literal["auto", "sampled", "full", "off"] = "auto"


class ModelEntry(Common):
    """A model: a baseline to quantize, checkpoints that exist already, or both."""

    baseline: Text | None = Field(
        default=None, description="org/model@revision, or a folder starting with ./ ../ / or dir:"
    )
    name: Text | None = Field(default=None, description="first part of the cell ids; needed without a baseline")
    checkpoints: Checkpoints = Field(
        default=[], description="already quantized: references, named or a list; folders may be globs"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Json) -> Json:
        return {"baseline": value} if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> dict[str, Any]:
        """A text is short for a model with just that baseline."""
        return {"anyOf": [_TEXT_SCHEMA, handler(core_schema)]}


class OverrideEntry(Common):
    """Settings for the cells that a glob matches."""

    cells: Text


class WaiverEntry(_Strict):
    """A known finding, with a reason and an end."""

    cells: Text
    check: Text
    where: Text = "*"
    reason: Text
    until: Annotated[dt.date, BeforeValidator(_day)]


class Document(_Strict):
    """A whole matrix file."""

    version: Literal[1]
    quantizations: dict[str, dict[str, Any]] = Field(default={}, description="named once, each as in config.json")
    defaults: Common = Common()
    models: list[ModelEntry] = Field(min_length=1, max_length=2000)
    overrides: list[OverrideEntry] = Field(
        [], max_length=1000, description="later wins; one that matches nothing is an error"
    )
    exclude: Texts = Field(default=[], max_length=1000, description="globs of cell ids")
    waivers: list[WaiverEntry] = Field(default=[], max_length=1000)
    references: Text | None = Field(default=None, description="folder of recorded references, relative to this file")


def json_schema() -> dict[str, Any]:
    """The JSON Schema that is published for editors (``checker/data/matrix.schema.json``)."""
    schema = Document.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "quant-verify matrix"}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(json_schema(), indent=2) + "\n")
