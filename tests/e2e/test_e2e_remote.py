"""The command line over Hub repositories on a server of this machine; its log shows what was asked for."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import LOAD, STATIC, Done, check_reports, errors, quant_verify, read_report
from hub_server import COMMIT, TOKEN, Hub, Reply, failing
from models import NF4, Damaged, Zoo, damage, judge_files, save_quantized

from checker.checkpoint.network import VARIABLE, Network, Repository
from checker.domain import Cell, Depth, ModelRef, Settings
from checker.process import child_environment
from checker.protocol import JOB, Job
from checker.provision import RunOptions
from checker.runner import Runner

WEIGHTS = "model.safetensors"
NUMBERS = ("weights.codes", "weights.error", "weights.scales")


@pytest.fixture(scope="module")
def wide(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose weights are large enough to be sampled: 22 MB in 16 bit, and its quantization."""
    import torch
    import transformers

    root = tmp_path_factory.mktemp("wide")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=768, intermediate_size=1536, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4,
        vocab_size=160, tie_word_embeddings=False,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(root / "dense")
    save_quantized(root / "dense", root / "nf4", {**NF4, "bnb_4bit_use_double_quant": True})
    (root / "nf4" / "README.md").write_text("---\nbase_model: org/dense\nbase_model_relation: quantized\n---\n# It\n")
    return root


@pytest.fixture
def hub(wide: Path, tmp_path: Path) -> Iterator[Hub]:
    repositories = {name: tmp_path / "repositories" / name for name in ("dense", "nf4")}
    for name, path in repositories.items():
        shutil.copytree(wide / name, path)
    server = Hub({f"org/{name}": path for name, path in repositories.items()})
    with server.running():
        yield server


@pytest.fixture
def ask(hub: Hub, tmp_path: Path) -> Callable[..., Done]:
    """Run ``check`` against the server, with a cache of its own, reports in ``out``."""

    def run(*arguments: str, **extra: str) -> Done:
        extra = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")} | extra
        return quant_verify("check", *arguments, "--report-dir", "out", cwd=tmp_path, **extra)

    return run


def only_cell(tmp_path: Path) -> dict[str, Any]:
    [cell] = read_report(tmp_path / "out")["cells"]
    return cell


def outcomes(cell: dict[str, Any]) -> dict[str, str]:
    return {check["id"]: check["outcome"] for check in cell["checks"]}


def stored(hub: Hub, name: str) -> int:
    return (hub.repositories[name] / WEIGHTS).stat().st_size


def sent(hub: Hub, name: str) -> int:
    """Bytes of a repository's weights that went over the wire."""
    return sum(request.sent for request in hub.log if f"{name}/" in request.path and request.file == WEIGHTS)


def assert_never_whole(hub: Hub) -> None:
    """No weights were asked for but by ranges, and no range was more than a part of the file."""
    for request in hub.requests(WEIGHTS):
        assert request.range is not None
        assert request.sent < stored(hub, "org/dense") / 4
    assert {request.method for request in hub.log if request.file == WEIGHTS} <= {"GET"}


def test_structure_is_judged_from_the_headers(hub, ask, tmp_path):
    done = ask("org/nf4")
    assert done.code == 0, done
    cell = only_cell(tmp_path)
    assert cell["checkpoint"] == {"ref": "org/nf4", "revision": COMMIT}
    assert cell["method"] == "bitsandbytes-4bit"
    skipped = {check["id"]: check["skip_reason"] for check in cell["checks"] if check["outcome"] == "skip"}
    assert all("the numbers of a Hub repository are read only with a baseline" in skipped[name] for name in NUMBERS)
    assert_never_whole(hub)
    assert sent(hub, "org/nf4") < stored(hub, "org/nf4") / 10
    ranged = [request for request in hub.log if request.host == "storage"]
    assert cell["measurements"]["remote"] == {
        "requests": len(ranged),
        "bytes": sum(request.sent for request in ranged),
    }


def test_numbers_are_judged_from_samples_of_both(hub, ask, tmp_path):
    done = ask("org/nf4", "--baseline", "org/dense")
    assert done.code == 0, done
    cell = only_cell(tmp_path)
    assert {outcomes(cell)[name] for name in NUMBERS} == {"pass"}
    assert cell["baseline"] == {"ref": "org/dense", "revision": COMMIT}
    assert all(0.9 < row["R"] < 1.1 for row in cell["measurements"]["weights"])
    assert_never_whole(hub)
    assert sent(hub, "org/dense") < stored(hub, "org/dense") / 4
    assert sent(hub, "org/nf4") < stored(hub, "org/nf4") / 2


def test_a_local_checkpoint_against_a_baseline_on_the_hub(hub, ask, tmp_path):
    done = ask("./repositories/nf4", "--baseline", "org/dense")
    assert done.code == 0, done
    assert {outcomes(only_cell(tmp_path))[name] for name in NUMBERS} == {"pass"}
    assert_never_whole(hub)
    assert sent(hub, "org/dense") < stored(hub, "org/dense") / 4


def test_a_checkpoint_on_the_hub_against_a_local_baseline(hub, ask, tmp_path):
    done = ask("org/nf4", "--baseline", "./repositories/dense")
    assert done.code == 0, done
    assert {outcomes(only_cell(tmp_path))[name] for name in NUMBERS} == {"pass"}
    assert_never_whole(hub)


def test_the_model_card_names_the_baseline(hub, ask, tmp_path):
    done = ask("org/nf4", "--baseline", "auto", "--quiet")
    assert done.code == 0, done
    assert done.err == "quant-verify: baseline of org/nf4 by its model card: org/dense\n"
    assert only_cell(tmp_path)["baseline"]["ref"] == "org/dense"
    assert outcomes(only_cell(tmp_path))["weights.error"] == "pass"


@pytest.mark.parametrize(
    ("card", "says"),
    [
        (None, "org/nf4 has no model card (README.md)"),
        ("# No head\n", "names no base_model"),
        ("---\nbase_model: ../../etc\n---\n", "names no usable base_model"),
        ("---\nbase_model: org/dense\nbase_model_relation: finetune\n---\n", "calls it a finetune of 'org/dense'"),
    ],
)
def test_a_card_that_names_no_baseline_is_wrong_usage(hub, ask, tmp_path, card, says):
    path = tmp_path / "repositories/nf4/README.md"
    path.unlink() if card is None else path.write_text(card)
    done = ask("org/nf4", "--baseline", "auto")
    assert done.code == 2, done
    assert done.err.count("\n") == 1
    assert says in done.err


def drop_companion(damaged: Damaged) -> str:
    del damaged.tensors["model.layers.1.mlp.up_proj.weight.absmax"]
    return "layers.complete"


def swap_nibbles(damaged: Damaged) -> str:
    codes = damaged.u8("model.layers.0.self_attn.v_proj.weight")
    codes[:] = codes << 4 | codes >> 4
    return "weights.error"


def lie_about_the_type(damaged: Damaged) -> str:
    damaged.quantization["bnb_4bit_quant_type"] = "fp4"
    return "config.truthful"


@pytest.mark.parametrize("fault", [drop_companion, swap_nibbles, lie_about_the_type])
def test_faults_are_found_and_named_as_in_a_folder(hub, ask, wide, tmp_path, fault):
    with damage(wide / "nf4", tmp_path / "broken") as damaged:
        expected = fault(damaged)
    hub.repositories["org/broken"] = tmp_path / "broken"
    done = ask("org/broken", "--baseline", "org/dense")
    assert done.code == 1, done
    there = {check["id"]: check["findings"] for check in only_cell(tmp_path)["checks"]}
    here = judge_files(tmp_path / "broken", wide / "dense", weights="sampled").results
    assert there[expected]
    names = {name: [finding.where for finding in result.findings] for name, result in here.items()}
    assert {name: [finding["where"] for finding in findings] for name, findings in there.items()} == names


def test_full_weights_are_downloaded_once_and_used_from_the_cache(hub, ask, tmp_path):
    done = ask("org/nf4", "--weights", "full")
    assert done.code == 0, done
    assert outcomes(only_cell(tmp_path))["weights.scales"] == "pass"
    assert "remote" not in only_cell(tmp_path)["measurements"]
    assert sent(hub, "org/nf4") == stored(hub, "org/nf4")
    hub.clear()
    done = ask("org/nf4")
    assert done.code == 0, done
    assert outcomes(only_cell(tmp_path))["weights.scales"] == "pass", "what lies here costs nothing"
    assert sent(hub, "org/nf4") == 0
    assert ask("org/nf4", "--offline").code == 0


@pytest.mark.slow
def test_depth_load_downloads_the_snapshot(hub, ask, zoo, tmp_path):
    hub.repositories["org/tiny"] = zoo.quantized("llama", "nf4")
    done = ask("org/tiny", "--depth", "load", "--device", "cpu")
    assert done.code == 0, done
    check_reports(tmp_path / "out", {"tiny": LOAD})
    assert sent(hub, "org/tiny") == stored(hub, "org/tiny")
    assert [request.range for request in hub.requests(WEIGHTS) if request.host == "storage"] == [None]


def test_offline_nothing_is_asked_and_a_half_cache_is_no_verdict(hub, ask, tmp_path):
    assert ask("org/nf4").code == 0  # leaves config.json in the cache, and no weights
    hub.clear()
    for arguments, variables in ((["--offline"], {}), ([], {"HF_HUB_OFFLINE": "1"})):
        done = ask("org/nf4", *arguments, **variables)
        assert done.code == 3, done
        reasons = errors(check_reports(tmp_path / "out", {"nf4": STATIC}), "nf4")
        assert {reason["kind"] for reason in reasons.values()} == {"network"}
        assert all("is not, or not wholly, in the local cache" in reason["message"] for reason in reasons.values())
    assert hub.log == []


class TestFailures:
    """Each is one sentence in the report, of the right kind, and exit code 3; infrastructure gets two attempts."""

    def failed(self, done: Done, tmp_path: Path) -> tuple[str, str, int]:
        assert done.code == 3, done
        report = check_reports(tmp_path / "out", {"nf4": STATIC})
        reasons = errors(report, "nf4").values()
        assert len(reasons) == STATIC
        message = next(reason["message"] for reason in reasons)
        assert message.isprintable()
        return next(reason["kind"] for reason in reasons), message, report["cells"][0]["attempts"]

    def test_no_such_repository(self, hub, ask, tmp_path):
        del hub.repositories["org/nf4"]
        kind, message, attempts = self.failed(ask("org/nf4"), tmp_path)
        assert (kind, attempts) == ("gated", 1)
        assert message.startswith("org/nf4 does not exist, or is private")

    def test_gated(self, hub, ask, tmp_path):
        headers = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model org/nf4 is restricted"}
        hub.rules.append(failing(WEIGHTS, Reply(status=401, headers=headers)))
        kind, message, attempts = self.failed(ask("org/nf4"), tmp_path)
        assert (kind, attempts) == ("gated", 1)
        assert "accept its licence" in message

    def test_private_needs_the_token_and_it_stays_on_the_hub(self, hub, ask, tmp_path):
        hub.private = True
        assert self.failed(ask("org/nf4"), tmp_path)[0] == "gated"
        hub.clear()
        assert ask("org/nf4", "--baseline", "org/dense", HF_TOKEN=TOKEN).code == 0
        assert {request.token for request in hub.log if request.host == "storage"} == {None}
        assert hub.requests(WEIGHTS)[0].token == f"Bearer {TOKEN}"

    def test_errors_of_the_server(self, hub, ask, tmp_path):
        hub.rules.append(failing("/signed/", Reply(status=500, headers={"Retry-After": "0"})))
        kind, message, attempts = self.failed(ask("org/nf4"), tmp_path)
        assert (kind, attempts) == ("network", 2)
        assert "(HTTP 500), also after 5 attempts" in message

    def test_a_limited_rate_is_waited_for(self, hub, ask):
        hub.rules.append(failing("/signed/", Reply(status=429, headers={"Retry-After": "1"}), times=1))
        assert ask("org/nf4").code == 0

    def test_a_cut_connection_is_taken_up_again(self, hub, ask):
        hub.rules.append(failing("/signed/", Reply(cut_after=1000), times=2))
        assert ask("org/nf4", "--baseline", "org/dense").code == 0

    def test_the_deadline(self, hub, ask, tmp_path):
        hub.rules.append(lambda host, path, before: Reply(wait=60) if host == "storage" else None)
        begin = time.monotonic()
        kind, message, attempts = self.failed(ask("org/nf4", **{VARIABLE: "3"}), tmp_path)
        assert time.monotonic() - begin < 30
        assert (kind, attempts) == ("timeout", 1)
        assert "could not be read from the Hub within 3 s" in message

    def test_a_server_that_ignores_ranges(self, hub, ask, tmp_path):
        with (hub.repositories["org/nf4"] / WEIGHTS).open("ab") as file:
            file.truncate(1 << 30)  # a gigabyte of nothing
        hub.rules.append(failing(WEIGHTS, Reply(ignores_range=True)))
        kind, message, _ = self.failed(ask("org/nf4"), tmp_path)
        assert kind == "network"
        assert "the server ignores ranges and would send all 1,073,741,824 bytes" in message
        assert sent(hub, "org/nf4") < 1 << 26

    def test_a_baseline_that_does_not_come(self, hub, ask, tmp_path):
        hub.rules.append(failing("/signed/org/dense", Reply(status=503, headers={"Retry-After": "0"})))
        _, message, _ = self.failed(ask("org/nf4", "--baseline", "org/dense"), tmp_path)
        assert message.startswith("org/dense: model.safetensors could not be read")


class TestWorker:
    """What the worker of a remote cell is given, and that no other is given it."""

    NETWORK = Network(seconds=9.0, until=time.monotonic() + 9, token=TOKEN)

    def test_its_environment_is_online_but_holds_no_token(self, monkeypatch):
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        online, offline = child_environment(online=True), child_environment()
        assert TOKEN not in {*online.values(), *offline.values()}
        assert (online["HF_HUB_OFFLINE"], offline["HF_HUB_OFFLINE"]) == ("0", "1")
        assert online["HF_HUB_DISABLE_IMPLICIT_TOKEN"] == "1"

    def test_the_job_carries_the_token_and_shows_it_nowhere(self):
        ref = ModelRef(kind="hub", name="org/nf4")
        repository = Repository(ref=ref, commit=COMMIT, sizes={"a": 1})
        job = Job(
            cell=Cell(id="a", checkpoint=ref), checks=(), baseline=None, checkpoint="./x", scratch="./y",
            checkpoint_repository=repository, network=self.NETWORK,
        )  # fmt: skip
        assert JOB.validate_json(JOB.dump_json(job)) == job
        assert TOKEN not in repr(job)

    @pytest.mark.parametrize(
        ("settings", "options", "expected"),
        [
            ({}, {}, True),
            ({"weights": "sampled"}, {}, True),
            ({"weights": "full"}, {}, False),
            ({"depth": Depth.LOAD}, {}, False),
            ({"depth": Depth.FULL}, {}, False),
            ({}, {"offline": True}, False),
            ({"trust_remote_code": True}, {"trust_remote_code": True}, False),
            ({"trust_remote_code": True}, {}, True),
        ],
    )
    def test_when_ranges_are_read(self, settings, options, expected):
        cell = Cell(
            id="a",
            checkpoint=ModelRef(kind="hub", name="org/x"),
            settings=Settings(**{"depth": Depth.STATIC, **settings}),
        )
        assert Runner([], RunOptions(**options))._provision._reads_ranges(cell) is expected

    def test_folders_need_no_network(self):
        cell = Cell(id="a", checkpoint=ModelRef(kind="folder", name="./x"), settings=Settings(depth=Depth.STATIC))
        assert not Runner([], RunOptions())._provision._reads_ranges(cell)

    def test_the_report_holds_no_token(self, hub, ask, tmp_path):
        hub.private = True
        done = ask("org/nf4", "--format", "json", "--verbose", HF_TOKEN=TOKEN)
        assert done.code == 0
        assert TOKEN not in done.out + done.err + json.dumps(read_report(tmp_path / "out"))
