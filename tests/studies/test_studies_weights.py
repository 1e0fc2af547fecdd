"""Weights reach a node once, whole, and are compared with the plan's."""

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from studies_material import config_of

from lrh_ray.errors import CheckpointBroken, CheckpointMissing
from lrh_ray.models.checkpoints import checkpoint_digest, resolve_checkpoint
from lrh_ray.models.config import ModelConfig
from lrh_ray.store.objects import open_objects
from lrh_ray.store.reader import open_store
from lrh_ray.studies.extraction import extract
from lrh_ray.studies.planning import plan_by_numbers
from lrh_ray.studies.planning_records import Target
from lrh_ray.studies.weights import COPIED, checkpoint_here, find_checkpoint
from lrh_ray.testing.s3 import s3_server


@pytest.fixture(scope="module")
def url(material):
    """The tiny model under a prefix of a bucket, with files beside it that nobody needs."""
    with s3_server() as bucket:
        prefix = f"{bucket}/models/tiny"
        objects = open_objects(prefix)
        for path in (material / "model").iterdir():
            objects.put(path.name, path.read_bytes())
        objects.put("pytorch_model.bin", b"a pickle")
        objects.put("original/consolidated.safetensors", b"another layout")
        yield prefix


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("LRH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Told:
    """Progress that is remembered."""

    def __init__(self):
        self.begun, self.done = [], 0

    def begin(self, what, total=0, unit="", done=0):
        self.begun.append((what, total))

    def advance(self, amount):
        self.done += amount

    def say(self, text): ...


def test_a_prefix_is_copied_once_and_is_the_checkpoint(material, url, cache):
    config, told = ModelConfig(name=url), Told()
    found = find_checkpoint(config, told)
    assert found.name == url
    assert found.path.is_relative_to(cache)
    assert checkpoint_digest(found) == checkpoint_digest(resolve_checkpoint(str(material / "model")))
    needed = {path.name for path in (material / "model").iterdir()} - {"generation_config.json"}
    assert {path.name for path in found.path.iterdir()} == needed | {COPIED}
    assert told.begun[0][1] == told.done > 0
    before = {path: path.stat().st_mtime_ns for path in found.path.iterdir()}
    again = Told()
    assert find_checkpoint(config, again) == found
    assert not again.begun
    assert {path: path.stat().st_mtime_ns for path in found.path.iterdir()} == before


def test_a_copy_that_was_interrupted_goes_on(material, url, cache):
    folder = find_checkpoint(ModelConfig(name=url)).path
    weights = folder / "model.safetensors"
    record = json.loads((folder / COPIED).read_text())
    (folder / COPIED).write_text(json.dumps({name: size for name, size in record.items() if name != weights.name}))
    weights.unlink()
    (folder / ".model.safetensors").write_bytes(b"half")
    told = Told()
    assert find_checkpoint(ModelConfig(name=url), told).path == folder
    assert told.done == record[weights.name]
    assert weights.read_bytes() == (material / "model" / weights.name).read_bytes()


def test_all_who_ask_at_once_share_one_copy(url, cache):
    told, found = [Told() for _ in range(4)], []
    threads = [
        threading.Thread(target=lambda one=one: found.append(find_checkpoint(ModelConfig(name=url), one)))
        for one in told
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len({one.path for one in found}) == 1
    assert sum(bool(one.begun) for one in told) == 1


def test_random_weights_of_a_prefix_keep_its_name(url, cache):
    found = find_checkpoint(ModelConfig(name=url, weights="random(3)"))
    assert found.name == f"{url} random(3)"
    assert found.random_seed == 3


def test_an_empty_prefix_is_refused(url, cache):
    with pytest.raises(CheckpointMissing, match=r"no config\.json"):
        find_checkpoint(ModelConfig(name=url + "-absent"))


def test_a_node_with_other_weights_refuses_to_compute(material, cache):
    checkpoint = resolve_checkpoint(str(material / "model"))
    config = ModelConfig(name=str(material / "model"))
    assert checkpoint_here(checkpoint, config, checkpoint_digest(checkpoint)) == checkpoint
    with pytest.raises(CheckpointBroken, match="made for 00"):
        checkpoint_here(checkpoint, config, "00" * 16)


def test_a_node_without_the_folder_says_what_to_do(material, cache):
    checkpoint = resolve_checkpoint(str(material / "model"))
    elsewhere = replace(checkpoint, path=Path("/nowhere/model"))
    with pytest.raises(CheckpointMissing, match="path that all nodes share"):
        checkpoint_here(elsewhere, ModelConfig(name="/nowhere/model"), checkpoint_digest(checkpoint))


def test_a_node_without_the_drivers_folder_makes_its_own_copy(url, cache):
    drivers = replace(find_checkpoint(ModelConfig(name=url)), path=Path("/nowhere/copy"))
    here = checkpoint_here(drivers, ModelConfig(name=url), checkpoint_digest(find_checkpoint(ModelConfig(name=url))))
    assert here.path.is_relative_to(cache)


def test_a_store_is_extracted_from_a_prefix(material, cluster, url):
    few = ("store.min_blocks=3", f"model.name={url}", "name=from-prefix")
    store = open_store(extract(config_of(material, *few), folder=material)["store"])
    assert store.sealed
    assert store.plan.identity["model"]["name"] == url


def test_a_plan_by_numbers_copies_the_description_alone(material, url, cache):
    config = config_of(material, f"model.name={url}")
    here, _ = plan_by_numbers(config_of(material), tokens=10**4, target=Target())
    facts, _ = plan_by_numbers(config, tokens=10**4, target=Target())
    assert facts == {**here, "model": url}
    (copy,) = (path for path in (cache / "copies").iterdir() if path.is_dir())
    assert {path.name for path in copy.iterdir()} == {"config.json", COPIED}
    assert checkpoint_digest(find_checkpoint(config.model)) == checkpoint_digest(
        resolve_checkpoint(str(material / "model"))
    )
