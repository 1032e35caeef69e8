"""Which reference a cell gets: a recorded one, one of the cache, or one that is made, once."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from models import Zoo

from checker import references as module
from checker.checkpoint.resolve import Resolved
from checker.domain import Cell, Depth, ErrorKind, ModelRef, Prompt, Settings
from checker.errors import Unavailable
from checker.protocol import ReferenceJob
from checker.reference import read_reference
from checker.reference.identity import prompts_digest
from checker.reference.write import write_reference
from checker.references import References, names_of, prompts_of, wants_reference

COMMIT = "0123456789" * 4
HUB = ModelRef(kind="hub", name="org/model", revision=COMMIT)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("QUANT_VERIFY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "quant-verify" / "references"


SOUND = Path()  # a whole reference file; set below


@pytest.fixture(autouse=True)
def sound(monkeypatch, zoo: Zoo) -> None:
    monkeypatch.setitem(globals(), "SOUND", zoo.reference("llama", full=False))


def cell(baseline: ModelRef | None = HUB, **settings: object) -> Cell:
    return Cell(
        id="a/b", baseline=baseline, checkpoint=ModelRef(kind="folder", name="./q"), settings=Settings(**settings)
    )


def fail(_job: ReferenceJob, _cell: Cell) -> None:
    raise AssertionError("nothing needs to be made")


@pytest.fixture
def folder(zoo: Zoo, tmp_path: Path) -> Path:
    """A folder with a recorded reference of the pinned Hub model."""
    made = read_reference(zoo.reference("llama", full=False))
    identity = replace(
        made.summary.identity, baseline="org/model", revision=COMMIT, prompts=prompts_digest(prompts_of(cell()))
    )
    path = tmp_path / "references" / "org--model.safetensors"
    write_reference(path, replace(made.summary, identity=identity), made.rows, made.hidden, made.samples)
    return path.parent


def test_a_recorded_reference_is_found_by_the_models_name(folder: Path):
    found = References(make=fail, folder=folder).recorded(cell())
    assert found == (folder / "org--model.safetensors", COMMIT)


@pytest.mark.parametrize("revision", [None, "main", "v1.0"])
def test_a_branch_takes_what_was_recorded(folder: Path, revision: str | None):
    """Its commit is not known without asking the Hub, which a recorded reference is there to spare."""
    found = References(make=fail, folder=folder).recorded(cell(replace(HUB, revision=revision)))
    assert found is not None
    assert found.revision == COMMIT


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        pytest.param(cell(replace(HUB, revision="f" * 40)), "another revision: to 0123456789", id="revision"),
        pytest.param(cell(prompts=(Prompt(text="x"),)), "other prompts than the matrix has now", id="prompts"),
    ],
)
def test_one_that_belongs_to_something_else_is_refused(folder: Path, asked: Cell, says: str):
    with pytest.raises(Unavailable, match="quant-verify record") as caught:
        References(make=fail, folder=folder).recorded(asked)
    assert says in str(caught.value)


def test_a_folder_that_was_changed_is_another_revision(zoo: Zoo, tmp_path: Path):
    """What was recorded of a folder fits the same files elsewhere, and no others."""
    baseline = zoo.baseline("llama")
    asked = cell(ModelRef(kind="folder", name=str(baseline)))
    _, plain = names_of(tmp_path, asked)
    made = read_reference(zoo.reference("llama", full=False))
    write_reference(plain, made.summary, made.rows, made.hidden, made.samples)
    assert References(make=fail, folder=tmp_path).recorded(asked).path == plain
    other = tmp_path / "baseline"
    other.mkdir()
    for file in zoo.baseline("gpt2").iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    with pytest.raises(Unavailable, match="another revision"):
        References(make=fail, folder=tmp_path).recorded(cell(ModelRef(kind="folder", name=str(other))))


def test_other_prompts_have_a_file_of_their_own(folder: Path):
    asked = cell(prompts=(Prompt(text="x"),))
    special, plain = names_of(folder, asked)
    made = read_reference(plain)
    identity = replace(made.summary.identity, prompts=prompts_digest(asked.settings.prompts))
    write_reference(special, replace(made.summary, identity=identity), made.rows, made.hidden, made.samples)
    assert References(make=fail, folder=folder).recorded(asked).path == special
    assert References(make=fail, folder=folder).recorded(cell()).path == plain


def test_without_a_folder_or_a_baseline_nothing_is_recorded(tmp_path: Path):
    assert References(make=fail).recorded(cell()) is None
    assert References(make=fail, folder=tmp_path).recorded(cell()) is None
    assert References(make=fail, folder=tmp_path).recorded(cell(None)) is None


def resolved(tmp_path: Path) -> Resolved:
    return Resolved(folder=tmp_path, revision=COMMIT)


def test_a_reference_is_made_once_for_all_cells_of_a_baseline(cache: Path, tmp_path: Path):
    made: list[ReferenceJob] = []
    entered = threading.Barrier(2)

    def make(job: ReferenceJob, _cell: Cell) -> None:
        made.append(job)
        Path(job.target).write_bytes(SOUND.read_bytes())

    references = References(make=make)
    found: list[Path] = []

    def ask() -> None:
        entered.wait(10)
        found.append(references.made(cell(), resolved(tmp_path)))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(made) == 1
    assert found == [Path(made[0].target)] * 2
    assert found[0].parent == cache
    assert made[0].full
    assert References(make=fail).made(cell(), resolved(tmp_path)) == found[0]  # and later runs find it


@pytest.mark.parametrize(
    "other",
    [cell(replace(HUB, name="org/other")), cell(prompts=(Prompt(text="x"),))],
    ids=["another baseline", "other prompts"],
)
def test_what_differs_has_a_reference_of_its_own(tmp_path: Path, other: Cell):
    def make(job: ReferenceJob, _cell: Cell) -> None:
        Path(job.target).write_bytes(SOUND.read_bytes())

    references = References(make=make)
    assert references.made(cell(), resolved(tmp_path)) != references.made(other, resolved(tmp_path))


def test_a_baseline_that_fails_is_tried_once_and_every_cell_learns_why(tmp_path: Path):
    tried = []

    def make(_job: ReferenceJob, _cell: Cell) -> None:
        tried.append(1)
        raise Unavailable("out of memory", ErrorKind.OUT_OF_MEMORY)

    references = References(make=make)
    for _ in range(2):
        with pytest.raises(
            Unavailable, match=r"the reference of org/model.* could not be made: out of memory"
        ) as caught:
            references.made(cell(), resolved(tmp_path))
        assert caught.value.kind is ErrorKind.OUT_OF_MEMORY
    assert tried == [1]


@pytest.mark.parametrize("content", [b"", b"junk", None], ids=["empty", "junk", "cut short"])
def test_a_damaged_reference_of_the_cache_is_made_anew(cache: Path, tmp_path: Path, content: bytes | None):
    made = []

    def make(job: ReferenceJob, _cell: Cell) -> None:
        made.append(job)
        Path(job.target).write_bytes(SOUND.read_bytes())

    references = References(make=make)
    path = references.made(cell(), resolved(tmp_path))
    path.write_bytes(SOUND.read_bytes()[:-500] if content is None else content)
    assert references.made(cell(), resolved(tmp_path)) == path
    assert len(made) == 2
    assert path.read_bytes() == SOUND.read_bytes()


def test_a_reference_of_the_cache_is_no_recorded_one(zoo: Zoo, folder: Path):
    made = read_reference(zoo.reference("llama"))
    path = folder / "org--model.safetensors"
    identity = read_reference(path).summary.identity
    write_reference(path, replace(made.summary, identity=identity), made.rows, made.hidden, made.samples)
    with pytest.raises(Unavailable, match="one of the cache, not a recorded one"):
        References(make=fail, folder=folder).recorded(cell())


def test_a_file_in_the_place_of_the_folder_is_said(tmp_path: Path):
    (tmp_path / "references").write_text("no folder")
    with pytest.raises(Unavailable, match=r"references: .* is no folder"):
        References(make=fail, folder=tmp_path / "references").recorded(cell())


def test_the_cache_forgets_what_was_used_longest_ago(monkeypatch, cache: Path, tmp_path: Path):
    cache.mkdir(parents=True)
    for age, name in enumerate(("new", "old", "oldest")):
        (cache / f"{name}.safetensors").write_bytes(bytes(40_000))
        os.utime(cache / f"{name}.safetensors", (1000 - age, 1000 - age))
    monkeypatch.setattr(module, "MOST_KEPT", SOUND.stat().st_size + 50_000)

    def make(job: ReferenceJob, _cell: Cell) -> None:
        Path(job.target).write_bytes(SOUND.read_bytes())

    made = References(make=make).made(cell(), resolved(tmp_path))
    assert {path.name for path in cache.iterdir()} == {made.name, "new.safetensors"}


def test_a_cache_that_cannot_be_written_is_no_obstacle(monkeypatch, tmp_path: Path):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("QUANT_VERIFY_CACHE", str(tmp_path / "file"))

    def make(job: ReferenceJob, _cell: Cell) -> None:
        Path(job.target).parent.mkdir(parents=True, exist_ok=True)
        Path(job.target).write_bytes(SOUND.read_bytes())

    made = References(make=make).made(cell(), resolved(tmp_path))
    assert made.is_file()
    made.unlink()


@pytest.mark.parametrize(
    ("asked", "checks", "wanted"),
    [
        (cell(), ("outputs.divergence",), True),
        (cell(), ("outputs.likelihood",), True),
        (cell(), ("weights.error", "outputs.finite"), False),
        (cell(depth=Depth.LOAD), ("outputs.divergence",), False),
        (cell(None), ("outputs.divergence",), False),
    ],
    ids=["divergence", "texts", "no check of outputs", "lesser depth", "no baseline"],
)
def test_who_needs_a_reference(asked: Cell, checks: tuple[str, ...], wanted: bool):
    assert wants_reference(asked, checks) is wanted
