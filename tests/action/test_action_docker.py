"""The one line of docker: what stands in it, what does not, and what the container gets to see."""

from __future__ import annotations

import json
import os
import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
from launcher import IMAGE, Machine

RUN = {"checkpoint": "./model", "runtime": "docker", "image": IMAGE}
HAS_NVIDIA = Path("/dev/nvidiactl").exists()


def line(machine: Machine, word: str = "action") -> list[str]:
    """The one call of ``docker run``, with the name of the temporary folder made constant."""
    (call,) = [call for call in machine.calls() if call[-1] == word]
    return [re.sub(r"(/quant-verify)\.\w{6}\b", r"\1.XXXXXX", part) for part in call]


def after(words: list[str], option: str) -> list[str]:
    """Every value of an option."""
    return [value for name, value in pairwise(words) if name == option]


def test_the_whole_line(with_docker: Machine):
    done = with_docker.run(RUN, HF_TOKEN="hf_secret", HF_HUB_OFFLINE="", https_proxy="http://user:pass@proxy:1")
    assert done.code == 0, done.log
    temp, home, workspace = with_docker.temp, with_docker.home, with_docker.workspace
    assert line(with_docker) == [
        "run", "--rm", "--init", "--shm-size", "1g", "--user", f"{os.getuid()}:{os.getgid()}", "--cap-drop", "ALL",
        "--security-opt", "no-new-privileges", "--read-only", "--tmpfs", "/tmp", "--workdir", str(workspace),
        "--env", f"HOME={temp}/quant-verify.XXXXXX/home", "--env", f"TMPDIR={temp}/quant-verify.XXXXXX/tmp",
        "--env", "USER=quant-verify",
        "--volume", f"{workspace}:{workspace}", "--volume", f"{temp}:{temp}",
        "--tmpfs", f"{temp}/_runner_file_commands:ro,size=64k",
        "--volume", f"{home}/.cache/huggingface:{home}/.cache/huggingface",
        "--volume", f"{home}/.cache/quant-verify:{home}/.cache/quant-verify",
        *([] if HAS_NVIDIA else ["--env", "NVIDIA_VISIBLE_DEVICES=void"]),
        "--env", "CI", "--env", "GITHUB_ACTIONS", "--env", "GITHUB_STEP_SUMMARY", "--env", "GITHUB_WORKSPACE",
        "--env", "HF_HOME", "--env", "HF_TOKEN", "--env", "QUANT_VERIFY_CACHE", "--env", "QUANT_VERIFY_CHECKPOINT",
        "--env", "QUANT_VERIFY_IMAGE", "--env", "QUANT_VERIFY_OUTPUTS", "--env", "QUANT_VERIFY_RUNTIME",
        "--env", "RUNNER_TEMP", "--env", "https_proxy",
        IMAGE, "action",
    ]  # fmt: skip
    assert with_docker.contained()["HF_TOKEN"] == "hf_secret"
    assert done.outputs["passed"] == "1"
    assert "quant-verify: passed" in done.summary


def test_the_image_is_fetched_when_it_is_absent(with_docker: Machine):
    (with_docker.notes / "present").unlink()
    assert with_docker.run(RUN).code == 0
    assert with_docker.calls("pull") == [["pull", IMAGE]]
    with_docker.run(RUN)
    (with_docker.notes / "code-pull").write_text("1")
    done = with_docker.run(RUN)
    assert (done.code, done.outputs["verdict"]) == (3, "unverified")
    assert f"the image {IMAGE} could not be pulled" in done.error


@pytest.mark.parametrize(
    ("given", "visible", "device", "options"),
    [
        ("", None, False, None),
        ("auto", "", True, ["all"]),
        ("auto", "all", False, ["all"]),
        ("auto", "void", True, None),
        ("auto", "none", True, None),
        ("auto", "0,2", True, ['"device=0,2"']),
        ("auto", "GPU-8f2a", True, ['"device=GPU-8f2a"']),
        ("all", "void", False, ["all"]),
        ("none", "all", True, None),
        ("2", None, False, ['"device=1,3"']),
        ("1", "all", False, ['"device=1"']),
        ("1", "2,3", True, ['"device=2"']),
        ("2", "GPU-a,GPU-b,GPU-c", True, ['"device=GPU-a,GPU-b"']),
        ("all", "2,3", True, ['"device=2,3"']),
        ("0,1", "2,3", True, ['"device=0,1"']),
        ("0,1", None, False, ['"device=0,1"']),
        ("0, 1", None, False, ['"device=0,1"']),
        ("device=0", None, False, ['"device=0"']),
        ("GPU-8f2a-1", None, False, ['"device=GPU-8f2a-1"']),
        ("MIG-1,MIG-2", None, False, ['"device=MIG-1,MIG-2"']),
    ],
)
def test_gpus(with_docker: Machine, given, visible, device, options):
    if device:
        with_docker.has_gpus()
    elif given == "" and HAS_NVIDIA:
        pytest.skip("this machine has an NVIDIA device")
    variables = {} if visible is None else {"NVIDIA_VISIBLE_DEVICES": visible}
    done = with_docker.run({**RUN, "gpus": given}, **variables, CUDA_VISIBLE_DEVICES="1,3,4")
    assert done.code == 0, done.log
    words = line(with_docker)
    assert after(words, "--gpus") == (options or [])
    assert ("NVIDIA_VISIBLE_DEVICES=void" in after(words, "--env")) == (options is None)
    assert ("CUDA_VISIBLE_DEVICES" in after(words, "--env")) == (options == ["all"]), (
        "numbers of a list are others inside"
    )


def test_a_count_beyond_what_the_runner_was_given(with_docker: Machine):
    done = with_docker.run({**RUN, "gpus": "3"}, NVIDIA_VISIBLE_DEVICES="4,5")
    assert (done.code, done.outputs["verdict"]) == (3, "unverified")
    assert "the input gpus is '3', but NVIDIA_VISIBLE_DEVICES gives this runner 2: 4,5" in done.error
    assert with_docker.run({**RUN, "gpus": "3"}).code == 0
    assert after(line(with_docker), "--gpus") == ["3"]


@pytest.mark.parametrize(
    "given", ["0", "-1", "00", "two", "1.5", "all,none=x", "device=", "device=0,capabilities=x", "$(id)"]
)
def test_gpus_that_are_none(with_docker: Machine, given):
    done = with_docker.run({**RUN, "gpus": given})
    assert (done.code, done.outputs["verdict"]) == (2, "usage-error")
    assert f"the input gpus is '{given}', which is none of" in done.error
    assert with_docker.calls() == []


def test_a_list_of_the_runner_that_docker_cannot_be_told(with_docker: Machine):
    done = with_docker.run(RUN, NVIDIA_VISIBLE_DEVICES="0,capabilities=utility")
    assert done.code == 2
    assert "NVIDIA_VISIBLE_DEVICES of this runner is '0,capabilities=utility'" in done.error


@pytest.mark.parametrize(
    ("code", "gpus", "says"),
    [
        (125, "", "docker could not start the container, its message stands above"),
        (125, "all", "without the NVIDIA container toolkit on this runner, set gpus: none"),
        (126, "", f"there is no quant-verify in the image {IMAGE}"),
        (127, "", f"there is no quant-verify in the image {IMAGE}"),
        (137, "", "was killed (signal 9), most likely for want of memory"),
        (139, "", "exit code 139"),
    ],
)
def test_what_docker_says_is_no_verdict(with_docker: Machine, code, gpus, says):
    (with_docker.notes / "code-run").write_text(str(code))
    done = with_docker.run({**RUN, "gpus": gpus})
    assert (done.code, done.outputs) == (3, {"verdict": "unverified", "exit-code": "3"})
    assert says in done.error


def test_an_image_that_is_not_ours_passes_nothing(with_docker: Machine):
    (with_docker.notes / "code-run").write_text("0")
    done = with_docker.run({**RUN, "image": "ubuntu:24.04"})
    assert (done.code, done.outputs["verdict"]) == (3, "unverified")


def test_docker_options_are_words_and_nothing_is_expanded(with_docker: Machine):
    text = """--volume /data:/data:ro\n  --label 'two words' --label "it's" -l a\\ b -l $HOME;id -l `id` -l '' *"""
    done = with_docker.run({**RUN, "docker-options": text})
    assert done.code == 0, done.log
    words = line(with_docker)
    assert words[words.index("/data:/data:ro") - 1 : -2] == shlex.split(text)


@pytest.mark.parametrize("text", ["--label 'open", '--label "open', "it's"])
def test_docker_options_with_an_open_quote(with_docker: Machine, text):
    done = with_docker.run({**RUN, "docker-options": text})
    assert done.code == 2
    assert "docker-options has a quote that is not closed" in done.error


def test_offline_means_no_network(with_docker: Machine):
    for given, offline in (("true", True), ("1", True), ("Yes", True), ("false", False), ("0", False), ("", False)):
        with_docker.forget_calls()
        assert with_docker.run({**RUN, "offline": given}).code == 0
        assert after(line(with_docker), "--network") == (["none"] if offline else [])
        assert with_docker.contained().get("QUANT_VERIFY_OFFLINE") == ("true" if offline else None)
    assert "which is neither true nor false" in with_docker.run({**RUN, "offline": "maybe"}).error


def test_caches_and_certificates_are_mounted(with_docker: Machine):
    certificates = with_docker.folder / "authority.pem"
    certificates.touch()
    folder = with_docker.folder / "certificates"
    folder.mkdir()
    cache = with_docker.folder / "cache"
    given = {
        "SSL_CERT_FILE": str(certificates),
        "REQUESTS_CA_BUNDLE": str(certificates),
        "SSL_CERT_DIR": f"{folder}:/absent",
        "HF_HUB_CACHE": "/elsewhere",
    }
    assert with_docker.run({**RUN, "cache-dir": str(cache)}, **given).code == 0
    words = line(with_docker)
    mounts = after(words, "--volume")[2:]
    assert mounts == [
        f"{cache}/huggingface:{cache}/huggingface",
        f"{cache}/quant-verify:{cache}/quant-verify",
        f"{certificates}:{certificates}:ro",
        f"{folder}:{folder}:ro",
    ]
    seen = with_docker.contained()
    assert (seen["HF_HOME"], seen["QUANT_VERIFY_CACHE"]) == (f"{cache}/huggingface", str(cache))
    assert seen["SSL_CERT_FILE"] == seen["REQUESTS_CA_BUNDLE"] == str(certificates)
    assert "HF_HUB_CACHE" not in seen
    assert all(Path(mount.split(":")[0]).exists() for mount in mounts), "or docker makes it, and it belongs to root"


def test_a_hub_cache_of_its_own_is_mounted_too(with_docker: Machine):
    hub = with_docker.folder / "hub"
    inside = with_docker.home / ".cache/huggingface/xet"
    given = {"HF_HUB_CACHE": str(hub), "HF_XET_CACHE": str(inside)}
    assert with_docker.run(RUN, **given).code == 0
    assert after(line(with_docker), "--volume")[4:] == [f"{hub}:{hub}"]
    assert hub.is_dir()


@pytest.mark.parametrize("elsewhere", [True, False])
def test_a_token_saved_on_the_runner_goes_in_as_a_variable(with_docker: Machine, elsewhere: bool):
    hub = with_docker.home / ".cache/huggingface"
    hub.mkdir(parents=True)
    saved = with_docker.folder / "token" if elsewhere else hub / "token"
    saved.write_text("hf_saved\n")
    (hub / "stored_tokens").write_text("[me]\nhf_token = hf_saved\n")
    done = with_docker.run(RUN, **({"HF_TOKEN_PATH": str(saved)} if elsewhere else {}))
    assert done.code == 0, done.log
    hidden = [hub / "stored_tokens"] if elsewhere else [saved, hub / "stored_tokens"]
    assert after(line(with_docker), "--volume")[4:] == [f"/dev/null:{path}:ro" for path in hidden]
    assert with_docker.contained()["HF_TOKEN"] == "hf_saved"
    assert "::add-mask::hf_saved" in done.log
    assert "hf_saved" not in " ".join(line(with_docker))
    with_docker.run(RUN, HF_TOKEN="hf_given")
    assert with_docker.contained()["HF_TOKEN"] == "hf_given"


def test_what_other_steps_left_in_the_temporary_folder_is_hidden(with_docker: Machine):
    secret = with_docker.temp / "git-credentials-1.config"
    secret.touch()
    (with_docker.temp / "_github_workflow").mkdir()
    folders = [with_docker.workspace / ".git", with_docker.workspace / "model/.git"]
    for folder in folders:
        folder.mkdir()
    assert with_docker.run(RUN).code == 0
    words = line(with_docker)
    assert f"/dev/null:{secret}:ro" in after(words, "--volume")
    hidden = [with_docker.temp / "_runner_file_commands", *folders]
    assert after(words, "--tmpfs")[1:] == [f"{folder}:ro,size=64k" for folder in hidden]
    event = with_docker.temp / "_github_workflow"
    assert f"{event}:{event}:ro" in after(words, "--volume")


def test_reports_of_an_earlier_run_do_not_outlive_a_failed_pull(with_docker: Machine):
    assert with_docker.run(RUN).code == 0
    folder = with_docker.workspace / "quant-verify-report"
    assert len([*folder.iterdir()]) == 4
    (with_docker.notes / "present").unlink()
    (with_docker.notes / "code-pull").write_text("1")
    assert with_docker.run(RUN).code == 3
    assert [*folder.iterdir()] == []


def test_the_comment_is_posted_from_a_container_of_its_own(with_docker: Machine):
    event = with_docker.folder / "event.json"
    event.write_text("{}")
    (with_docker.notes / "code-comment").write_text("0")
    variables = {"GITHUB_EVENT_PATH": str(event), "GITHUB_REPOSITORY": "team/models", "HF_TOKEN": "hf_secret"}
    done = with_docker.run({**RUN, "comment": "always", "offline": "true", "gpus": "all"}, **variables)
    assert done.code == 0, done.log
    words, run = line(with_docker, "comment"), line(with_docker)
    assert "GITHUB_TOKEN" not in run
    assert "GITHUB_TOKEN" in after(words, "--env")
    assert "GITHUB_REPOSITORY" in after(words, "--env")
    assert {"--gpus", "--network"}.isdisjoint(words)
    assert {"HF_TOKEN", "HF_HOME"}.isdisjoint(words)
    assert after(words, "--volume") == [
        f"{path}:{path}:ro" for path in (with_docker.workspace, with_docker.temp, event)
    ]
    assert not any("ghs_workflow" in word for word in [*words, *run])


def test_no_value_that_could_be_a_secret_stands_on_the_line(with_docker: Machine):
    names = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTPS_PROXY", "no_proxy", "PIP_INDEX_URL", "QUANT_VERIFY_ARGS")
    secrets = {name: f"--only s3cret-{name}" if name.endswith("ARGS") else f"s3cret-{name}" for name in names}
    with_docker.run(RUN, **secrets)
    words = line(with_docker)
    assert not [word for word in words if "s3cret" in word]
    seen = with_docker.contained()
    assert {name: seen[name] for name in names} == secrets
    assert "GITHUB_TOKEN" not in seen


def test_the_working_directory_in_the_container(with_docker: Machine):
    inner = with_docker.workspace / "inner"
    inner.mkdir()
    (with_docker.workspace / "model").rename(inner / "model")
    done = with_docker.run({**RUN, "working-directory": "inner"})
    assert done.code == 0, done.log
    assert after(line(with_docker), "--workdir") == [str(inner)]
    assert done.outputs["json"] == "inner/quant-verify-report/report.json"


def test_a_folder_that_the_container_does_not_see_is_named(with_docker: Machine):
    data = with_docker.folder / "data"
    (with_docker.workspace / "model").rename(data)
    for name, given in (("checkpoint", f"./model\n  {data}"), ("checkpoint", f"{data}*"), ("baseline", str(data))):
        done = with_docker.run({**RUN, name: given})
        assert done.code == 2
        assert f"{data} lies outside the workspace" in done.error
        assert f"docker-options: --volume {data}:{data}:ro" in done.error
    assert with_docker.calls() == []
    mount = f"--volume {data}:{data}:ro"
    assert with_docker.run({**RUN, "checkpoint": str(data), "docker-options": mount}).code == 0
    assert with_docker.run({**RUN, "checkpoint": "/absent"}).outputs["verdict"] == "usage-error"


def test_a_workspace_with_a_colon_cannot_be_mounted(with_docker: Machine):
    workspace = with_docker.workspace.rename(with_docker.folder / "a:b")
    with_docker.workspace = workspace
    done = with_docker.run(RUN)
    assert done.code == 2
    assert "because of the colon" in done.error


def test_everything_given_reaches_the_container(with_docker: Machine):
    (with_docker.workspace / "quant-verify.yml").write_text(
        "version: 1\ndefaults: {depth: static}\nmodels: [{name: m, checkpoints: {a: ./model}}]\n"
    )
    inputs = {
        "command": "run",
        "matrix": "quant-verify.yml",
        "depth": "static",
        "select": "config.*\nlayers.*,weights.codes",
        "ignore": "config.roundtrip",
        "only": "m/*",
        "shard": "1/1",
        "device": "cpu",
        "report-dir": "out",
        "fail-on": "warn",
        "annotations": "always",
        "offline": "true",
        "args": "--weights 'full' --require-pinned",
    }
    done = with_docker.run({**inputs, "runtime": "docker", "image": IMAGE})
    assert done.code == 0, done.log
    seen = with_docker.contained()
    assert {name: seen["QUANT_VERIFY_" + name.replace("-", "_").upper()] for name in inputs} == inputs
    report = json.loads((with_docker.workspace / "out/report.json").read_text())
    assert (report["shard"], report["fail_on"]) == ("1/1", "warn")
    ids = {check["id"] for check in report["cells"][0]["checks"]}
    assert {check_id.partition(".")[0] for check_id in ids} == {"config", "layers", "weights"}
    assert "config.roundtrip" not in ids
