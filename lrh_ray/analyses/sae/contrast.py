"""Which latents fire on some rows more than on others: the rows of one token, say, against all others.

    contrast = TokenContrast.of(rows, reader, chosen, sequences, groups, num_groups=20, draws=100, rng=rng)
    contrast = merge_tree(...)
    contrast.scores()                            # [M]
    contrast.null_high(), contrast.adjusted(scores)
    contrast.interval(17)

    score = (mean code on the chosen rows - mean code on the others) / standard deviation over all rows

A difference of bare means would rank latents by the size of their codes.

The null: inside every sequence the choice is shuffled among its rows, `draws` times, and scored in the same way. So it
has as many rows of the same texts, and what it reaches is what the texts are about and not the token. The largest of M
scores is large by chance alone; a latent is therefore held against the largest of every draw (max-T). Where the chosen
rows could as well stand anywhere in their texts, the list of latents above `null_high` is empty with probability 95 %.

What can go wrong: chosen rows in fewer than two groups of documents have no interval; in sequences of nothing but
chosen rows there is nothing to shuffle, so nothing is found. Sums of 1,024 rows are float32, of these float64.

Legend: N rows, M latents, G groups, B draws.
"""

from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.jackknife import Estimate, jackknife_interval
from lrh_ray.analyses.layouts import GroupIndex
from lrh_ray.analyses.sae.reader import Reader, codes_by_tile
from lrh_ray.errors import NotEnoughData
from lrh_ray.layouts import RowMask, Rows

LEVEL = 0.95


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TokenContrast:
    """Mergeable sums of codes; float64 and int64."""

    chosen: np.ndarray
    """[G, M] over the chosen rows of each group."""
    every: np.ndarray
    """[G, M] over all rows."""
    drawn: np.ndarray
    """[B, M] over the rows of each shuffled choice."""
    square: np.ndarray
    """[M] of squares, over all rows."""
    fired: np.ndarray
    """[2, M] chosen rows and all rows in which a latent fires."""
    rows: np.ndarray
    """[2, G] chosen rows and all rows."""

    @classmethod
    def of(
        cls,
        rows: Rows,
        reader: Reader,
        chosen: RowMask,
        sequences: np.ndarray,
        groups: GroupIndex,
        *,
        num_groups: int,
        draws: int,
        rng: np.random.Generator,
    ) -> "TokenContrast":
        """Sums of one block: rows [N, D], which are chosen [N], their sequences [N] and groups [N].

        Sequences lie inside blocks, and so do their shuffles: the answer does not depend on who computes which block.
        """
        picked = _shuffled(chosen, sequences, draws, rng)
        weights_KN = np.zeros((2 * num_groups + draws, len(rows)), np.float32)
        weights_KN[groups[chosen], np.flatnonzero(chosen)] = 1
        weights_KN[num_groups + groups, np.arange(len(rows))] = 1
        np.add.at(weights_KN, (2 * num_groups + np.arange(draws)[:, None], picked), 1)
        sums_KM: np.ndarray | float = 0.0
        square_M: np.ndarray | float = 0.0
        fired_2M: np.ndarray | int = 0
        for tile, codes_NM in codes_by_tile(reader, rows):
            sums_KM = sums_KM + (weights_KN[:, tile] @ codes_NM).astype(np.float64)
            square_M = square_M + np.einsum("nm,nm->m", codes_NM, codes_NM).astype(np.float64)
            fires = codes_NM > 0
            fired_2M = fired_2M + np.stack([fires[chosen[tile]].sum(axis=0), fires.sum(axis=0)])
        parts = np.split(np.asarray(sums_KM), [num_groups, 2 * num_groups])
        return cls(
            chosen=parts[0],
            every=parts[1],
            drawn=parts[2],
            square=np.asarray(square_M),
            fired=np.asarray(fired_2M),
            rows=np.stack(
                [np.bincount(groups[chosen], minlength=num_groups), np.bincount(groups, minlength=num_groups)]
            ),
        )

    def merge(self, other: "TokenContrast") -> "TokenContrast":
        return TokenContrast(**{name: getattr(self, name) + getattr(other, name) for name in self.__slots__})

    def scores(self) -> np.ndarray:
        """Score of every latent [M]; 0 for one that never fires.

        Raises:
            NotEnoughData: No row is chosen, or all are.
        """
        return self._scores(self.chosen.sum(axis=0))

    def null_scores(self) -> np.ndarray:
        """Scores of the shuffled choices [B, M].

        Raises:
            NotEnoughData: No row is chosen, or all are.
        """
        return self._scores(self.drawn)

    def null_high(self) -> float:
        """What the largest of M scores of a shuffled choice exceeds with probability 5 %."""
        return float(np.quantile(self.null_scores().max(axis=1), LEVEL, method="higher"))

    def adjusted(self, scores: np.ndarray) -> np.ndarray:
        """For each score the probability that the largest of M reaches it by chance: (1 + draws that do) / (1 + B)."""
        largest = self.null_scores().max(axis=1)
        return np.asarray((1 + (largest[:, None] >= scores).sum(axis=0)) / (1 + len(largest)))

    def interval(self, latent: int) -> Estimate:
        """The score of a latent, jackknifed over groups; its standard deviation is taken as known.

        Raises:
            NotEnoughData: Fewer than two groups have chosen rows.
        """
        if (num := np.count_nonzero(self.rows[0])) < 2:
            raise NotEnoughData(f"The token stands in {num} groups of documents; an interval needs at least 2.")
        used = np.flatnonzero(self.rows[1])
        deviation = float(self._deviation[latent])
        chosen, every = self.chosen[:, latent], self.every[:, latent]
        without = [self._contrast(chosen, every, group) / deviation if deviation else 0.0 for group in used.tolist()]
        return jackknife_interval(float(self.scores()[latent]), without)

    def means(self) -> np.ndarray:
        """Mean codes [2, M] of the chosen rows and of the others."""
        chosen, every = self.chosen.sum(axis=0), self.every.sum(axis=0)
        own, whole = self.rows.sum(axis=1)
        return np.stack([chosen / own, (every - chosen) / (whole - own)])

    @property
    def _deviation(self) -> np.ndarray:
        """Standard deviation of codes over all rows [M]."""
        num = self.rows[1].sum()
        mean = self.every.sum(axis=0) / num
        return np.asarray(np.sqrt(np.maximum(self.square / num - mean**2, 0)))

    def _scores(self, sums: np.ndarray) -> np.ndarray:
        own, whole = self.rows.sum(axis=1)
        if not 0 < own < whole:
            raise NotEnoughData(
                f"{own} of {whole} rows have the token; a contrast needs rows with it and without. Look for another "
                f"token, or in a larger store."
            )
        difference = sums / own - (self.every.sum(axis=0) - sums) / (whole - own)
        deviation = self._deviation
        return np.asarray(np.where(deviation > 0, difference / np.where(deviation > 0, deviation, 1), 0))

    def _contrast(self, chosen: np.ndarray, every: np.ndarray, group: int) -> float:
        """Difference of the means of one latent without one group."""
        own, whole = self.rows.sum(axis=1) - self.rows[:, group]
        on, total = chosen.sum() - chosen[group], every.sum() - every[group]
        return float(on / own - (total - on) / (whole - own))


def _shuffled(chosen: RowMask, sequences: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """As many rows of each sequence as are chosen there, at random [B, n]."""
    rows = np.flatnonzero(np.isin(sequences, sequences[chosen]))
    rows = rows[np.argsort(sequences[rows], kind="stable")]
    own = sequences[rows]
    _, first, inverse = np.unique(own, return_index=True, return_inverse=True)
    place, num = np.arange(len(rows)) - first[inverse], np.bincount(inverse, weights=chosen[rows])
    taken = place < num[inverse]
    orders = [np.lexsort((rng.random(len(rows)), own)) for _ in range(draws)]
    return np.stack([rows[order[taken]] for order in orders])
