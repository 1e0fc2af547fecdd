"""A uniform sample of rows from every stratum, by one mergeable state: the rows of least random priority.

    sample = merge_tree(RowSample.of(strata, priorities, index, documents, most=500) for ... in blocks)
    sample.of_stratum(3)                # index and document of up to 500 rows, the least priority first
    sample.count                        # rows of every stratum in all [S]

A stratum is any set of rows, the positive rows of a concept in some documents say, and a row may be in several. Every
row draws a priority, uniform and by itself; those of the `most` least ones are a sample without replacement, the same
for any split of the rows (bottom-k sampling; Cohen and Kaplan 2007). The first n of it are a sample of n.

What can go wrong: priorities must be a function of the row alone, such as draws of a generator seeded by its block.

Legend: N rows, S strata, E entries of the sample.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SampledRows:
    """Rows of a stratum by their index in the store [n], and the document of each [n]."""

    index: np.ndarray
    document: np.ndarray


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RowSample:
    """At most `most` rows of each stratum: stratum, priority, index and document of each entry [E]; rows in all [S]."""

    most: int
    stratum: np.ndarray
    priority: np.ndarray
    index: np.ndarray
    document: np.ndarray
    count: np.ndarray

    @classmethod
    def of(
        cls, strata: np.ndarray, priorities: np.ndarray, index: np.ndarray, documents: np.ndarray, *, most: int
    ) -> "RowSample":
        """Summarise one block: which strata each row is in [N, S], and priority, index and document of each row [N]."""
        row, stratum = np.nonzero(strata)
        return _least(most, stratum, priorities[row], index[row], documents[row], strata.sum(axis=0, dtype=np.int64))

    def merge(self, other: "RowSample") -> "RowSample":
        return _least(
            self.most,
            np.concatenate([self.stratum, other.stratum]),
            np.concatenate([self.priority, other.priority]),
            np.concatenate([self.index, other.index]),
            np.concatenate([self.document, other.document]),
            self.count + other.count,
        )

    def of_stratum(self, stratum: int) -> SampledRows:
        """The sample of one stratum, by priority."""
        own = self.stratum == stratum
        return SampledRows(index=self.index[own], document=self.document[own])


def _least(
    most: int,
    stratum: np.ndarray,
    priority: np.ndarray,
    index: np.ndarray,
    document: np.ndarray,
    count: np.ndarray,
) -> RowSample:
    order = np.lexsort((index, priority, stratum))
    sorted_strata = stratum[order]
    rank = np.arange(len(order)) - np.searchsorted(sorted_strata, sorted_strata)
    kept = order[rank < most]
    return RowSample(
        most=most,
        stratum=stratum[kept],
        priority=priority[kept],
        index=index[kept],
        document=document[kept],
        count=count,
    )
