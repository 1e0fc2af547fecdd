"""What workers compute for the probing study: states of one block, and the judgement of one site.

All three are picklable values that read the store themselves, so nothing but states and scores of chosen columns
travels. The labels of a block are kept per process, because every pass needs them again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lrh_ray.analyses.logistic import LossState, Proposal
from lrh_ray.analyses.moments import LabelledMoments
from lrh_ray.layouts import Rows
from lrh_ray.store.documents import Labels
from lrh_ray.store.objects import Location
from lrh_ray.store.reader import Store, open_store
from lrh_ray.studies.probe_design import TRAIN, BlockLabels, ProbeDesign, block_labels


@dataclass(frozen=True, kw_only=True)
class Rowset:
    """The rows of a study: a store, its labels, and the design that joins them."""

    location: Location
    labels: str
    design: ProbeDesign
    digest: str
    """Digest of store, labels and design; workers keep what they opened under it."""

    @property
    def store(self) -> Store:
        return _opened(self.digest, self.location, self.labels)[0]

    def block(self, block: int) -> BlockLabels:
        kept = _kept_labels(self.digest)
        if block not in kept:
            store, labels = _opened(self.digest, self.location, self.labels)
            kept[block] = block_labels(self.design, store, labels, block)
        return kept[block]


@lru_cache(maxsize=1)
def _kept_labels(digest: str) -> dict[int, BlockLabels]:  # noqa: ARG001  # the digest is the key of the cache
    return {}


@lru_cache(maxsize=2)
def _opened(digest: str, location: Location, labels: str) -> tuple[Store, Labels]:  # noqa: ARG001  # as above
    store = open_store(location)
    return store, store.labels(labels)


@dataclass(frozen=True, kw_only=True)
class MomentsPass:
    """block -> labelled moments of the training rows of one site."""

    rowset: Rowset
    site: str
    shift: np.ndarray

    def __call__(self, block: int) -> LabelledMoments:
        rows, labels, members = training_rows(self.rowset, self.site, block)
        return LabelledMoments.of(rows, self.shift, labels, members, self.rowset.design.populations)


@dataclass(frozen=True, kw_only=True, slots=True)
class LossStates:
    """Loss states of several sites, merged together."""

    sites: Mapping[str, LossState]

    def merge(self, other: "LossStates") -> "LossStates":
        return LossStates(sites={site: state.merge(other.sites[site]) for site, state in self.sites.items()})


@dataclass(frozen=True, kw_only=True)
class LossPass:
    """block -> loss and gradient of every site's proposal: one reading of the store for all sites."""

    rowset: Rowset
    shifts: Mapping[str, np.ndarray]
    proposals: Mapping[str, Proposal]

    def __call__(self, block: int) -> LossStates:
        return LossStates(sites={site: self._state(site, proposal, block) for site, proposal in self.proposals.items()})

    def _state(self, site: str, proposal: Proposal, block: int) -> LossState:
        rows, _, members = training_rows(self.rowset, site, block)
        return LossState.of(rows, self.shifts[site], members, proposal)


def training_rows(rowset: Rowset, site: str, block: int) -> tuple[Rows, np.ndarray, np.ndarray]:
    """Rows, labels and members of the training documents of one block."""
    here = rowset.block(block)
    train = here.parts == TRAIN
    return rowset.store.block_rows(site, block)[train], here.labels[train].astype(np.float64), here.members[train]
