"""What workers compute where something fitted is applied to a store: one block at a time, written where it is made."""

import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata

from lrh_ray.analyses.sae.applied import Application, MostCodes
from lrh_ray.analyses.sae.reader import Reader
from lrh_ray.errors import StoreConflict, StoreMissing
from lrh_ray.layouts import Rows
from lrh_ray.records import Receipt
from lrh_ray.runtime.nonce import unseen
from lrh_ray.store.objects import Location, open_objects
from lrh_ray.store.plan import read_plan
from lrh_ray.store.reader import Store, open_store
from lrh_ray.store.seal import describe_rows
from lrh_ray.store.writer import BlockWriter
from lrh_ray.studies.sae_maps import side_by_side


@dataclass(frozen=True, kw_only=True)
class CountPass:
    """block -> the most codes of one of its rows."""

    location: Location
    root: str
    sites: tuple[str, ...]
    reader: Reader

    def __call__(self, block: int) -> MostCodes:
        return MostCodes.of(_rows(open_exactly(self.location, self.root), self.sites, block), self.reader)


def _rows(store: Store, sites: Sequence[str], block: int) -> Rows:
    return side_by_side([store.block_rows(site, block) for site in sites])


@lru_cache(maxsize=4)
def open_exactly(location: Location, root: str) -> Store:
    """The store of this content, on a worker.

    Raises:
        ClusterError: This node does not see it.
        StoreConflict: It has another content.
    """
    try:
        store = open_store(location)
    except StoreMissing as error:
        raise unseen(location) from error
    if store.root != root:
        raise StoreConflict(f"{str(location)!r} has root {store.root} on {socket.gethostname()}; {root} was expected.")
    return store


@dataclass(frozen=True, kw_only=True)
class ApplyTask:
    """How a worker is opened: which store it fills, from which rows, and how."""

    location: Location
    parent: Location
    root: str
    """Digest of the parent's content."""
    sites: tuple[str, ...]
    application: Application

    def open(self) -> "ApplyWorker":
        return ApplyWorker(self)

    def describe(self, block: int) -> str:
        return describe_rows(read_plan(open_objects(self.location)), [block])


class ApplyWorker:
    """Writes the blocks it is given; keeps no rows between them."""

    def __init__(self, task: ApplyTask) -> None:
        self._task = task
        self._parent = open_exactly(task.parent, task.root)
        self._plan = read_plan(open_objects(task.location))
        self._software = {"python": sys.version.split()[0], "lrh-ray": metadata.version("lrh-ray")}

    def process(self, block: int, attempt: str) -> Receipt:
        """Compute one block, write and commit it."""
        columns = self._task.application.of(_rows(self._parent, self._task.sites, block))
        with BlockWriter(
            self._task.location,
            self._plan,
            block=block,
            attempt=attempt,
            worker=socket.gethostname(),
            software=self._software,
        ) as writer:
            for spec in self._plan.sites:
                writer.write(spec.name, 0, columns[spec.name.rpartition(".")[2]])
            return writer.commit()
