"""The raw-token baseline: what the token alone says about a label, counted on training rows.

    counts = merge_tree(TokenCounts.of(token_ids, labels, members, populations) for blocks)
    scores = counts.log_odds(held_out_token_ids)                    # [N, C] nats

A probe that is no better than this table has read nothing but the identity of the token, which the embedding already
holds. Counts of a token are smoothed towards the column's rate by one row, so a token that training never saw has the
odds of the rate.

Legend: N rows, T distinct tokens, C label columns, P populations.
"""

from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.layouts import ColumnInts, Members, ProbeScores
from lrh_ray.layouts import Labels64, Tokens

PSEUDO_ROWS = 1.0


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TokenCounts:
    """Mergeable counts of every token that occurs."""

    tokens: np.ndarray
    """[T] ids, ascending."""
    rows: np.ndarray
    """[T, C] rows of each column's population."""
    positives: np.ndarray
    """[T, C] positive ones among them."""

    @classmethod
    def of(cls, token_ids: Tokens, labels: Labels64, members: Members, populations: ColumnInts) -> "TokenCounts":
        """Count one block: labels [N, C], members [N, P], the population of each column [C]."""
        inside = members[:, populations]
        return cls._summed(np.asarray(token_ids, dtype=np.int64), inside.astype(np.int64), (labels > 0.5) & inside)

    def merge(self, other: "TokenCounts") -> "TokenCounts":
        def both(own: np.ndarray, theirs: np.ndarray) -> np.ndarray:
            return np.concatenate([own, theirs])

        return self._summed(
            both(self.tokens, other.tokens), both(self.rows, other.rows), both(self.positives, other.positives)
        )

    @classmethod
    def _summed(cls, tokens: np.ndarray, rows: np.ndarray, positives: np.ndarray) -> "TokenCounts":
        known, inverse = np.unique(tokens, return_inverse=True)
        summed = np.zeros((2, len(known), rows.shape[1]), dtype=np.int64)
        np.add.at(summed[0], inverse, rows)
        np.add.at(summed[1], inverse, positives)
        return cls(tokens=known, rows=summed[0], positives=summed[1])

    def log_odds(self, token_ids: Tokens) -> ProbeScores:
        """Log-odds of each column given the token [N, C]."""
        total, positive = self.rows.sum(axis=0), self.positives.sum(axis=0)
        rate = (positive + 0.5) / (total + 1.0)
        place = np.searchsorted(self.tokens, token_ids)
        place = np.minimum(place, len(self.tokens) - 1)
        known = (self.tokens[place] == token_ids)[:, None]
        positives = np.where(known, self.positives[place], 0) + PSEUDO_ROWS * rate
        negatives = np.where(known, self.rows[place] - self.positives[place], 0) + PSEUDO_ROWS * (1 - rate)
        return np.asarray(np.log(positives) - np.log(negatives))
