"""config.json and generation_config.json against the corpus (rows G01 to G19, V02, V07)."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

import pytest

from checker.checkpoint import open_checkpoint
from checker.checkpoint.files import list_folder
from checker.checkpoint.json_file import CONFIG_LIMIT, read_json
from checker.domain import Severity

DEEP = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@dataclass(frozen=True)
class Row:
    raw: bytes
    says: str
    where: str = ""
    severity: Severity = Severity.FAIL
    readable: bool = False  # the object is there in spite of the problem


UNREADABLE = {
    "G01-empty": Row(b"", "is empty"),
    "G01-only-spaces": Row(b" \n", "is empty"),
    "G01-cut": Row(b'{"model_type": "lla', "not valid JSON"),
    "G03-byte-order-mark": Row(b"\xef\xbb\xbf{}", "byte-order mark"),
    "G03-utf16": Row('{"a": 1}'.encode("utf-16"), "UTF-16"),
    "G03-latin1": Row('{"a": "é"}'.encode("latin-1"), "not UTF-8"),
    "G03-lfs-pointer": Row(b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    "G05-list": Row(b"[]", "a list at its root"),
    "G05-string": Row(b'"config"', "a string at its root"),
    "G05-null": Row(b"null", "null at its root"),
    "G05-number": Row(b"1", "a number or a truth value at its root"),
    "G06-deep": Row(DEEP, "nested too deeply"),
    "G06-65-levels": Row(b'{"a":' + b"[" * 65 + b"]" * 65 + b"}", "more than 64 deep", "a" + ".0" * 64),
    "G06-5000-digits": Row(b'{"vocab_size":%s}' % (b"9" * 5_000), "5,000 digits"),
    "G06-surrogate": Row(b'{"model_type":"\\udc00"}', "surrogate"),
    "G06-many-values": Row(b'{"a":[%s1]}' % (b"1," * 2_000_001), "more than 2,000,000 values"),
}
READABLE = {
    "G07-nan": Row(b'{"rms_norm_eps": NaN}', "'rms_norm_eps' is nan", "rms_norm_eps"),
    "G08-infinity": Row(b'{"rope_scaling": {"theta": Infinity}}', "is inf", "rope_scaling.theta"),
    "G08-minus-infinity": Row(b'{"a": [1, -Infinity]}', "is -inf", "a.1"),
    "G08-overflow": Row(b'{"a": 1e999}', "is inf", "a"),
    "G09-duplicate": Row(b'{"num_hidden_layers": 3, "num_hidden_layers": 1}', "more than once", "num_hidden_layers"),
    "G09-duplicate-below": Row(b'{"q": {"bits": 4, "bits": 8}}', "'q.bits'", "q.bits"),
    "G12-100000-layers": Row(b'{"num_hidden_layers": 100000}', "between 1 and 10,000", "num_hidden_layers"),
    "G12-nested": Row(
        b'{"text_config": {"vocab_size": 1099511627776}}', "text_config.vocab_size is", "text_config.vocab_size"
    ),
    "G14-negative-vocabulary": Row(b'{"vocab_size": -1}', "vocab_size is -1", "vocab_size"),
    "G14-no-heads": Row(b'{"num_attention_heads": 0}', "num_attention_heads is 0", "num_attention_heads"),
    "G14-heads-a-string": Row(b'{"num_attention_heads": "8"}', "not a whole number", "num_attention_heads"),
    "G15-model-type-a-list": Row(b'{"model_type": ["llama"]}', "not a string", "model_type"),
    "G17-auto-map": Row(b'{"auto_map": {"AutoModel": "m.M"}}', "Python code", "auto_map", Severity.WARN),
    "G19-trust-remote-code": Row(b'{"trust_remote_code": true}', "trust_remote_code", "trust_remote_code"),
    "G19-trust-below": Row(b'{"a": [{"trust_remote_code": 1}]}', "trust_remote_code", "a.0.trust_remote_code"),
    "G20-attention-repository": Row(
        b'{"attn_implementation": "org/kernel"}', "names a repository", "attn_implementation"
    ),
    "G20-attention-internal": Row(
        b'{"_attn_implementation_internal": "org/kernel"}', "names a repository", "_attn_implementation_internal"
    ),
    "G20-attention-per-part": Row(
        b'{"_attn_implementation": {"text_config": "org/kernel"}}',
        "names a repository",
        "_attn_implementation.text_config",
    ),
    "G20-experts-repository": Row(
        b'{"text_config": {"_experts_implementation": "a/b"}}', "repository", "text_config._experts_implementation"
    ),
}


def read(folder, raw):
    (folder / "config.json").write_bytes(raw)
    return open_checkpoint(folder)


@pytest.mark.parametrize("row", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_an_unreadable_config_is_one_problem(row, tmp_path):
    checkpoint = read(tmp_path, row.raw)

    [problem] = [problem for problem in checkpoint.problems if problem.file == "config.json"]
    assert row.says in problem.message
    assert problem.where == row.where
    assert problem.severity is Severity.FAIL
    assert problem.hint
    assert checkpoint.config is None


@pytest.mark.parametrize("row", READABLE.values(), ids=READABLE.keys())
def test_a_deceptive_config_is_one_problem_naming_the_key(row, tmp_path):
    checkpoint = read(tmp_path, row.raw)

    [problem] = [problem for problem in checkpoint.problems if problem.file == "config.json"]
    assert row.says in problem.message
    assert problem.where == row.where
    assert problem.severity is row.severity
    assert problem.hint
    assert checkpoint.config is not None


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "llama", "attn_implementation": "sdpa", "_name_or_path": "org/name", "vocab_size": 32000},
        {"model_type": "gemma3n", "intermediate_size": [1, 2], "num_attention_heads": None, "hidden_size": [64, 32]},
        {"model_max_length": int(1e30), "text_config": {"num_hidden_layers": 128}},
    ],
    ids=["plain", "per-layer", "huge-but-usual"],
)
def test_a_usual_config_has_no_problem(config, tmp_path):
    problems = read(tmp_path, json.dumps(config).encode()).problems
    assert [problem for problem in problems if problem.file == "config.json"] == []


def test_the_infinity_that_mamba_publishes_is_no_problem(tmp_path):
    checkpoint = read(tmp_path, b'{"model_type": "mamba2", "time_step_limit": [0.0, Infinity]}')
    assert [problem for problem in checkpoint.problems if problem.file == "config.json"] == []


def test_duplicate_keys_keep_the_last_value_as_every_loader_does(tmp_path):
    assert read(tmp_path, b'{"a": 3, "a": 1}').config == {"a": 1}


def test_g02_config_is_missing(tmp_path):
    [problem] = [item for item in open_checkpoint(tmp_path).problems if item.file == "config.json"]
    assert "is missing" in problem.message


def test_g02_config_is_a_folder(tmp_path):
    (tmp_path / "config.json").mkdir()
    [problem] = [item for item in open_checkpoint(tmp_path).problems if item.file == "config.json"]
    assert "is a folder" in problem.message


def test_g04_a_config_of_a_gigabyte_is_not_read(tmp_path):
    with (tmp_path / "config.json").open("wb") as stream:
        stream.truncate(10**9)
    [problem] = [item for item in open_checkpoint(tmp_path).problems if item.file == "config.json"]
    assert f"more than {CONFIG_LIMIT:,} are not read" in problem.message


def test_a_config_that_links_outside_is_not_read(tmp_path):
    (tmp_path / "secret.json").write_text('{"password": 1}')
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").symlink_to(tmp_path / "secret.json")
    checkpoint = open_checkpoint(folder)
    assert checkpoint.config is None
    assert any("leaves the checkpoint" in problem.message for problem in checkpoint.problems)


def test_a_file_name_from_a_config_may_hold_anything(tmp_path):
    assert read_json(list_folder(tmp_path), "a\0b").value is None


def test_long_keys_do_not_cost_their_square(tmp_path):
    key = "k" * 4_000_000
    raw = json.dumps({key: ["/"] * 300_000 + [float("nan")] * 100_000}).encode()
    checkpoint = read(tmp_path, raw)
    problems = [problem for problem in checkpoint.problems if problem.file == "config.json"]
    assert len(problems) == 21
    assert all(len(problem.message) < 500 for problem in problems)


GENERATION = {
    "V07-cut": Row(b'{"max_new_tokens":', "not valid JSON"),
    "V07-list": Row(b"[]", "a list at its root"),
    "V07-endless": Row(b'{"max_new_tokens": 100000000}', "100,000,000", "max_new_tokens", Severity.WARN),
    "V07-trust": Row(b'{"trust_remote_code": true}', "trust_remote_code", "trust_remote_code"),
}


@pytest.mark.parametrize("row", GENERATION.values(), ids=GENERATION.keys())
def test_generation_config(row, tmp_path):
    (tmp_path / "generation_config.json").write_bytes(row.raw)
    [problem] = [item for item in open_checkpoint(tmp_path).problems if item.file == "generation_config.json"]
    assert row.says in problem.message
    assert (problem.where, problem.severity) == (row.where, row.severity)


TOKENIZERS = {
    "V02-empty": ("tokenizer.json", b"", "is empty"),
    "V02-cut": ("tokenizer.json", b'{"version": "1.0", "model": {"vocab"', "cut short"),
    "V02-text": ("tokenizer_config.json", b"Not Found", "not a JSON object"),
    "V02-pointer": ("tokenizer.model", b"version https://git-lfs.github.com/spec/v1\noid", "LFS pointer"),
}


@pytest.mark.parametrize(("name", "raw", "says"), TOKENIZERS.values(), ids=TOKENIZERS.keys())
def test_tokenizer(name, raw, says, tmp_path):
    (tmp_path / name).write_bytes(raw)
    [problem] = [item for item in open_checkpoint(tmp_path).problems if item.file == name]
    assert says in problem.message


def test_a_tokenizer_that_is_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "tokenizer.json")
    [problem] = [item for item in open_checkpoint(tmp_path).problems if item.file == "tokenizer.json"]
    assert "named pipe" in problem.message


def test_sound_tokenizer_files_are_no_problem(tmp_path):
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"}\n')
    (tmp_path / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>")
    (tmp_path / "generation_config.json").write_text('{"max_new_tokens": 512}')
    files = {item.file for item in open_checkpoint(tmp_path).problems}
    assert files == {"config.json", "model.safetensors"}
