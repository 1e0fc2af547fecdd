"""What workers compute for the probing study: states of one block, and the judgement of one site.

All three are picklable values that read the store themselves, so nothing but states and scores of chosen columns
travels. The labels of a block are kept per process, because every pass needs them again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import numpy as np

from lrh_ray.analyses.logistic import LossState, Proposal
from lrh_ray.analyses.moments import LabelledMoments
from lrh_ray.analyses.multinomial import SoftmaxProposal, SoftmaxState
from lrh_ray.analyses.selectivity import type_uniforms
from lrh_ray.analyses.token_counts import TokenCounts
from lrh_ray.layouts import Rows
from lrh_ray.store.documents import Labels
from lrh_ray.store.objects import Location
from lrh_ray.store.reader import Store, open_store
from lrh_ray.studies.probe_classes import ClassColumns
from lrh_ray.studies.probe_design import PARTS, TRAIN, BlockLabels, ProbeDesign, block_labels


@dataclass(frozen=True, kw_only=True)
class Rowset:
    """The rows of a study: a store, its labels, and the design that joins them."""

    location: Location
    labels: str
    design: ProbeDesign
    digest: str
    """Digest of store, labels and design; workers keep what they opened under it."""
    labelled: Location | None = None
    """The store whose labels and sinks are used, where it is another: the trained model's, for its untrained twin."""

    @property
    def store(self) -> Store:
        return _opened(self.digest, self.location, self.labels)[0]

    def block(self, block: int) -> BlockLabels:
        kept = _kept_labels(self.digest)
        if block not in kept:
            store, labels = _opened(self.digest, self.labelled or self.location, self.labels)
            kept[block] = block_labels(self.design, store, labels, block)
        return kept[block]


@lru_cache(maxsize=1)
def _kept_labels(digest: str) -> dict[int, BlockLabels]:  # noqa: ARG001  # the digest is the key of the cache
    return {}


@lru_cache(maxsize=2)
def _opened(digest: str, location: Location, labels: str) -> tuple[Store, Labels]:  # noqa: ARG001  # as above
    store = open_store(location)
    return store, store.labels(labels)


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelCounts:
    """Of each column [C]: positive rows, all rows, and the ends of its control task's uniforms in each part [3, C]."""

    positives: np.ndarray
    members: np.ndarray
    least: np.ndarray
    most: np.ndarray

    def merge(self, other: "LabelCounts") -> "LabelCounts":
        return LabelCounts(
            positives=self.positives + other.positives,
            members=self.members + other.members,
            least=np.minimum(self.least, other.least),
            most=np.maximum(self.most, other.most),
        )

    @property
    def rates(self) -> np.ndarray:
        """Rates of control tasks: the concepts' own, moved as far as needed for both classes to occur in every part."""
        rates = self.positives / np.maximum(self.members, 1)
        return np.asarray(np.clip(rates, np.nextafter(self.least.max(axis=0), 1.0), self.most.min(axis=0)))


@dataclass(frozen=True, kw_only=True)
class CountPass:
    """block -> how often labels occur, and which control tasks its token types allow; no activation is read."""

    rowset: Rowset

    def __call__(self, block: int) -> LabelCounts:
        design, here = self.rowset.design, self.rowset.block(block)
        num, token_ids = len(design.columns), here.token_id
        members = here.members[:, design.populations[:num]]
        least, most = np.ones((len(PARTS), num)), np.zeros((len(PARTS), num))
        for c in range(num):
            uniforms = type_uniforms(token_ids, design.task_seed(c))
            for part in PARTS:
                own = uniforms[members[:, c] & (here.parts == part)]
                least[part, c], most[part, c] = own.min(initial=1.0), own.max(initial=0.0)
        positives = (here.labels[:, :num] * members).sum(axis=0, dtype=np.int64)
        return LabelCounts(positives=positives, members=members.sum(axis=0), least=least, most=most)


@dataclass(frozen=True, kw_only=True)
class TokenPass:
    """block -> how often each token has each label in the training rows; no activation is read."""

    rowset: Rowset

    def __call__(self, block: int) -> TokenCounts:
        design, here = self.rowset.design, self.rowset.block(block)
        num, train = len(design.columns), here.parts == TRAIN
        return TokenCounts.of(
            here.token_id[train],
            here.labels[train, :num].astype(np.float64),
            here.members[train],
            design.populations[:num],
        )


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
class Place:
    """Whose proposal it is: of the binary probes of a site, or of a concept of several classes there."""

    site: str
    classes: ClassColumns | None


@dataclass(frozen=True, kw_only=True, slots=True)
class LossStates:
    """Sums of one pass for every solver, merged together."""

    states: Mapping[Place, LossState | SoftmaxState]

    def merge(self, other: "LossStates") -> "LossStates":
        return LossStates(states={place: _merged(state, other.states[place]) for place, state in self.states.items()})


def _merged(one: LossState | SoftmaxState, other: LossState | SoftmaxState) -> LossState | SoftmaxState:
    return one.merge(cast(Any, other))  # a place has states of one kind


@dataclass(frozen=True, kw_only=True)
class LossPass:
    """block -> loss and gradient of every proposal: one reading of the store for all sites and solvers."""

    rowset: Rowset
    shifts: Mapping[str, np.ndarray]
    proposals: Mapping[Place, Proposal | SoftmaxProposal]

    def __call__(self, block: int) -> LossStates:
        states: dict[Place, LossState | SoftmaxState] = {}
        for site in dict.fromkeys(place.site for place in self.proposals):
            rows, _, members = training_rows(self.rowset, site, block)
            for place, proposal in self.proposals.items():
                if place.site == site:
                    states[place] = _state(rows, self.shifts[site], members, proposal)
        return LossStates(states=states)


def _state(
    rows: Rows, shift: np.ndarray, members: np.ndarray, proposal: Proposal | SoftmaxProposal
) -> LossState | SoftmaxState:
    if isinstance(proposal, Proposal):
        return LossState.of(rows, shift, members, proposal)
    return SoftmaxState.of(rows, shift, members, proposal)


def training_rows(rowset: Rowset, site: str, block: int) -> tuple[Rows, np.ndarray, np.ndarray]:
    """Rows, labels and members of the training documents of one block."""
    here = rowset.block(block)
    train = here.parts == TRAIN
    return rowset.store.block_rows(site, block)[train], here.labels[train].astype(np.float64), here.members[train]
