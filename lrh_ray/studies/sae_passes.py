"""What workers compute for autoencoders: sums of one block, before training and after it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from lrh_ray.analyses.joint import JointMoments
from lrh_ray.analyses.row_counts import RowCounts
from lrh_ray.analyses.sae.architectures.conca import CodeMoments
from lrh_ray.analyses.sae.evaluation import Reconstruction
from lrh_ray.analyses.sae.reader import Reader
from lrh_ray.analyses.sae.threshold import PreActivationCounts
from lrh_ray.analyses.state import SideBySide
from lrh_ray.layouts import RowMask, Rows
from lrh_ray.store.objects import Location
from lrh_ray.store.parts import RowKeys
from lrh_ray.store.reader import Store
from lrh_ray.studies.places import Place
from lrh_ray.studies.sae_map_config import SiteMap
from lrh_ray.studies.sae_maps import MapUnit, side_by_side

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
        return Place(location=self.location, root=self.root).open()

    def block(self, site: str, block: int, *, sinks: str | None = None) -> tuple[Rows, np.ndarray]:
        """Rows of a block that stand for text, and the group of each; `sinks` as in the settings, or another choice."""
        rows, keys = self.keyed((site,), block, sinks=sinks)
        return rows, self.group_of(keys)

    def keyed(self, sites: Sequence[str], block: int, *, sinks: str | None = None) -> tuple[Rows, RowKeys]:
        """The same rows of several sites side by side, and who they are."""
        keys, kept = self.kept(block, sinks=sinks)
        return self.read(sites, block, kept), keys

    def read(self, sites: Sequence[str], block: int, kept: np.ndarray) -> Rows:
        """Rows of a block that are `kept` [all its rows], of several sites side by side."""
        return side_by_side([self.store().block_rows(site, block)[kept] for site in sites])

    def kept(self, block: int, *, sinks: str | None = None) -> tuple[RowKeys, RowMask]:
        """Who these rows are, and which of all rows of the block."""
        store = self.store()
        keys = store.keys(block)
        kept = keys.char_end > keys.char_start
        if (sinks or self.sinks) == "drop":
            kept &= ~store.sink_mask(block)
        return keys.select(kept), kept

    def group_of(self, keys: RowKeys) -> np.ndarray:
        """Group of each row."""
        return np.asarray(self.group[keys.doc.astype(np.int64)])

    def end(self, sites: Sequence[str], block: int, *, sinks: str | None = None) -> tuple[Rows, np.ndarray]:
        """The same of several sites, side by side."""
        found = [self.block(site, block, sinks=sinks) for site in sites]
        return side_by_side([rows for rows, _ in found]), found[0][1]


@dataclass(frozen=True, kw_only=True)
class LeftOutPass:
    """block -> rows that are in no number: those that stand for no text, and sinks among the others where they go.

    Training rows are in group 0, held-out ones in 1. Reads keys and norms, no rows.
    """

    rows: SaeRows

    def __call__(self, block: int) -> RowCounts:
        keys = self.rows.store().keys(block)
        text, kept = (self.rows.kept(block, sinks=sinks)[1] for sinks in ("keep", None))
        part = (self.rows.group_of(keys) != TRAINING).astype(np.int64)
        return RowCounts.of({"without text": ~text, "sinks": text & ~kept}, part, num_groups=2)


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
class EndsPass:
    """block -> sums and products of what a map reads and of what it explains, as training has them.

    Training rows are in group 0, held-out ones in 1. What a crosscoder explains is what it reads, and is left out.
    """

    rows: SaeRows
    ends: SiteMap
    unit: MapUnit

    def __call__(self, block: int) -> JointMoments:
        scales, read_centre = self.unit.scales, self.unit.read_centre
        rows, group = self.rows.end(self.ends.reads, block)
        x = rows.astype(np.float64) / scales.read.numpy()
        if read_centre is None:
            y, shift = np.empty((len(x), 0)), self.unit.centre
        else:
            y = self.rows.end(self.ends.writes, block)[0].astype(np.float64) / scales.written.numpy()
            shift = np.concatenate([read_centre, self.unit.centre])
        return JointMoments.of(x, y, shift=shift, groups=(group != TRAINING).astype(np.int64), num_groups=2)


@dataclass(frozen=True, kw_only=True)
class ThresholdPass:
    """block -> counts of pre-activations of training rows."""

    rows: SaeRows
    sites: tuple[str, ...]
    """That are read."""
    parameters: Mapping[str, Tensor]
    prefix: int | None = None

    def __call__(self, block: int) -> PreActivationCounts:
        rows, group = self.rows.end(self.sites, block)
        return PreActivationCounts.of(rows[group == TRAINING], self.parameters, prefix=self.prefix)


@dataclass(frozen=True, kw_only=True)
class CodesPass:
    """block -> moments of the codes of training rows."""

    rows: SaeRows
    sites: tuple[str, ...]
    """That are read."""
    reader: Reader

    def __call__(self, block: int) -> CodeMoments:
        rows, group = self.rows.end(self.sites, block)
        return CodeMoments.of(rows[group == TRAINING], self.reader)


@dataclass(frozen=True, kw_only=True)
class EvaluationPass:
    """block -> what each autoencoder of one map leaves unexplained of held-out rows."""

    rows: SaeRows
    ends: SiteMap
    unit: MapUnit
    readers: tuple[Reader, ...]
    num_groups: int
    sinks: str | None = None

    def __call__(self, block: int) -> SideBySide[Reconstruction]:
        rows, group = self.rows.end(self.ends.reads, block, sinks=self.sinks)
        held_out, target = group != TRAINING, None
        if self.ends.transcodes:
            target = self.rows.end(self.ends.writes, block, sinks=self.sinks)[0][held_out]
        own, groups, unit = rows[held_out], group[held_out], self.unit
        return SideBySide(
            of=tuple(
                Reconstruction.of(
                    own,
                    reader,
                    unit.written_centre,
                    groups,
                    num_groups=self.num_groups,
                    target=target,
                    scale=unit.scales.written.numpy() if unit.starts else None,
                    starts=unit.starts,
                )
                for reader in self.readers
            )
        )
