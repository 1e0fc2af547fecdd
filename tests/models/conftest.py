from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from lrh_ray.models.checkpoints import Checkpoint, resolve_checkpoint

FAMILIES = ("llama", "qwen2", "gpt_neox", "deepseek_v3")


class Collected:
    """A sink that is a dictionary of arrays, and fails on rows written twice."""

    def __init__(self):
        self.parts = defaultdict(dict)

    def write(self, site, offset, rows):
        assert offset not in self.parts[site]
        self.parts[site][offset] = np.array(rows)

    def rows(self):
        return {site: np.concatenate([parts[at] for at in sorted(parts)]) for site, parts in self.parts.items()}


@pytest.fixture
def collected():
    return Collected()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """Family name -> folder of its tiny checkpoint, each made once."""
    from lrh_ray.models.tiny import make_tiny

    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in made:
            made[family] = make_tiny(family, tmp_path_factory.mktemp(family))
        return made[family]

    return folder


@pytest.fixture(scope="session", params=FAMILIES)
def tiny(request, tiny_folder) -> Checkpoint:
    """The tiny checkpoint of every family in turn."""
    return resolve_checkpoint(str(tiny_folder(request.param)))


@pytest.fixture(scope="session")
def tiny_llama(tiny_folder) -> Checkpoint:
    return resolve_checkpoint(str(tiny_folder("llama")))


@pytest.fixture(autouse=True)
def _own_cache(request, tmp_path, monkeypatch):
    """Digests of test checkpoints stay out of the user's cache; tests of the real model use the user's own."""
    if "model" not in request.keywords:
        monkeypatch.setenv("LRH_CACHE", str(tmp_path / "cache"))
