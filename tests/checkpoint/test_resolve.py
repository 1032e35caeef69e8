"""References to folders, and what becomes of every way in which the Hub can fail."""

from __future__ import annotations

import errno
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import errors
from raw_files import healthy

from checker.checkpoint import open_checkpoint
from checker.checkpoint.resolve import resolve
from checker.domain import ErrorKind, ModelRef
from checker.errors import Unavailable, UsageError

HTTP_ERROR = errors.HfHubHTTPError.__mro__[1]
HUB = ModelRef(kind="hub", name="org/name", revision="v1")
COMMIT = "0123456789" * 4


def response(status: int):
    """An answer of the Hub, of the HTTP library that this huggingface_hub is built on."""
    http = __import__(HTTP_ERROR.__module__.partition(".")[0])
    request = http.Request("GET", "https://huggingface.co/api/models/org/name")
    return http.Response(status, request=request)


def connect_error() -> Exception:
    http = __import__(HTTP_ERROR.__module__.partition(".")[0])
    return http.ConnectError("[Errno -2] Name or service not known")


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


FAILURES = {
    "I01-gated": (errors.GatedRepoError("403", response=response(403)), ErrorKind.GATED, "accept its licence"),
    "I01-401": (errors.HfHubHTTPError("401", response=response(401)), ErrorKind.GATED, "HF_TOKEN"),
    "I01-403": (errors.DisabledRepoError("403", response=response(403)), ErrorKind.GATED, "HTTP 403"),
    "I01-unknown": (errors.RepositoryNotFoundError("401", response=response(401)), ErrorKind.GATED, "does not exist"),
    "I01-404": (errors.RemoteEntryNotFoundError("404", response=response(404)), ErrorKind.GATED, "does not exist"),
    "I01-revision": (errors.RevisionNotFoundError("404", response=response(404)), ErrorKind.GATED, "no such revision"),
    "I02-429": (errors.HfHubHTTPError("429", response=response(429)), ErrorKind.NETWORK, "limits the rate"),
    "I02-503": (errors.HfHubHTTPError("503", response=response(503)), ErrorKind.NETWORK, "HTTP 503"),
    "I02-wrapped-503": (
        caused(errors.LocalEntryNotFoundError("Got: 503"), errors.HfHubHTTPError("503", response=response(503))),
        ErrorKind.NETWORK,
        "HTTP 503",
    ),
    "I03-disk-full": (OSError(errno.ENOSPC, "No space left on device"), ErrorKind.NOT_RUN, "disk is full"),
    "I03-quota": (
        caused(RuntimeError("xet"), OSError(errno.EDQUOT, "Disk quota exceeded")),
        ErrorKind.NOT_RUN,
        "disk is full",
    ),
    "I09-no-network": (connect_error(), ErrorKind.NETWORK, "Name or service not known"),
    "I09-wrapped": (
        caused(errors.LocalEntryNotFoundError("Got: ConnectError"), connect_error()),
        ErrorKind.NETWORK,
        "cannot be reached (\\[Errno -2] Name or service",
    ),
    "I09-forbidden": (
        caused(errors.LocalEntryNotFoundError("x"), errors.OfflineModeIsEnabled("x")),
        ErrorKind.NETWORK,
        "HF_HUB_OFFLINE",
    ),
    "I09-cut": (OSError("Consistency check failed: file should be of size 5"), ErrorKind.NETWORK, "Consistency"),
    "I09-xet": (RuntimeError("Data processing error:\n trace"), ErrorKind.NETWORK, "Data processing error:"),
    "I09-silent": (TimeoutError(), ErrorKind.NETWORK, "TimeoutError"),
}


def raising(error: Exception):
    def download(*args, **kwargs):
        raise error

    return download


@pytest.mark.parametrize(("error", "kind", "says"), FAILURES.values(), ids=FAILURES.keys())
def test_a_failure_is_one_sentence_with_a_remedy(error, kind, says, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", raising(error))
    with pytest.raises(Unavailable, match=says.replace("(", "\\(")) as raised:
        resolve(HUB, offline=False)

    message = str(raised.value)
    assert raised.value.kind is kind
    assert message.startswith("org/name@v1 ")
    assert message.isprintable()
    assert raised.value.__suppress_context__, "no traceback of the library"


def test_offline_and_not_cached(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(Unavailable, match="not wholly, in the local cache; run once without --offline") as raised:
        resolve(HUB, offline=True)
    assert raised.value.kind is ErrorKind.NETWORK


@pytest.mark.parametrize("name", ["../x", "a/b/c", "org/na me", "x" * 100])
def test_a_name_that_no_repository_can_have(name):
    with pytest.raises(UsageError, match="is not a Hub repository"):
        resolve(ModelRef(kind="hub", name=name), offline=True)


def cached(cache: Path) -> Path:
    """A model as huggingface_hub lays it out: refs, blobs, and a snapshot of links."""
    model = cache / "models--org--name"
    snapshot = model / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "v1").write_text(COMMIT)
    (model / "blobs").mkdir()
    for blob, (name, raw) in enumerate({"config.json": b"{}", "model.safetensors": healthy("a")}.items()):
        (model / "blobs" / str(blob)).write_bytes(raw)
        (snapshot / name).symlink_to(Path("..", "..", "blobs", str(blob)))
    return snapshot


@pytest.mark.parametrize("revision", ["v1", COMMIT])
def test_offline_from_the_cache(revision, tmp_path, monkeypatch):
    snapshot = cached(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    resolved = resolve(ModelRef(kind="hub", name="org/name", revision=revision), offline=True)

    assert resolved.folder == snapshot
    assert resolved.revision == COMMIT
    assert resolved.files == ()
    assert open_checkpoint(resolved.folder).problems == ()


class TestOnline:
    @pytest.fixture
    def asked(self, tmp_path, monkeypatch):
        """What the library was asked for; it answers with a cached snapshot."""
        calls: dict[str, object] = {}

        def download(name, **kwargs):
            calls.update(kwargs, name=name)
            return str(cached(tmp_path))

        def listing(api, name, *, revision):
            calls.update(listed=(name, revision))
            return ["config.json", "pytorch_model.bin"]

        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
        monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", listing)
        return calls

    def test_no_pickle_and_no_code_is_asked_for(self, asked):
        resolved = resolve(HUB, offline=False)

        assert (asked["name"], asked["revision"], asked["local_files_only"]) == ("org/name", "v1", False)
        assert "*.py" not in asked["allow_patterns"]
        assert {"*.json", "*.safetensors"} < {*asked["allow_patterns"]}
        assert {"*.bin", "*.pkl"} < {*asked["ignore_patterns"]}
        assert resolved.revision == COMMIT

    def test_code_is_asked_for_when_allowed(self, asked):
        resolve(HUB, offline=False, allow_code=True)
        assert "*.py" in asked["allow_patterns"]

    def test_the_repository_is_listed_at_the_commit_that_was_downloaded(self, asked):
        resolved = resolve(HUB, offline=False)

        assert asked["listed"] == ("org/name", COMMIT)
        [problem] = open_checkpoint(resolved.folder, listed=resolved.files).problems
        assert problem.file == "pytorch_model.bin"

    def test_a_listing_that_fails_costs_only_the_listing(self, asked, monkeypatch):
        monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", raising(connect_error()))
        assert resolve(HUB, offline=False).files == ()


class TestFolder:
    def test_stays_where_it_is(self, tmp_path):
        resolved = resolve(ModelRef(kind="folder", name=str(tmp_path)), offline=False)
        assert (resolved.folder, resolved.revision, resolved.files) == (tmp_path, None, ())

    def test_missing(self, tmp_path):
        with pytest.raises(UsageError, match="nowhere does not exist; check the path"):
            resolve(ModelRef(kind="folder", name=str(tmp_path / "nowhere")), offline=False)

    def test_is_a_file(self, tmp_path):
        path = tmp_path / "model.safetensors"
        path.write_bytes(b"")
        with pytest.raises(UsageError, match="is a file, not a folder; name the folder"):
            resolve(ModelRef(kind="folder", name=str(path)), offline=True)
