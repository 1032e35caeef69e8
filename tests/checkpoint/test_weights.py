"""Which files count as the weights (rows X15, P01 to P04), and links within the Hub cache."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from raw_files import MAP, ONE, TWO, container, healthy, packed, problem_saying, sharded, single, write_index

from checker.checkpoint import Checkpoint, open_checkpoint
from checker.checkpoint.index import INDEX
from checker.domain import Severity

STORED = Path(__file__).parent.parent / "fixtures/checkpoints"
FAIL, WARN = Severity.FAIL, Severity.WARN


def test_x15_single_file_and_index_together(tmp_path):
    folder = single(sharded(tmp_path))
    checkpoint = open_checkpoint(folder)

    problem = problem_saying(checkpoint, "are both present")
    assert (problem.file, problem.severity) == ("model.safetensors", FAIL)
    assert checkpoint.tensor_files == ("model.safetensors",), "transformers loads the single file"


def test_an_index_of_the_single_file_is_what_mlx_writes(tmp_path):
    folder = single(tmp_path)
    write_index(folder, dict.fromkeys("abc", "model.safetensors"))
    assert open_checkpoint(folder).problems == ()


def test_shards_in_a_subfolder(tmp_path):
    folder = sharded(tmp_path)
    (folder / "sub").mkdir()
    (folder / TWO).rename(folder / "sub" / "two.safetensors")
    write_index(folder, {**MAP, "c": "sub/two.safetensors"})
    checkpoint = open_checkpoint(folder)

    assert checkpoint.problems == ()
    assert checkpoint.tensor_files == (ONE, "sub/two.safetensors")
    assert bytes(checkpoint.read("c")) == bytes(4)


def test_a_link_that_stays_inside_is_followed(tmp_path):
    folder = sharded(tmp_path)
    (folder / "store").mkdir()
    (folder / TWO).rename(folder / "store" / "two")
    (folder / TWO).symlink_to("store/two")
    assert open_checkpoint(folder).problems == ()


def test_shards_without_an_index(tmp_path):
    folder = sharded(tmp_path)
    (folder / INDEX).unlink()
    checkpoint = open_checkpoint(folder)

    assert problem_saying(checkpoint, "transformers cannot load them").file == INDEX
    assert {*checkpoint.tensors} == {"a", "b", "c"}


def test_one_file_of_another_name(tmp_path):
    folder = single(tmp_path)
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    checkpoint = open_checkpoint(folder)

    assert problem_saying(checkpoint, "looks for model.safetensors").severity is WARN
    assert checkpoint.complete


def test_files_for_other_loaders_are_left_alone(tmp_path):
    folder = single(tmp_path)
    (folder / "consolidated.00.safetensors").write_bytes(b"")
    (folder / "openvino_model.bin").write_bytes(b"")
    (folder / "model.gguf").write_bytes(b"GGUF")
    assert open_checkpoint(folder).problems == ()


class TestExplicitFile:
    """``transformers_weights`` in config.json overrides every other rule of transformers."""

    @staticmethod
    def names(folder: Path, name: str) -> Checkpoint:
        (folder / "config.json").write_text(json.dumps({"transformers_weights": name}))
        return open_checkpoint(folder)

    def test_a_file(self, tmp_path):
        folder = single(tmp_path)
        (folder / "other.safetensors").write_bytes(healthy("other"))
        checkpoint = self.names(folder, "other.safetensors")
        assert [*checkpoint.tensors] == ["other"]
        assert problem_saying(checkpoint, "nothing refers to").file == "model.safetensors"

    def test_an_index(self, tmp_path):
        folder = sharded(tmp_path)
        (folder / INDEX).rename(folder / "my.safetensors.index.json")
        assert self.names(folder, "my.safetensors.index.json").problems == ()

    def test_a_pickle(self, tmp_path):
        checkpoint = self.names(single(tmp_path), "model.pt")
        assert problem_saying(checkpoint, "'model.pt', which is not").where == "transformers_weights"

    @pytest.mark.parametrize("name", ["a\nb.safetensors.index.json", "a\0.safetensors", "\x1b.safetensors", "\n"])
    def test_a_name_that_would_break_a_line(self, name, tmp_path):
        folder = single(tmp_path)
        if "\0" not in name and "index" in name:
            (folder / name).write_text("")
        problems = self.names(folder, name).problems
        assert problems
        assert all(text.isprintable() for item in problems for text in (item.message, item.file, item.where))

    def test_a_path_that_leaves(self, tmp_path):
        folder = single(tmp_path / "model")
        (tmp_path / "x.safetensors").write_bytes(healthy("x"))
        checkpoint = self.names(folder, "../x.safetensors")
        assert problem_saying(checkpoint, "lies outside")
        assert checkpoint.tensors == {}


PICKLES = ["pytorch_model.bin", "model.pt", "model.PTH", "model.ckpt", "weights.pkl"]


@pytest.mark.parametrize("name", PICKLES)
def test_p01_only_a_pickle(name, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    os.mkfifo(tmp_path / name)  # opening it would hang
    checkpoint = open_checkpoint(tmp_path)

    problem = problem_saying(checkpoint, "the only weights are pickles")
    assert (problem.file, problem.severity) == (name, FAIL)
    assert not checkpoint.complete


@pytest.mark.parametrize("make", [sharded, single])
def test_p02_a_pickle_beside_safetensors(make, tmp_path):
    folder = make(tmp_path)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02")
    (folder / "training_args.bin").write_bytes(b"\x80\x02")
    checkpoint = open_checkpoint(folder)

    problem = problem_saying(checkpoint, "may hold pickled code")
    assert (problem.file, problem.severity) == ("pytorch_model.bin", WARN)
    assert "1 more" in problem.message
    assert checkpoint.complete


def test_p01_a_pickle_that_was_not_downloaded(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    checkpoint = open_checkpoint(tmp_path, listed=("config.json", "pytorch_model.bin", "other/x.bin"))
    assert problem_saying(checkpoint, "the only weights are pickles").file == "pytorch_model.bin"


class TestGguf:
    """Which file is taken; what stands in it is for test_gguf.py."""

    SOUND = STORED / "gguf/q4_k_m/model-Q4_K_M.gguf"

    def folder(self, path, *names):
        for name in names:
            shutil.copy(self.SOUND, path / name)
        return path

    def test_the_only_file_is_the_checkpoint_with_its_config(self, tmp_path):
        checkpoint = open_checkpoint(self.folder(tmp_path, "model-Q8_0.gguf"))
        assert checkpoint.problems == ()
        assert checkpoint.complete
        assert checkpoint.tensor_files == ("model-Q8_0.gguf",)
        assert checkpoint.config["quantization_config"]["quant_method"] == "gguf"
        assert checkpoint.config["model_type"] == "llama"

    def test_a_config_beside_it_is_completed(self, tmp_path):
        (tmp_path / "config.json").write_text('{"model_type": "mine", "quantization_config": {"quant_method": "x"}}')
        config = open_checkpoint(self.folder(tmp_path, "m.gguf")).config
        assert config["model_type"] == "mine"
        assert (config["quantization_config"]["quant_method"], config["quantization_config"]["gguf_file"]) == (
            "x",
            "m.gguf",
        )

    def test_a_broken_config_stays_broken(self, tmp_path):
        (tmp_path / "config.json").write_text("{")
        checkpoint = open_checkpoint(self.folder(tmp_path, "m.gguf"))
        assert checkpoint.config is None
        assert [problem.file for problem in checkpoint.problems] == ["config.json"]

    def test_one_of_several_is_named_by_the_user_or_the_config(self, tmp_path):
        self.folder(tmp_path, "a-Q4_0.gguf", "a-Q8_0.gguf")
        checkpoint = open_checkpoint(tmp_path)
        assert problem_saying(checkpoint, "2 GGUF files of 2 models").hint.startswith("name the file itself")
        assert not checkpoint.complete
        assert open_checkpoint(tmp_path, file="a-Q4_0.gguf").tensor_files == ("a-Q4_0.gguf",)
        (tmp_path / "config.json").write_text('{"quantization_config": {"gguf_file": "a-Q8_0.gguf"}}')
        assert open_checkpoint(tmp_path).tensor_files == ("a-Q8_0.gguf",)
        (tmp_path / "config.json").write_text('{"quantization_config": {"gguf_file": "../a-Q8_0.gguf"}}')
        assert problem_saying(open_checkpoint(tmp_path), "which is no GGUF file of the checkpoint")

    def test_the_vision_tower_is_not_the_model(self, tmp_path):
        self.folder(tmp_path, "a-Q8_0.gguf", "mmproj-F16.gguf")
        assert open_checkpoint(tmp_path).tensor_files == ("a-Q8_0.gguf",)

    def test_a_set_of_parts_is_one_model_and_whole(self, tmp_path):
        self.folder(tmp_path, "a-00001-of-00003.gguf", "a-00003-of-00003.gguf")
        checkpoint = open_checkpoint(tmp_path)
        assert problem_saying(checkpoint, "1 of 3 parts are missing, first a-00002-of-00003.gguf")
        assert not checkpoint.complete

    def test_safetensors_come_first(self, tmp_path):
        self.folder(single(tmp_path), "a-Q8_0.gguf")
        assert open_checkpoint(tmp_path).tensor_files == ("model.safetensors",)

    def test_what_is_only_listed_was_not_downloaded(self, tmp_path):
        (tmp_path / "config.json").write_text("{}")
        assert (
            problem_saying(open_checkpoint(tmp_path, listed=("a.gguf",)), "which are not downloaded").file == "a.gguf"
        )


class TestQuanto:
    """optimum-quanto writes its map beside the config, and nothing into it."""

    def test_the_map_is_the_quantization_config(self):
        config = open_checkpoint(STORED / "quanto/int8").config
        stored = json.loads((STORED / "quanto/int8/quanto_qmap.json").read_text())
        assert config["quantization_config"] == {"quant_method": "quanto", "quantization_map": stored}

    def test_a_config_that_has_one_keeps_it(self, tmp_path):
        single(tmp_path)
        (tmp_path / "quanto_qmap.json").write_text("{}")
        (tmp_path / "config.json").write_text('{"quantization_config": {"quant_method": "x"}}')
        assert open_checkpoint(tmp_path).config == {"quantization_config": {"quant_method": "x"}}

    def test_a_broken_map_is_a_problem(self, tmp_path):
        single(tmp_path)
        (tmp_path / "quanto_qmap.json").write_text("[")
        checkpoint = open_checkpoint(tmp_path)
        assert "quantization_config" not in checkpoint.config
        assert [problem.file for problem in checkpoint.problems] == ["quanto_qmap.json"]


def test_nothing_at_all(tmp_path):
    problems = open_checkpoint(tmp_path).problems
    assert [problem.file for problem in problems] == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_no_folder(kind, tmp_path):
    path = tmp_path / "model"
    if kind == "file":
        path.write_text("")
    [problem] = open_checkpoint(path).problems
    assert "folder cannot be read" in problem.message


class TestHubCache:
    """Snapshots are links into the blobs of the same model, or of the marked store that all models share."""

    @staticmethod
    def link(snapshot: Path, blob: Path, raw: bytes, name: str = "model.safetensors") -> None:
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(raw)
        snapshot.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(os.path.relpath(blob, snapshot))

    def snapshot(self, cache: Path) -> Path:
        model = cache / "models--org--name"
        snapshot = model / "snapshots" / ("0" * 40)
        self.link(snapshot, model / "blobs" / "aa", b"{}", "config.json")
        return snapshot

    def test_blobs_of_the_same_model(self, tmp_path):
        snapshot = self.snapshot(tmp_path)
        self.link(snapshot, tmp_path / "models--org--name" / "blobs" / "bb", healthy("a"))
        assert open_checkpoint(snapshot).problems == ()

    def test_seen_through_a_linked_cache(self, tmp_path):
        snapshot = self.snapshot(tmp_path / "real")
        self.link(snapshot, tmp_path / "real" / "models--org--name" / "blobs" / "bb", healthy("a"))
        (tmp_path / "cache").symlink_to("real")
        assert open_checkpoint(tmp_path / "cache" / snapshot.relative_to(tmp_path / "real")).problems == ()

    @pytest.mark.parametrize("marked", [True, False])
    def test_the_shared_store(self, marked, tmp_path):
        snapshot = self.snapshot(tmp_path)
        shared = tmp_path / "blobs" / "ab" / ("ab" * 32)
        self.link(snapshot, shared, healthy("a"))
        if marked:
            (tmp_path / "blobs" / ".huggingface-shared-blobs").write_text("1\n")
        assert (open_checkpoint(snapshot).problems == ()) is marked

    def test_blobs_of_another_model(self, tmp_path):
        snapshot = self.snapshot(tmp_path)
        self.link(snapshot, tmp_path / "models--org--private" / "blobs" / "bb", healthy("a"))
        assert problem_saying(open_checkpoint(snapshot), "leaves the checkpoint").file == "model.safetensors"

    def test_blobs_that_lead_elsewhere(self, tmp_path):
        snapshot = self.snapshot(tmp_path)
        blobs = tmp_path / "models--org--name" / "blobs"
        (blobs / "aa").unlink()
        blobs.rmdir()
        (tmp_path / "elsewhere").mkdir()
        blobs.symlink_to(tmp_path / "elsewhere")
        self.link(snapshot, blobs / "bb", healthy("a"))
        assert problem_saying(open_checkpoint(snapshot), "model.safetensors is a symbolic link")


def test_a_shard_may_be_of_any_sound_type(tmp_path):
    folder = single(tmp_path)
    (folder / "model.safetensors").write_bytes(container(packed({"a": ("F4", [2, 4])}), bytes(4)))
    assert open_checkpoint(folder).problems == ()
