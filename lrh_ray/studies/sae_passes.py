"""What workers compute for autoencoders: sums of one block, before training and after it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from torch import Tensor

from lrh_ray.analyses.joint import JointMoments
from lrh_ray.analyses.sae.evaluation import Reconstruction
from lrh_ray.analyses.sae.reader import Reader
from lrh_ray.analyses.sae.threshold import PreActivationCounts
from lrh_ray.analyses.state import SideBySide
from lrh_ray.layouts import Rows
from lrh_ray.store.objects import Location
from lrh_ray.store.reader import Store, open_store

TRAINING, HELD_OUT = -1, 0
"""Group of training sequences; held-out ones have groups from 0 on."""


@dataclass(frozen=True, kw_only=True)
class SaeRows:
    """Which rows of a store are trained on, and to which group of documents the others belong."""

    location: Location
    root: str
    group: np.ndarray
    """[sequences] `TRAINING`, or a group of the jackknife."""
    sinks: str

    def store(self) -> Store:
        return _opened(self.location, self.root)

    def block(self, site: str, block: int, *, sinks: str | None = None) -> tuple[Rows, np.ndarray]:
        """Rows of a block that stand for text, and the group of each; `sinks` as in the settings, or another choice."""
        store = self.store()
        keys = store.keys(block)
        kept = keys.char_end > keys.char_start
        if (sinks or self.sinks) == "drop":
            kept &= ~store.sink_mask(block)
        return store.block_rows(site, block)[kept], self.group[keys.doc[kept].astype(np.int64)]


@lru_cache(maxsize=4)
def _opened(location: Location, root: str) -> Store:  # noqa: ARG001  # the root says which store stands there
    return open_store(location)


@dataclass(frozen=True, kw_only=True)
class UnitPass:
    """block -> sums and products of the rows of one site, training rows in group 0, held-out ones in 1."""

    rows: SaeRows
    site: str
    shift: np.ndarray

    def __call__(self, block: int) -> JointMoments:
        rows, group = self.rows.block(self.site, block)
        nothing = np.empty((len(rows), 0), rows.dtype)
        part = (group != TRAINING).astype(np.int64)
        return JointMoments.of(rows, nothing, shift=self.shift, groups=part, num_groups=2)


@dataclass(frozen=True, kw_only=True)
class ThresholdPass:
    """block -> counts of pre-activations of training rows."""

    rows: SaeRows
    site: str
    parameters: Mapping[str, Tensor]
    prefix: int | None = None

    def __call__(self, block: int) -> PreActivationCounts:
        rows, group = self.rows.block(self.site, block)
        return PreActivationCounts.of(rows[group == TRAINING], self.parameters, prefix=self.prefix)


@dataclass(frozen=True, kw_only=True)
class EvaluationPass:
    """block -> what each autoencoder of one site leaves unexplained of held-out rows."""

    rows: SaeRows
    site: str
    readers: tuple[Reader, ...]
    centre: np.ndarray
    num_groups: int
    sinks: str | None = None

    def __call__(self, block: int) -> SideBySide[Reconstruction]:
        rows, group = self.rows.block(self.site, block, sinks=self.sinks)
        own, groups = rows[group != TRAINING], group[group != TRAINING]
        return SideBySide(
            of=tuple(
                Reconstruction.of(own, reader, self.centre, groups, num_groups=self.num_groups)
                for reader in self.readers
            )
        )
