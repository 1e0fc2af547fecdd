"""What latents fire on: of each the rows with its largest codes, over a whole corpus.

    found = TopExamples.of(codes, rows, sequences, num_latents=4096, num=10)     # one block
    found = merge_tree(...)
    found.value[n], found.row[n]                                                 # [10] of latent n, largest first

A text whose tokens all fire a latent would fill its list and show one context ten times. So each sequence gives a
latent only its best row. Among equal codes the row that comes first in the store wins; the answer is then one for any
split of the rows, also one that cuts sequences.

What can go wrong: the largest codes are the tail of a latent, not what it mostly fires on; a page that shows them shows
others beside them.
"""

from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.sae.codes import Codes

NOTHING = -1


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TopExamples:
    """Mergeable: of M latents the Q best rows each, from as many sequences, in descending order [M, Q]."""

    value: np.ndarray
    """float32 codes, 0 where there are no more."""
    row: np.ndarray
    """int64 numbers of rows in the store, -1 where there are no more."""
    sequence: np.ndarray
    """int64 numbers of stored sequences, -1 where there are no more."""

    @classmethod
    def of(
        cls, codes: Codes, rows: np.ndarray, sequences: np.ndarray, *, num_latents: int, num: int = 10
    ) -> "TopExamples":
        """The best of one block: codes of N rows, their numbers [N] in the store, and their sequences [N]."""
        mask = codes.mask()
        value, latent = codes.value[mask].astype(np.float32), codes.index[mask].astype(np.int64)
        row = np.repeat(np.asarray(rows, dtype=np.int64), codes.count)
        sequence = np.repeat(np.asarray(sequences, dtype=np.int64), codes.count)
        return cls._best(latent, value, row, sequence, num_latents, num)

    def merge(self, other: "TopExamples") -> "TopExamples":
        """The best of both; they are of the same latents and of as many rows each."""

        def both(own: np.ndarray, theirs: np.ndarray) -> np.ndarray:
            return np.concatenate([own[self.row != NOTHING], theirs[other.row != NOTHING]])

        latent = np.concatenate([np.nonzero(self.row != NOTHING)[0], np.nonzero(other.row != NOTHING)[0]])
        return self._best(
            latent,
            both(self.value, other.value),
            both(self.row, other.row),
            both(self.sequence, other.sequence),
            *self.row.shape,
        )

    @classmethod
    def _best(
        cls, latent: np.ndarray, value: np.ndarray, row: np.ndarray, sequence: np.ndarray, num_latents: int, num: int
    ) -> "TopExamples":
        """Of each latent and sequence the best entry, and of these of each latent the first `num`."""
        order = np.lexsort((row, -value, sequence, latent))
        order = order[_first_of(latent[order], sequence[order])]
        order = order[np.lexsort((row[order], -value[order], latent[order]))]
        place = _place(latent[order])
        order, place = order[place < num], place[place < num]
        found = cls(
            value=np.zeros((num_latents, num), np.float32),
            row=np.full((num_latents, num), NOTHING, np.int64),
            sequence=np.full((num_latents, num), NOTHING, np.int64),
        )
        for array, entries in ((found.value, value), (found.row, row), (found.sequence, sequence)):
            array[latent[order], place] = entries[order]
        return found


def _first_of(*keys: np.ndarray) -> np.ndarray:
    """True where any of the sorted keys differs from the one before."""
    first = np.ones(len(keys[0]), dtype=bool)
    first[1:] = np.logical_or.reduce([key[1:] != key[:-1] for key in keys])
    return first


def _place(ascending: np.ndarray) -> np.ndarray:
    """How many equal ones stand before each of some ascending numbers."""
    return np.asarray(np.arange(len(ascending)) - np.searchsorted(ascending, ascending, side="left"))
