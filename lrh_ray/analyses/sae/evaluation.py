"""What an autoencoder leaves unexplained, over a whole corpus: sums of every group of documents.

    sums = Reconstruction.of(rows, reader, centre, groups, num_groups=20)
    total = merge_tree(...)
    total.fvu()                       # Estimate: corpus-exact, with its jackknife interval
    total.l0(), total.density         # codes of a row; how often each latent fires [M]
    total.dead()                      # share of latents that never fire

A transcoder explains a `target` and not its rows. Rows of several sites side by side are judged as one row of all of
them, each divided by its `scale`, and site by site: `total.of_site(0).fvu()`.

FVU = sum |x - x^|^2 / sum |x - mean|^2, both sums over the whole corpus. Averaged over batches, as is usual, it is
another number: the ratio of small sums is biased, and each batch then has a mean of its own.

The interval of `dead` comes from the latents that fire in one group of documents only: as many as each group alone has
shown, other documents may show or hide (the jackknife of species seen, Heltshe & Forrester 1983). It speaks of as many
rows as were read; among more rows fewer are dead.

What can go wrong: rows that are not finite make every number NaN; they are counted, and whoever reports says so.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from lrh_ray.analyses.jackknife import Estimate, jackknife_interval
from lrh_ray.analyses.layouts import GroupIndex
from lrh_ray.analyses.sae.reader import Reader, tiles
from lrh_ray.errors import NotEnoughData
from lrh_ray.layouts import Rows

ERROR, SQUARE, CODES, COSINE, ROWS = range(5)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Reconstruction:
    """Mergeable sums over rows, of each of G groups of documents; float64."""

    sums: np.ndarray
    """[G, 5]: squared error, squared distance from the centre, codes, cosines of row and reconstruction, rows."""
    offset: np.ndarray
    """Sum of rows less the centre [G, D]."""
    fired: np.ndarray
    """How many rows each latent fires in [M], int64."""
    ends: np.ndarray
    """First and last group that each latent fires in [2, M], int32; G and -1 of one that never does."""
    starts: tuple[int, ...] = ()
    """First feature of each of S sites; none of one site."""
    of_sites: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 2)))
    """Squared error and squared distance from the centre at each site [G, S, 2]."""

    @classmethod
    def of(
        cls,
        rows: Rows,
        reader: Reader,
        centre: np.ndarray,
        groups: GroupIndex,
        *,
        num_groups: int,
        target: np.ndarray | None = None,
        scale: np.ndarray | None = None,
        starts: tuple[int, ...] = (),
    ) -> "Reconstruction":
        """Summarise one block: rows [N, D] of any float type, groups [N].

        `centre` [D'] is any row, best near the mean of what is explained: of `target` [N, D'], or of the rows
        themselves. `scale` [D'] divides them, feature by feature; `starts` are the first features of several sites.
        """
        fired: np.ndarray | int = 0
        ends: np.ndarray | None = None
        sums, offset = np.zeros((num_groups, 5)), np.zeros((num_groups, len(centre)))
        of_sites = np.zeros((num_groups, len(starts), 2))
        for tile, x in tiles(rows):
            aim = x.numpy() if target is None else target[tile].astype(np.float32)
            with torch.no_grad():
                codes = reader.codes(x)
                rebuilt = reader.decode(codes, x)
            fires = codes > 0
            fired = fired + fires.sum(dim=0).numpy()
            found = _ends(fires, groups[tile], num_groups)
            ends = found if ends is None else _outermost(ends, found)
            y, centred = torch.from_numpy(aim), aim.astype(np.float64) - centre
            if scale is not None:
                unit = torch.from_numpy(scale.astype(np.float32))
                y, rebuilt, centred = y / unit, rebuilt / unit, centred / scale
            error = (rebuilt - y).double().numpy()
            cosine = torch.cosine_similarity(y, rebuilt, dim=1).double().numpy()
            values = np.stack(
                [
                    np.einsum("nd,nd->n", error, error),
                    np.einsum("nd,nd->n", centred, centred),
                    fires.sum(dim=1).double().numpy(),
                    cosine,
                    np.ones(len(x)),
                ],
                axis=1,
            )
            np.add.at(sums, groups[tile], values)
            np.add.at(offset, groups[tile], centred)
            if starts:
                parts = [np.add.reduceat(square, starts, axis=1) for square in (error**2, centred**2)]
                np.add.at(of_sites, groups[tile], np.stack(parts, axis=2))
        return cls(
            sums=sums,
            offset=offset,
            fired=np.asarray(fired, dtype=np.int64),
            ends=np.asarray(ends),
            starts=starts,
            of_sites=of_sites,
        )

    def merge(self, other: "Reconstruction") -> "Reconstruction":
        return Reconstruction(
            sums=self.sums + other.sums,
            offset=self.offset + other.offset,
            fired=self.fired + other.fired,
            ends=_outermost(self.ends, other.ends),
            starts=self.starts,
            of_sites=self.of_sites + other.of_sites,
        )

    def of_site(self, number: int) -> "Reconstruction":
        """The same codes judged by one of several sites alone; it has no cosine."""
        own = slice(*(*self.starts, self.offset.shape[1])[number : number + 2])
        sums = self.sums.copy()
        sums[:, [ERROR, SQUARE]], sums[:, COSINE] = self.of_sites[:, number], np.nan
        return Reconstruction(sums=sums, offset=self.offset[:, own], fired=self.fired, ends=self.ends)

    @property
    def rows(self) -> int:
        return int(self.sums[:, ROWS].sum())

    @property
    def used(self) -> np.ndarray:
        """Groups that have rows."""
        return np.flatnonzero(self.sums[:, ROWS])

    @property
    def density(self) -> np.ndarray:
        """Share of rows in which each latent fires [M]."""
        return np.asarray(self.fired / max(1, self.rows))

    def dead(self) -> Estimate:
        """Share of latents that fire in no row, between 0 and 1."""
        found = self.of_firing(lambda fires: float((~fires).mean()))
        return Estimate(value=found.value, low=max(0.0, found.low), high=min(1.0, found.high))

    def of_firing(self, statistic: Callable[[np.ndarray], float]) -> Estimate:
        """A number of the latents that fire [M], jackknifed: without a group, those that fire in another one.

        Raises:
            NotEnoughData: Fewer than two groups have rows.
        """
        fires, (first, last) = self.fired > 0, self.ends
        without = [statistic(fires & ~((first == g) & (last == g))) for g in self._groups()]
        return jackknife_interval(statistic(fires), without)

    def fvu(self) -> Estimate:
        """Fraction of variance unexplained."""
        return self._estimate(fvu_of)

    def l0(self) -> Estimate:
        """Codes of a row."""
        return self._estimate(lambda sums, _: float(sums[CODES] / sums[ROWS]))

    def cosine(self) -> Estimate:
        """Mean cosine of a row and its reconstruction."""
        return self._estimate(lambda sums, _: float(sums[COSINE] / sums[ROWS]))

    def _estimate(self, statistic: Callable[[np.ndarray, np.ndarray], float]) -> Estimate:
        """A number of all rows, jackknifed over the groups that have any.

        Raises:
            NotEnoughData: Fewer than two groups have rows.
        """
        whole, offset = self.sums.sum(axis=0), self.offset.sum(axis=0)
        without = [statistic(whole - self.sums[g], offset - self.offset[g]) for g in self._groups()]
        return jackknife_interval(statistic(whole, offset), without)

    def _groups(self) -> list[int]:
        """Those that have rows."""
        if len(self.used) < 2:
            raise NotEnoughData(f"{len(self.used)} groups of documents have rows; an interval needs at least 2.")
        return [int(group) for group in self.used]


def _ends(fires: torch.Tensor, groups: np.ndarray, num_groups: int) -> np.ndarray:
    """First and last group [2, M] with a row [N, M] in which a latent fires."""
    found = np.stack([np.full(fires.shape[1], end, np.int32) for end in (num_groups, -1)])
    for group in np.unique(groups).tolist():
        own = fires[torch.from_numpy(groups == group)].any(dim=0).numpy()
        found[0, own & (found[0] == num_groups)], found[1, own] = group, group
    return found


def _outermost(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.stack([np.minimum(one[0], other[0]), np.maximum(one[1], other[1])])


def fvu_of(sums: np.ndarray, offset: np.ndarray) -> float:
    """FVU from the sums [5] and the offset [D] of some groups; NaN where nothing varies."""
    variance = sums[SQUARE] - offset @ offset / sums[ROWS]
    return float(sums[ERROR] / variance) if variance > 0 else float("nan")
