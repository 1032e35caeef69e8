"""Chat templates: rendered as transformers renders them, and held to limits whatever they try."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from checker.probes.template import CPU_SECONDS, RENDERED_LIMIT, TEMPLATE_LIMIT, TemplateFault, render
from checker.probes.tokenizer import find_template

SOURCE = "chat_template.jinja"
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
CHATML = """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""
LLAMA_3 = """{%- set loop_messages = messages %}
{%- for message in loop_messages %}
    {%- set head = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' %}
    {%- set content = head + message['content'] | trim + '<|eot_id|>' %}
    {%- if loop.index0 == 0 %}
        {%- set content = bos_token + content %}
    {%- endif %}
    {{- content }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"""
LLAMA_31 = """{{- bos_token }}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- if tools is not none %}
    {{- "Environment: ipython\n" }}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}
        {{- message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {{- raise_exception("This model only supports single tool-calls at once!") }}
    {%- endif %}
{%- endfor %}"""
MISTRAL = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
        {{- raise_exception("After the optional system message, roles must alternate") }}
    {%- endif %}
    {%- set ns.index = ns.index + 1 %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {{- "[INST] " + message["content"] + "[/INST]" }}
    {%- else %}
        {{- " " + message["content"]|trim + eos_token }}
    {%- endif %}
{%- endfor %}
"""
GEMMA = """{{ bos_token }}
{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{% for message in messages %}
{% set role = 'model' if (message['role'] == 'assistant') else message['role'] %}
{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}
{% endfor %}
{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}
"""
ODD = """{% for m in messages %}{% generation %}{{ m | tojson }}{% endgeneration %}
  {% if loop.index > 3 %}{% break %}{% endif %}{{ dict(a=1).a }}{{ dict.fromkeys(['b'], 2) | tojson(indent=1) }}
{% endfor %}{{ tools }} {{ documents }} {{ unk_token }} {{ pad_token is defined }}"""
TEMPLATES = {
    "ChatML": CHATML,
    "Llama 3": LLAMA_3,
    "Llama 3.1, tools or none": LLAMA_31,
    "Mistral, a namespace": MISTRAL,
    "Gemma, blocks to trim": GEMMA,
    "what few templates use": ODD,
}


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@pytest.mark.parametrize("text", ["What is gold?", " <b>'ö' \"\n\n{{ 1 }} {% if %} \U0001f600 "], ids=["plain", "odd"])
def test_a_template_renders_as_transformers_renders_it(template, text):
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    turns = [[{"role": "user", "content": text}]]
    [expected], _ = utils.render_jinja_template(turns, chat_template=template, add_generation_prompt=True, **TOKENS)
    assert render(template, SOURCE, text, TOKENS) == expected
    assert text.strip() in expected.replace("\\n", "\n").replace('\\"', '"')


def test_the_day_is_always_the_same():
    assert render("{{ strftime_now('%d %b %Y %H') }}", SOURCE, "hi", {}) == "26 Jul 2024 00"


BROKEN = {
    "more text than is read": ("a" * (TEMPLATE_LIMIT + 1), "has 1,000,001 characters"),
    "a string of 10 GB": ("{{ 'a' * 10**10 }}", "needs more than 1,024 MiB"),
    "a string of 2 GB by a filter": ("{{ 'a' | center(2000000000) }}", "needs more than 1,024 MiB"),
    "a list that doubles": (
        "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "needs more than 1,024 MiB",
    ),
    "a range of 10^12": ("{% for i in range(10**12) %}{% endfor %}", "Range too big"),
    "a long text in many pieces": ("{% for i in range(90000) %}xxxxxxxx{% endfor %}", "more than 100,000 characters"),
    "a long text in one piece": ("{{ messages[0].content * 100001 }}", "more than 100,000 characters"),
    "an attribute of Python": ("{{ ''.__class__.__mro__ }}", "'__class__' of 'str' object is unsafe"),
    "the way to the system": ("{{ cycler.__init__.__globals__.os.system('id') }}", "is unsafe"),
    "an attribute that is stored": ("{% set n = namespace(__class__=1) %}", "may not store the attribute"),
    "a change of the messages": ("{{ messages.append(1) }}", "'append' of 'list' object is unsafe"),
    "what it raises itself": ("{{ raise_exception('no\nroles') }}", "does not render: no"),
    "no valid syntax": ("{% if %}", "Expected an expression, got 'end of statement block' (line 1)"),
    "an unknown name": ("{{ a.b.c }}", "'a' is undefined"),
    "a macro that calls itself": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "calls itself without end"),
    "brackets without end": ("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "nested too deeply"),
    "another file": ("{% include '/etc/passwd' %}", "no loader"),
    "a division by zero": ("{{ 1 / 0 }}", "ZeroDivisionError"),
    "half a character": ("{{ '\\ud800' }}", "surrogates not allowed"),
}


@pytest.mark.parametrize(("template", "says"), BROKEN.values(), ids=BROKEN)
def test_a_template_that_goes_wrong_is_told_in_one_sentence(template, says):
    with pytest.raises(TemplateFault) as caught:
        render(template, SOURCE, "x", TOKENS)
    message = str(caught.value)
    assert message.startswith(f"the chat template in {SOURCE} ")
    assert says in message
    assert len(message) <= 400
    assert "\n" not in message


def test_a_template_that_never_ends_is_ended():
    begin = time.monotonic()
    with pytest.raises(TemplateFault, match=f"does not render within {CPU_SECONDS} s of CPU time"):
        render("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", SOURCE, "x", {})
    assert time.monotonic() - begin < 50


def test_as_much_as_is_allowed_is_rendered():
    template = "x" * TEMPLATE_LIMIT
    with pytest.raises(TemplateFault, match="renders to more than"):
        render(template, SOURCE, "x", {})
    assert (
        render("{{ messages[0].content * 2 }}", SOURCE, "\U0001f600" * (RENDERED_LIMIT // 2), {})
        == "\U0001f600" * RENDERED_LIMIT
    )


def test_the_process_that_renders_sees_nothing_of_this_ones_environment(monkeypatch):
    monkeypatch.setenv("PYTHONSTARTUP", "/nonexistent")
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    assert render("{{ bos_token }}", SOURCE, "x", TOKENS) == "<s>"


def write(folder: Path, **files: object) -> Path:
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


FOUND = {
    "a file of its own": ({"chat_template__jinja": "A"}, ("chat_template.jinja", "A")),
    "the file before the key": (
        {"chat_template__jinja": "A", "tokenizer_config__json": {"chat_template": "B"}},
        ("chat_template.jinja", "A"),
    ),
    "a key": (
        {"tokenizer_config__json": {"chat_template": "B"}},
        ("tokenizer_config.json (key chat_template)", "B"),
    ),
    "one of several": (
        {
            "tokenizer_config__json": {
                "chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
            }
        },
        ("tokenizer_config.json (key chat_template)", "D"),
    ),
    "none for this": ({"tokenizer_config__json": {"chat_template": [{"name": "rag", "template": "T"}]}}, None),
    "none": ({"tokenizer_config__json": {}}, None),
    "no file at all": ({}, None),
}


@pytest.mark.parametrize(("files", "expected"), FOUND.values(), ids=FOUND)
def test_where_a_template_stands(files, expected, tmp_path):
    assert find_template(write(tmp_path, **files)) == expected


def test_a_template_that_cannot_be_read(tmp_path):
    write(tmp_path, tokenizer_config__json={"chat_template": 3})
    with pytest.raises(TemplateFault, match=r"tokenizer_config.json \(key chat_template\) is no text"):
        find_template(tmp_path)
    (tmp_path / SOURCE).write_bytes(b"\xff")
    with pytest.raises(TemplateFault, match="is not UTF-8"):
        find_template(tmp_path)
    (tmp_path / SOURCE).write_bytes(b"x" * 4_000_001)
    with pytest.raises(TemplateFault, match="has 4,000,001 bytes"):
        find_template(tmp_path)
    (tmp_path / SOURCE).unlink()
    (tmp_path / SOURCE).symlink_to("/etc/hostname")
    with pytest.raises(TemplateFault, match="leaves the checkpoint"):
        find_template(tmp_path)
