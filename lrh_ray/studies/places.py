"""Stores that workers keep open between the blocks they are given.

    Place(location=location, root=store.root).open()

Opening a store reads its plan and commits, which takes longer than reading a block.
"""

from dataclasses import dataclass
from functools import lru_cache

from lrh_ray.store.objects import Location
from lrh_ray.store.reader import Store, open_store

KEPT = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A sealed store: where it is, and the digest that says which store stands there."""

    location: Location
    root: str

    def open(self) -> Store:
        return _opened(self)


@lru_cache(maxsize=KEPT)
def _opened(place: Place) -> Store:
    return open_store(place.location)
