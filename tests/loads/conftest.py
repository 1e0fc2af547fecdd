"""One sealed store, and one joined of two, for every tool; nobody writes to them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from lrh_ray.store.reader import Store, open_store
from lrh_ray.store.seal import seal
from lrh_ray.testing.stores import fill, make_store, truth

LENGTHS = [20, 7, 13, 1] * 12


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """A store with its rows and keys, gathered without any of the loads."""

    path: Path
    store: Store
    rows: dict[str, np.ndarray]
    token_id: np.ndarray
    position: np.ndarray
    document: np.ndarray
    index: np.ndarray

    @property
    def float32(self):
        return self.rows["resid.0"].astype(np.float32)


def make_sealed(path, dtype="bfloat16"):
    """Rows and keys from the plan and the tokens it was made from."""
    fake = make_store(path, LENGTHS, dtype=dtype)
    fill(fake)
    seal(fake.root, fake.plan, parity={})
    plan, tokens = fake.plan, fake.tokens
    rows = {
        site.name: np.concatenate([truth(plan, site.name, block) for block in range(plan.num_blocks)])
        for site in plan.sites
    }
    source = [np.arange(tokens.starts[s], tokens.starts[s + 1]) for s in plan.source]
    return Sealed(
        path=path,
        store=open_store(path),
        rows=rows,
        token_id=tokens.token_ids[np.concatenate(source)],
        position=tokens.positions[np.concatenate(source)],
        document=np.repeat(np.array(tokens.document_ids)[plan.source], plan.lengths),
        index=np.concatenate(
            [start + np.arange(length) for start, length in zip(plan.starts, plan.lengths, strict=True)]
        ),
    )


@pytest.fixture(scope="session")
def sealed(tmp_path_factory):
    return make_sealed(tmp_path_factory.mktemp("loads") / "store")


@pytest.fixture(scope="session")
def sealed_float32(tmp_path_factory):
    return make_sealed(tmp_path_factory.mktemp("loads") / "store", "float32")
