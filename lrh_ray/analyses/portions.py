"""Portions of a corpus that double what has been seen, and probes fitted on everything before each.

How soon a probe finds a property is asked with prefixes of the corpus: 1/1024 of the documents, 1/512, ..., all of
them. Moments of portions are kept apart in one pass and added up, so a closed-form probe of every prefix costs no
further reading.

    portions = Portions.draw(num_documents, seed=0)
    state = merge_tree(
        PortionMoments.of(rows, shift, labels, members, populations, portions.of_document[documents], num_portions)
        for rows, labels, members, documents in blocks
    )
    state.readouts(lambda moments: fit_lda(moments, shrinkage=0.1))       # of every prefix but the whole

What can go wrong: the order of documents must have nothing to do with their content, so it is drawn at random; a first
portion without two rows of a population has no moments, use fewer portions.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from lrh_ray.analyses.layouts import ColumnInts, DocumentInts, Members, RowPortions
from lrh_ray.analyses.moments import LabelledMoments, Moments
from lrh_ray.analyses.readout import LinearReadout
from lrh_ray.errors import ConfigError
from lrh_ray.layouts import Feature64, Labels64, Rows

NUM_PORTIONS = 11
"""The last portion is half of the documents, the first 1 in 1024."""

Fit: TypeAlias = Callable[[Moments], LinearReadout]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Portions:
    """Portion of every document [S]; portions 0 .. s hold 2^s times the documents of portion 0."""

    of_document: DocumentInts
    num_portions: int

    @classmethod
    def draw(cls, num_documents: int, seed: int, num_portions: int = NUM_PORTIONS) -> "Portions":
        """A random order of the documents, cut after S / 2^(P - 1), ..., S / 4, S / 2 and S of them, rounded up.

        Raises:
            ConfigError: fewer than 2 portions, or more than the documents can fill.
        """
        if num_portions < 2 or 2 ** (num_portions - 1) > num_documents:
            raise ConfigError(
                f"{num_documents} documents were to be cut into {num_portions} portions that double; use at least 2 "
                "portions, and at most 1 + log2(documents)."
            )
        rank = np.random.default_rng(seed).permutation(num_documents)
        ends = np.ceil(num_documents / 2.0 ** np.arange(num_portions - 1, -1, -1))
        return cls(of_document=np.searchsorted(ends, rank, side="right"), num_portions=num_portions)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PortionMoments:
    """Mergeable moments of every portion."""

    states: tuple[LabelledMoments, ...]

    @classmethod
    def of(
        cls,
        rows: Rows,
        shift: Feature64,
        labels: Labels64,
        members: Members,
        populations: ColumnInts,
        portions: RowPortions,
        num_portions: int,
    ) -> "PortionMoments":
        """Summarise one block: as `LabelledMoments.of`, with the portion [N] of each row, at the same cost."""
        own = [np.flatnonzero(portions == s) for s in range(num_portions)]
        return cls(states=tuple(LabelledMoments.of(rows[r], shift, labels[r], members[r], populations) for r in own))

    def merge(self, other: "PortionMoments") -> "PortionMoments":
        return PortionMoments(states=tuple(a.merge(b) for a, b in zip(self.states, other.states, strict=True)))

    def prefixes(self) -> tuple[Moments, ...]:
        """Moments of portions 0 .. s - 1 for every s > 0.

        Raises:
            NotEnoughData: the first portion has fewer than 2 rows of a population; use fewer portions.
        """
        merged, result = self.states[0], []
        for state in self.states[1:]:
            result.append(merged.finalize())
            merged = merged.merge(state)
        return tuple(result)

    def readouts(self, fit: Fit) -> tuple[LinearReadout, ...]:
        """The probes of every prefix; those of columns with one class so far have weights and intercepts of 0."""
        return tuple(fit_known(moments, fit) for moments in self.prefixes())


def prefix(members: Members, portions: RowPortions, s: int) -> Members:
    """The members among rows of portions 0 .. s - 1: what a probe that needs passes of its own is fitted on."""
    return np.asarray(members & (portions < s)[:, None])


def fit_known(moments: Moments, fit: Fit) -> LinearReadout:
    """Probes of all columns: fitted where both classes occur, with weights and intercepts of 0 elsewhere."""
    count = moments.count[moments.populations]
    both = (moments.positives > 0) & (moments.positives < count)
    if both.all():
        return fit(moments)
    # a stand-in label that has nothing to do with the rows keeps the shape of the answer
    readout = fit(
        replace(
            moments,
            positives=np.where(both, moments.positives, count // 2),
            positive_offset=np.where(both, moments.positive_offset, moments.offset[moments.populations].T),
        )
    )
    says = both[readout.columns]
    return replace(readout, weights=readout.weights * says, intercepts=readout.intercepts * says)
