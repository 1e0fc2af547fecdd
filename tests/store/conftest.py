"""Stores that several files of tests read: one for the loader, of 844 rows in 14 blocks, and one to be damaged."""

import shutil
from pathlib import Path

import hostile_stores
import ml_dtypes
import numpy as np
import pytest
from loader_stores import LENGTHS, SITES

from lrh_ray.store.reader import open_store
from lrh_ray.store.seal import seal
from lrh_ray.testing.stores import fill, make_store, truth


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    made = make_store(tmp_path_factory.mktemp("loader") / "store", LENGTHS, rows_per_block=64)
    fill(made)
    seal(made.root, made.plan, parity={})
    return made


@pytest.fixture(scope="module")
def store(fake):
    opened = open_store(fake.root)
    assert (opened.plan.num_blocks, opened.plan.chunk_rows, opened.plan.num_valid_rows) == (14, 16, 844)
    return opened


@pytest.fixture(scope="module")
def all_rows(store):
    """Rows of each site by global row; padding is zero."""
    found = {}
    for site in SITES:
        found[site] = np.zeros((store.plan.num_rows, 24), dtype=ml_dtypes.bfloat16)
        for block in range(store.plan.num_blocks):
            rows = truth(store.plan, site, block)
            found[site][block * store.plan.rows_per_block :][: len(rows)] = rows
    return found


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    fake = make_store(tmp_path_factory.mktemp("pristine") / "store", hostile_stores.LENGTHS, rows_per_block=64)
    fill(fake)
    seal(fake.root, fake.plan, parity={})
    return fake.root


@pytest.fixture
def root(pristine, tmp_path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "store"))
