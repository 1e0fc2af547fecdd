"""What an autoencoder leaves unexplained, over a whole corpus: sums of every group of documents.

    sums = Reconstruction.of(rows, reader, centre, groups, num_groups=20)
    total = merge_tree(...)
    total.fvu()                       # Estimate: corpus-exact, with its jackknife interval
    total.l0(), total.density         # codes of a row; how often each latent fires [M]

A transcoder explains a `target` and not its rows. Rows of several sites side by side are judged as one row of all of
them, each divided by its `scale`, and site by site: `total.of_site(0).fvu()`.

FVU = sum |x - x^|^2 / sum |x - mean|^2, both sums over the whole corpus. Averaged over batches, as is usual, it is
another number: the ratio of small sums is biased, and each batch then has a mean of its own.

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
        sums, offset = np.zeros((num_groups, 5)), np.zeros((num_groups, len(centre)))
        of_sites = np.zeros((num_groups, len(starts), 2))
        for tile, x in tiles(rows):
            aim = x.numpy() if target is None else target[tile].astype(np.float32)
            with torch.no_grad():
                codes = reader.codes(x)
                rebuilt = reader.decode(codes, x)
            fires = codes > 0
            fired = fired + fires.sum(dim=0).numpy()
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
        return cls(sums=sums, offset=offset, fired=np.asarray(fired, dtype=np.int64), starts=starts, of_sites=of_sites)

    def merge(self, other: "Reconstruction") -> "Reconstruction":
        return Reconstruction(
            sums=self.sums + other.sums,
            offset=self.offset + other.offset,
            fired=self.fired + other.fired,
            starts=self.starts,
            of_sites=self.of_sites + other.of_sites,
        )

    def of_site(self, number: int) -> "Reconstruction":
        """The same codes judged by one of several sites alone; it has no cosine."""
        own = slice(*(*self.starts, self.offset.shape[1])[number : number + 2])
        sums = self.sums.copy()
        sums[:, [ERROR, SQUARE]], sums[:, COSINE] = self.of_sites[:, number], np.nan
        return Reconstruction(sums=sums, offset=self.offset[:, own], fired=self.fired)

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

    @property
    def dead(self) -> float:
        """Share of latents that fire in no row."""
        return float((self.fired == 0).mean())

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
        used = self.used
        if len(used) < 2:
            raise NotEnoughData(f"{len(used)} groups of documents have rows; an interval needs at least 2.")
        whole, offset = self.sums.sum(axis=0), self.offset.sum(axis=0)
        without = [statistic(whole - self.sums[g], offset - self.offset[g]) for g in used.tolist()]
        return jackknife_interval(statistic(whole, offset), without)


def fvu_of(sums: np.ndarray, offset: np.ndarray) -> float:
    """FVU from the sums [5] and the offset [D] of some groups; NaN where nothing varies."""
    variance = sums[SQUARE] - offset @ offset / sums[ROWS]
    return float(sums[ERROR] / variance) if variance > 0 else float("nan")
