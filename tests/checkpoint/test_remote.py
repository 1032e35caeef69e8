"""Checkpoints on the Hub, read by ranges from a server on this machine: the same as a folder, and for few bytes."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from hub_server import COMMIT, TOKEN, Hub, Reply, failing
from huggingface_hub import constants
from raw_files import ONE, TWO, container, packed, sharded, single, write_index

from checker.checkpoint import Checkpoint, open_checkpoint
from checker.checkpoint import hub as asking
from checker.checkpoint.hub import token_to_send
from checker.checkpoint.network import VARIABLE, Network, open_network
from checker.checkpoint.remote import HEAD
from checker.checkpoint.resolve import resolve, resolve_remote
from checker.checkpoint.source import GAP, join
from checker.checkpoint.transfer import WHOLE_FILE
from checker.domain import ErrorKind, ModelRef
from checker.errors import Unavailable, UsageError

REF = ModelRef(kind="hub", name="org/model")
WEIGHTS = "model.safetensors"
MB = 1 << 20
STORED = Path(__file__).parent.parent / "fixtures/checkpoints/gguf/q4_k_m/model-Q4_K_M.gguf"


def network(seconds: float = 20.0) -> Network:
    return Network(seconds=seconds, until=time.monotonic() + seconds, token=token_to_send())


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    path = tmp_path / "cache"
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.setattr(constants, name, str(path))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    path = tmp_path / "repository"
    path.mkdir()
    return path


@pytest.fixture
def hub(folder, cache, monkeypatch):
    """The server with ``folder`` as ``org/model``, and the library pointed to it; pauses are short."""
    server = Hub({"org/model": folder})
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(asking, "FIRST_PAUSE", 0.01)
    with server.running():
        yield server


def opened(allowance: Network | None = None, ref: ModelRef = REF) -> Checkpoint:
    allowance = allowance or network()
    found = resolve_remote(ref, allowance)
    return open_checkpoint(found.folder, listed=found.files, repository=found.repository, network=allowance)


def large(folder: Path, **shapes: tuple[str, list[int]]) -> dict[str, np.ndarray]:
    """A checkpoint of one file of some megabytes; the bytes of each tensor."""
    (folder / "config.json").write_text('{"model_type": "llama"}')
    shapes = shapes or {"a": ("U8", [1000, 1000]), "b": ("BF16", [2000, 500]), "c": ("F32", [100, 5000])}
    header = packed(shapes)
    size = max(entry["data_offsets"][1] for entry in header.values())
    data = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    (folder / WEIGHTS).write_bytes(container(header, data.tobytes()))
    return {name: data[slice(*entry["data_offsets"])] for name, entry in header.items()}


def failure(action=opened) -> Unavailable:
    with pytest.raises(Unavailable) as raised:
        action()
    message = str(raised.value)
    assert message.startswith("org/model")
    assert message.isprintable()
    assert any(word in message for word in ("; ", "HF_TOKEN")), "a remedy"
    return raised.value


class TestParity:
    @pytest.mark.parametrize("shape", ["single", "sharded", "flawed", "no config", "nothing", "many"])
    def test_a_repository_reads_as_its_folder_does(self, hub, folder, shape):
        if shape == "many":
            names = [f"model-{n:05}.safetensors" for n in range(30)]
            for n, name in enumerate(names):
                (folder / name).write_bytes(container(packed({f"t{n}": ("F16", [3, n])}), bytes(6 * n)))
            (folder / "config.json").write_text("{}")
            write_index(folder, {f"t{n}": name for n, name in enumerate(names)}, total_size=sum(range(30)) * 6)
        elif shape != "nothing":
            (sharded if shape == "sharded" else single)(folder)
        if shape == "flawed":
            (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-1])
            (folder / "pytorch_model.bin").write_bytes(b"x")
            (folder / "tokenizer.json").write_text("cut short")
            (folder / "generation_config.json").write_text("{")
        if shape == "no config":
            (folder / "config.json").unlink()
        (folder / "extra.safetensors").write_bytes(b"") if shape != "nothing" else None
        here, there = open_checkpoint(folder), opened()

        assert there.tensors == here.tensors
        assert there.problems == here.problems
        assert (there.config, there.metadata, there.complete) == (here.config, here.metadata, here.complete)
        for name, header in here.tensors.items():
            assert bytes(there.read(name)) == bytes(here.read(name))
            np.testing.assert_array_equal(there.array(name), here.array(name))
            np.testing.assert_array_equal(there.float32(name), here.float32(name))
            if header.shape:
                np.testing.assert_array_equal(there.part(name, 1, 3), here.part(name, 1, 3))

    def test_headers_are_those_that_the_library_reads(self, hub, folder):
        large(folder)
        theirs = huggingface_hub.HfApi().parse_safetensors_file_metadata("org/model", WEIGHTS)
        ours = opened().tensors
        assert {name: (info.dtype, tuple(info.shape)) for name, info in theirs.tensors.items()} == {
            name: (header.dtype, header.shape) for name, header in ours.items()
        }

    @pytest.mark.parametrize(("start", "stop"), [(0, 1), (3, 7), (999, 5000), (5, 5), (7, 3), (0, 1000)])
    def test_rows_and_elements_are_those_of_the_folder(self, hub, folder, start, stop):
        large(folder)
        here, there = open_checkpoint(folder), opened()
        for name in here.tensors:
            rows = there.part(name, start, stop)
            assert rows.shape == here.array(name)[start:stop].shape == here.part(name, start, stop).shape
            assert rows.tobytes() == here.array(name)[start:stop].tobytes() == here.part(name, start, stop).tobytes()
            elements = there.float32(name, start, stop).tobytes()
            assert elements == here.float32(name)[start:stop].tobytes() == here.float32(name, start, stop).tobytes()

    def test_gguf_too(self, hub, folder):
        shutil.copy(STORED, folder / "model-Q4_K_M.gguf")
        here, there = open_checkpoint(folder), opened()
        assert (there.tensors, there.config, there.problems) == (here.tensors, here.config, ())
        assert hub.requests(".gguf")[-1].range is not None

    def test_gguf_is_not_downloaded_whole(self, hub, folder):
        shutil.copy(STORED, folder / "model-Q4_K_M.gguf")
        with pytest.raises(Unavailable, match="holds only GGUF files"):
            resolve(REF, offline=False)
        assert not hub.requests(".gguf")

    def test_a_shard_that_the_repository_lacks_is_the_models_fault(self, hub, folder):
        sharded(folder)
        (folder / TWO).unlink()
        checkpoint = opened()
        assert checkpoint.problems == open_checkpoint(folder).problems
        assert [problem.message for problem in checkpoint.problems] == [f"{TWO} is missing"]
        assert not checkpoint.complete


class TestCost:
    def test_no_weight_is_fetched_to_read_the_headers(self, hub, folder):
        large(folder)
        opened()
        assert [request.range for request in hub.requests(WEIGHTS)] == [f"bytes=0-{HEAD - 1}"] * 2
        assert hub.sent(WEIGHTS) == HEAD

    def test_a_part_costs_its_bytes(self, hub, folder):
        data = large(folder)
        checkpoint = opened()
        hub.clear()
        begin = checkpoint.tensors["b"].begin
        assert checkpoint.part("b", 100, 110).tobytes() == data["b"][100_000:110_000].tobytes()
        assert checkpoint.float32("b", 1_500_00, 1_500_10).size == 10
        assert [request.range for request in hub.log] == [
            f"bytes={begin + 100_000}-{begin + 109_999}",
            f"bytes={begin + 300_000}-{begin + 300_019}",
        ]
        hub.clear()
        checkpoint.part("b", 103, 105)
        assert hub.log == [], "what was fetched is kept"

    def test_what_is_wanted_comes_together(self, hub, folder):
        large(folder)
        checkpoint = opened()
        hub.clear()
        rows = [*((n, n + 2) for n in range(200, 300, 4)), (900, 910)]
        checkpoint.want("a", rows)
        assert len(hub.log) == 2
        before = len(hub.log)
        for start, stop in rows:
            checkpoint.part("a", start, stop)
        assert len(hub.log) == before
        checkpoint.want("a", rows)
        assert len(hub.log) == before, "it is there already"

    def test_a_small_tensor_brings_its_like(self, hub, folder):
        """As the states of bitsandbytes: a hundred bytes in every layer, megabytes apart."""
        shapes = {}
        for n in range(40):
            shapes[f"layers.{n}.weight"] = ("U8", [400, 1000])
            shapes[f"layers.{n}.weight.state"] = ("U8", [100])
        data = large(folder, **shapes)
        checkpoint = opened()
        hub.clear()
        assert checkpoint.read("layers.7.weight.state").tobytes() == data["layers.7.weight.state"].tobytes()
        assert len(hub.log) == 40
        assert hub.sent() == 40 * 100
        for n in range(40):
            checkpoint.read(f"layers.{n}.weight.state")
        assert len(hub.log) == 40

    def test_a_long_header_takes_two_requests(self, hub, folder):
        large(folder, **{f"layers.{n}.{'x' * 40}": ("U8", [1000]) for n in range(3000)})
        assert len(opened().tensors) == 3000
        assert len([request for request in hub.requests(WEIGHTS) if request.host == "storage"]) == 2
        assert hub.sent(WEIGHTS) < MB

    def test_headers_of_many_shards_come_several_at_a_time(self, hub, folder):
        names = [f"model-{n:05}.safetensors" for n in range(24)]
        for n, name in enumerate(names):
            (folder / name).write_bytes(container(packed({f"t{n}": ("U8", [4])}), bytes(4)))
        write_index(folder, {f"t{n}": name for n, name in enumerate(names)})
        (folder / "config.json").write_text("{}")
        hub.rules.append(lambda host, path, before: Reply(wait=0.25) if host == "storage" else None)
        begin = time.monotonic()
        assert len(opened().tensors) == 24
        assert time.monotonic() - begin < 24 * 0.25 / 2

    def test_of_a_large_tokenizer_two_ends_are_read(self, hub, folder):
        large(folder)
        (folder / "tokenizer.json").write_text("{" + " " * MB + "}")
        assert opened().problems == ()
        assert hub.sent("tokenizer.json") == 128

    def test_the_traffic_is_counted(self, hub, folder):
        large(folder)
        checkpoint = opened()
        checkpoint.read("c")
        ranged = [request for request in hub.log if request.host == "storage"]
        assert checkpoint.source.traffic == {"requests": len(ranged), "bytes": sum(item.sent for item in ranged)}
        assert open_checkpoint(folder).source.traffic == {}

    def test_a_closed_checkpoint_fetches_again(self, hub, folder):
        large(folder)
        with opened() as checkpoint:
            checkpoint.part("b", 0, 3)
        hub.clear()
        checkpoint.part("b", 0, 3)
        assert len(hub.log) == 1

    def test_near_spans_are_joined_and_far_ones_are_not(self):
        near, far = ("f", 0, 10), ("f", 10 + GAP, 20 + GAP)
        assert list(join([far, near])) == [("f", 0, 20 + GAP)]
        assert list(join([("f", 11 + GAP, 12 + GAP), near])) == [near, ("f", 11 + GAP, 12 + GAP)]
        assert list(join([("g", 0, 1), near, ("f", 2, 5)])) == [near, ("g", 0, 1)]
        assert list(join([])) == []


class TestCache:
    def fill(self, cache: Path, folder: Path, *names: str) -> Path:
        snapshot = cache / "models--org--model" / "snapshots" / COMMIT
        snapshot.mkdir(parents=True)
        (cache / "models--org--model" / "refs").mkdir()
        (cache / "models--org--model" / "refs" / "main").write_text(COMMIT)
        for name in names:
            shutil.copy(folder / name, snapshot / name)
        return snapshot

    def test_small_files_go_to_the_cache(self, hub, folder, cache):
        sharded(folder)
        (folder / "README.md").write_text("long")
        resolve_remote(REF, network())
        snapshot = cache / "models--org--model" / "snapshots" / COMMIT
        assert {path.name for path in snapshot.iterdir()} == {"config.json", "model.safetensors.index.json"}
        hub.clear()
        resolve_remote(REF, network())
        assert [request.path for request in hub.log] == ["/api/models/org/model"]

    def test_a_file_in_the_cache_is_used_from_there(self, hub, folder, cache):
        data = large(folder)
        self.fill(cache, folder, WEIGHTS)
        checkpoint = opened()
        assert checkpoint.read("a").tobytes() == data["a"].tobytes()
        assert not checkpoint.remote
        assert hub.requests(WEIGHTS) == []

    def test_one_of_two_shards_in_the_cache(self, hub, folder, cache):
        sharded(folder)
        self.fill(cache, folder, ONE)
        checkpoint = opened()
        assert checkpoint.problems == ()
        assert checkpoint.remote
        assert [bytes(checkpoint.read(name)) for name in "abc"] == [bytes(4)] * 3
        assert hub.requests(ONE) == []
        assert hub.requests(TWO) != []

    def test_a_file_of_another_size_is_not_used(self, hub, folder, cache):
        large(folder)
        (self.fill(cache, folder) / WEIGHTS).write_bytes(b"half a file")
        assert opened().problems == ()

    @pytest.mark.parametrize("down", ["refused", "500"])
    def test_a_whole_snapshot_will_do_when_the_hub_is_away(self, hub, folder, cache, monkeypatch, down):
        large(folder)
        self.fill(cache, folder, WEIGHTS, "config.json")
        if down == "500":
            hub.rules.append(failing("/api/", Reply(status=500)))
        else:
            monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        found = resolve_remote(REF, network())
        assert (found.revision, found.repository) == (COMMIT, None)
        assert open_checkpoint(found.folder).complete

    def test_what_a_static_run_left_is_no_checkpoint(self, hub, folder):
        """It would read as a checkpoint without weights, and fail."""
        pinned = ModelRef(kind="hub", name="org/model", revision=COMMIT)
        for make in (single, sharded):
            make(folder)
            for ref in (REF, pinned):
                resolve_remote(ref, network())
                with pytest.raises(Unavailable, match="not wholly, in the local cache; run once without --offline"):
                    resolve(ref, offline=True)
            (folder / WEIGHTS).unlink(missing_ok=True)
        hub.rules.append(failing("/api/", Reply(status=500)))
        assert "HTTP 500" in str(failure())

    def test_to_be_loaded_it_is_downloaded(self, hub, folder, cache):
        large(folder)
        (folder / "pytorch_model.bin").write_bytes(b"never")
        found = resolve(REF, offline=False)
        assert (found.revision, found.repository) == (COMMIT, None)
        assert (found.folder / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()
        assert "pytorch_model.bin" in found.files
        assert hub.requests(".bin") == []
        assert resolve(REF, offline=True).folder == found.folder

    def test_an_index_beyond_its_limit_is_not_fetched(self, hub, folder, monkeypatch):
        sharded(folder)
        with (folder / "model.safetensors.index.json").open("ab") as file:
            file.truncate(1 << 28)
        with (folder / "config.json").open("ab") as file:
            file.truncate(1 << 24)
        checkpoint = opened()
        says = [problem.message for problem in checkpoint.problems if "are not read" in problem.message]
        assert len(says) == 2
        assert hub.sent(".json") == 0

    def test_a_cache_that_cannot_be_written_is_not_needed(self, hub, folder, monkeypatch):
        data = large(folder)

        def refuse(*_args, **_options):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
        checkpoint = opened()
        assert checkpoint.config == {"model_type": "llama"}
        assert checkpoint.read("a").tobytes() == data["a"].tobytes()


class TestRefusals:
    def test_no_such_repository(self, hub):
        found = failure(lambda: opened(ref=ModelRef(kind="hub", name="org/modell")))
        assert found.kind is ErrorKind.GATED
        assert "does not exist, or is private" in str(found)
        assert len(hub.log) == 1, "asking again is no use"

    def test_no_such_revision(self, hub, folder):
        found = failure(lambda: opened(ref=ModelRef(kind="hub", name="org/model", revision="v9")))
        assert "no such revision" in str(found)

    def test_a_revision_is_asked_for_and_its_commit_read(self, hub, folder):
        large(folder)
        opened(ref=ModelRef(kind="hub", name="org/model", revision="v1"))
        assert hub.log[0].path == "/api/models/org/model/revision/v1"
        assert {request.path.split("/")[4] for request in hub.requests(WEIGHTS) if request.host == "hub"} == {COMMIT}

    def test_a_name_that_no_repository_can_have(self, hub):
        with pytest.raises(UsageError, match="is not a Hub repository"):
            opened(ref=ModelRef(kind="hub", name="a/b/c"))

    def test_gated(self, hub, folder):
        large(folder)
        for part in ("/api/", WEIGHTS):
            hub.rules[:] = [failing(part, Reply(status=403, headers={"X-Error-Code": "GatedRepo"}))]
            found = failure()
            assert found.kind is ErrorKind.GATED
            assert "accept its licence" in str(found)

    def test_private_with_and_without_the_token(self, hub, folder, monkeypatch):
        data = large(folder)
        hub.private = True
        assert failure().kind is ErrorKind.GATED
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        assert opened().read("b").tobytes() == data["b"].tobytes()
        assert {request.token for request in hub.log if request.host == "hub"} == {None, f"Bearer {TOKEN}"}
        assert {request.token for request in hub.log if request.host == "storage"} == {None}, (
            "the token stays on the Hub"
        )

    def test_a_token_that_is_not_valid(self, hub, folder, monkeypatch):
        hub.rules.append(failing("/api/", Reply(status=401, headers={"X-Error-Message": "Invalid credentials"})))
        assert "may not be read (HTTP 401); set HF_TOKEN" in str(failure())

    def test_what_answers_is_not_the_hub(self, hub):
        hub.rules.append(lambda *_: Reply(status=203, body=b"<html>log in to this network</html>"))
        found = failure()
        assert found.kind is ErrorKind.NETWORK
        assert "what answers is not the Hub; check HF_ENDPOINT" in str(found)

    def test_a_mirror_without_sizes(self, hub, folder):
        large(folder)
        hub.sizes = False
        assert opened().complete
        assert any("/tree/" in request.path for request in hub.log)

    def test_the_allowance_is_a_number_of_seconds(self, monkeypatch):
        monkeypatch.setenv(VARIABLE, "")
        assert open_network().seconds == 300
        monkeypatch.setenv(VARIABLE, "7.5")
        assert open_network().seconds == 7.5
        for wrong in ("0", "-1", "soon", "nan", "inf"):
            monkeypatch.setenv(VARIABLE, wrong)
            with pytest.raises(UsageError, match="number of seconds above 0"):
                open_network()


class TestTrouble:
    """What passes at another attempt, what does not, and how long either takes."""

    @pytest.mark.parametrize("status", [pytest.param(408, marks=pytest.mark.exact), 429, 500, 502, 503, 504])
    @pytest.mark.parametrize("part", ["/api/", "config.json", WEIGHTS, "/signed/"])
    def test_passes_at_the_second_attempt(self, hub, folder, status, part, monkeypatch):
        from huggingface_hub.utils import _http

        monkeypatch.setattr(_http.time, "sleep", lambda _: None)  # the library's own pauses
        large(folder)
        hub.rules.append(failing(part, Reply(status=status), times=1))
        assert opened().complete

    @pytest.mark.parametrize(("status", "says"), [(429, "limits the rate of requests"), (500, "HTTP 500")])
    @pytest.mark.parametrize("part", ["/api/", WEIGHTS])
    def test_does_not_pass(self, hub, folder, status, says, part):
        large(folder)
        hub.rules.append(failing(part, Reply(status=status)))
        found = failure()
        assert found.kind is ErrorKind.NETWORK
        assert says in str(found)
        assert ("HF_TOKEN" in str(found)) is (status == 429)
        assert len([request for request in hub.log if part in request.path]) == asking.ATTEMPTS

    @pytest.mark.parametrize("part", ["/api/", WEIGHTS])
    @pytest.mark.parametrize(
        "headers", [{"Retry-After": "1"}, {"RateLimit": '"api";r=0;t=1', "RateLimit-Policy": '"fixed";"api";q=5;w=9'}]
    )
    def test_waits_as_long_as_the_server_asks(self, hub, folder, part, headers):
        large(folder)
        hub.rules.append(failing(part, Reply(status=429, headers=headers), times=1))
        begin = time.monotonic()
        assert opened().complete
        assert 1 <= time.monotonic() - begin < 4

    def test_a_date_is_a_time_to_wait_too(self, monkeypatch):
        monkeypatch.setattr(asking.time, "time", lambda: 1_700_000_000.0)
        assert asking.asked_pause({"retry-after": "Tue, 14 Nov 2023 22:13:27 GMT"}) == 7
        assert asking.asked_pause({"retry-after": "Tue, 14 Nov 2022 22:13:27 GMT"}) == 0
        assert asking.asked_pause({"retry-after": "soon"}) is None
        assert asking.asked_pause({"ratelimit": '"api";r=3;t=55'}) is None, "something remains"

    @pytest.mark.parametrize("part", ["/api/", WEIGHTS])
    def test_a_wait_beyond_the_deadline_is_not_begun(self, hub, folder, part):
        large(folder)
        hub.rules.append(failing(part, Reply(status=429, headers={"Retry-After": "3600"})))
        begin = time.monotonic()
        found = failure()
        assert time.monotonic() - begin < 5
        assert found.kind is ErrorKind.TIMEOUT, "not worth another worker"
        assert "asks to wait 3600 s, longer than the" in str(found)

    @pytest.mark.parametrize("part", ["/api/", "config.json", WEIGHTS, "/signed/"])
    def test_the_deadline_ends_a_server_that_is_silent(self, hub, folder, part):
        large(folder)
        hub.rules.append(lambda host, path, before: Reply(wait=30) if part in path else None)
        begin = time.monotonic()
        found = failure(lambda: opened(network(1.5)))
        assert time.monotonic() - begin < 4
        assert found.kind is ErrorKind.TIMEOUT
        assert f"within 1.5 s; try again, set {VARIABLE}" in str(found)

    def test_the_deadline_ends_a_server_that_drips(self, hub, folder):
        large(folder)
        checkpoint = opened(network(2.0))
        hub.rules.append(failing("/signed/", Reply(drip=0.1)))
        begin = time.monotonic()
        assert failure(lambda: checkpoint.read("b")).kind is ErrorKind.TIMEOUT
        assert time.monotonic() - begin < 4

    def test_a_cut_connection_is_resumed_where_it_was_cut(self, hub, folder):
        data = large(folder)
        checkpoint = opened()
        hub.clear()
        hub.rules.append(failing("/signed/", Reply(cut_after=300_000), times=3))
        assert checkpoint.read("b").tobytes() == data["b"].tobytes()
        begins = [int(request.range.removeprefix("bytes=").partition("-")[0]) for request in hub.log]
        assert begins == [checkpoint.tensors["b"].begin + n * 300_000 for n in range(3)]
        assert checkpoint.source.traffic["bytes"] == HEAD + data["b"].size, "nothing came twice"

    def test_a_connection_that_is_always_cut_is_given_up(self, hub, folder):
        large(folder)
        hub.rules.append(failing("/signed/", Reply(cut_after=0)))
        found = failure()
        assert found.kind is ErrorKind.NETWORK
        assert f"also after {asking.ATTEMPTS} attempts; check the network" in str(found)
        assert len([item for item in hub.log if item.host == "storage"]) == asking.ATTEMPTS

    def test_after_that_nothing_more_is_asked(self, hub, folder):
        large(folder)
        checkpoint = opened()
        hub.rules.append(failing("/signed/", Reply(status=500)))
        first = failure(lambda: checkpoint.read("b"))
        before = len(hub.log)
        again = failure(lambda: checkpoint.read("c"))
        assert (str(again), again.kind) == (str(first), first.kind)
        assert len(hub.log) == before

    def test_nobody_listens(self, cache, monkeypatch):
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        monkeypatch.setattr(asking, "FIRST_PAUSE", 0.01)
        found = failure()
        assert found.kind is ErrorKind.NETWORK
        assert "the Hub cannot be reached (" in str(found)

    def test_a_signed_address_that_has_expired_is_asked_for_again(self, hub, folder):
        data = large(folder)
        checkpoint = opened()
        hub.clear()
        hub.rules.append(lambda host, path, before: Reply(status=403) if host == "storage" and before == 2 else None)
        for name in "abc":
            assert checkpoint.read(name).tobytes() == data[name].tobytes()
        assert [item.status for item in hub.log] == [206, 403, 302, 206, 206]

    def test_a_server_that_ignores_ranges_is_noticed_at_once(self, hub, folder):
        large(folder, a=("U8", [64, MB]))
        hub.rules.append(failing(WEIGHTS, Reply(ignores_range=True)))
        found = failure()
        assert found.kind is ErrorKind.NETWORK
        assert "the server ignores ranges and would send all 67," in str(found)
        assert len(hub.requests(WEIGHTS)) == 2, "asked once, redirected once"
        assert hub.sent(WEIGHTS) < 32 * MB, "what fits into the sockets' buffers"

    def test_a_small_file_is_taken_whole_from_it(self, hub, folder):
        data = large(folder, a=("U8", [100]), b=("U8", [WHOLE_FILE // 2]))
        hub.rules.append(failing(WEIGHTS, Reply(ignores_range=True)))
        checkpoint = opened()
        assert {name: checkpoint.read(name).tobytes() for name in "ab"} == {n: data[n].tobytes() for n in "ab"}

    def test_other_bytes_than_were_asked_for(self, hub, folder):
        large(folder)
        hub.rules.append(failing("/signed/", Reply(other=1)))
        assert "sends other bytes than were asked for" in str(failure())

    def test_a_file_that_is_shorter_than_listed(self, hub, folder):
        large(folder)
        checkpoint = opened()
        (folder / WEIGHTS).write_bytes(b"short")
        assert "shorter file than the Hub lists" in str(failure(lambda: checkpoint.read("c")))

    def test_a_file_of_another_size_than_listed(self, hub, folder):
        large(folder)
        checkpoint = opened()
        with (folder / WEIGHTS).open("ab") as file:
            file.write(b"more")
        assert "other bytes than were asked for" in str(failure(lambda: checkpoint.read("c")))

    def test_one_shard_that_does_not_come_leaves_no_half_checkpoint(self, hub, folder):
        sharded(folder)
        hub.rules.append(failing(TWO, Reply(status=500)))
        assert TWO in str(failure())


def test_the_index_of_a_hostile_repository_leads_nowhere(hub, folder):
    sharded(folder)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"]["a"] = "../../../../etc/passwd.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    problems = opened().problems
    assert any("no plain path inside the checkpoint" in problem.message for problem in problems)
    assert not [request for request in hub.log if "passwd" in request.path]
