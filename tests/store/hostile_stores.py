"""What the tests of stores made to do harm share: everything that is done with a store, and how it is refused."""

import contextlib
from pathlib import Path

import pytest

from lrh_ray.errors import LrhError
from lrh_ray.store.reader import open_store
from lrh_ray.store.verify import verify

LENGTHS = [7, 30, 12, 25, 18, 40]


def use(root: Path) -> None:
    """Everything that a reader and a housekeeper do with a store."""
    store = open_store(root)
    for site in store.sites:
        store.rows(site, sinks="drop")
    for block in range(store.plan.num_blocks):
        store.keys(block)
    _ = store.document_ids, store.texts
    store.labels()


def refuse(root: Path, *errors: type[LrhError], match: str | None = None) -> None:
    """Readers refuse; a check says that it is damaged, or refuses as well."""
    with pytest.raises(errors or LrhError, match=match):
        use(root)
    with contextlib.suppress(LrhError):
        assert not verify(root, 2).ok
