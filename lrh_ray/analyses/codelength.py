"""Minimum description length of labels given rows: how many bits it takes to send labels to someone with the rows.

Accuracy asks whether a probe finds a property; the codelength asks also how soon. Labels are sent portion by portion,
each doubling the documents seen so far (Voita & Titov 2020, online code):

    bits = rows of portion 0  -  sum over portions s > 0 of sum over their rows of log2 p_s(label | row)

where probe s is fitted on portions 0 .. s - 1, and portion 0 costs one bit a label, the uniform code. A probe that
needs the whole corpus to find a property pays for it in every earlier portion; one that memorises pays in the next.

    state = merge_tree(PortionMoments.of(...) for blocks)                                # first pass, `portions`
    readouts = state.readouts(lambda moments: fit_lda(moments, shrinkage=0.1))           # no row is read for these
    code = merge_tree(CodeState.of(rows, labels, ..., readouts) for blocks)              # second pass
    length = codelength(state, code)
    length.compression                                                                   # [K], 1 is no compression

Control labels (`selectivity`, `controls`) are further columns of the same two passes, and compress as far as memory
alone helps. Logistic probes are fitted on the rows of `portions.prefix`; ridge probes become log-odds by `gaussian`.

What can go wrong: early prefixes have few rows, and a probe without enough shrinkage is then sure of nonsense and pays
hundreds of bits. `mixture` codes with all penalties and the base rate at once, and no penalty has to be chosen after
the fact. Where a prefix has one class of a column, the next portion is sent by the uniform code.

Not supported: a concept of several classes as one code; its one-vs-rest columns have one each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from lrh_ray.analyses.layouts import (
    ColumnInts,
    Members,
    PortionProbes,
    ProbeFloats,
    ProbeInts,
    RowPortions,
)
from lrh_ray.analyses.moments import Moments
from lrh_ray.analyses.portions import PortionMoments
from lrh_ray.analyses.ratio import ratio
from lrh_ray.analyses.readout import LinearReadout
from lrh_ray.errors import ConfigError
from lrh_ray.layouts import Columns64, Labels64, Rows


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CodeState:
    """Mergeable bits [P - 1, K] of each portion but the first, under the probes fitted on those before it.

    `columns` [K] is the label column of each probe.
    """

    columns: ProbeInts
    bits: PortionProbes

    @classmethod
    def of(
        cls,
        rows: Rows,
        labels: Labels64,
        members: Members,
        populations: ColumnInts,
        portions: RowPortions,
        readouts: Sequence[LinearReadout],
    ) -> "CodeState":
        """Code one block; `readouts[s - 1]` is for the rows of portion s. Costs 2 D K FLOP a row, float64.

        Raises:
            ConfigError: scores that are no log-odds (ridge).
        """
        columns = readouts[0].columns
        bits = np.zeros((len(readouts), len(columns)))
        for s, readout in enumerate(readouts, start=1):
            if readout.threshold != 0.0:
                raise ConfigError(
                    f"A code needs log-odds, and the probes of portion {s} have scores with threshold "
                    f"{readout.threshold!r}; pass ridge probes through `gaussian`."
                )
            own = np.flatnonzero(portions == s)
            nats = np.logaddexp(0, (1 - 2 * labels[own][:, columns]) * readout.scores(rows[own]))
            inside = members[own][:, populations[columns]]
            bits[s - 1] = np.where(inside, nats, 0.0).sum(axis=0) / np.log(2)
        return cls(columns=columns, bits=bits)

    def merge(self, other: "CodeState") -> "CodeState":
        return CodeState(columns=self.columns, bits=self.bits + other.bits)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Codelength:
    """Bits of P portions and K probes [P, K]: online, by the base rate alone, and by the uniform code.

    The base-rate code reads no rows: it predicts each portion by the share of positives so far, (n+ + 1/2) / (n + 1).
    A skewed label compresses under it, so a probe has found something only where its code is shorter than this one.
    """

    columns: ProbeInts
    bits: PortionProbes
    base_rate_bits: PortionProbes
    uniform_bits: PortionProbes

    @property
    def online(self) -> ProbeFloats:
        """Online codelength in bits [K]."""
        return np.asarray(self.bits.sum(axis=0))

    @property
    def base_rate(self) -> ProbeFloats:
        """Codelength [K] of someone without rows."""
        return np.asarray(self.base_rate_bits.sum(axis=0))

    @property
    def uniform(self) -> ProbeFloats:
        """One bit a label [K]."""
        return np.asarray(self.uniform_bits.sum(axis=0))

    @property
    def compression(self) -> ProbeFloats:
        """Uniform over online codelength [K]: 1 is none, below 1 the probe misleads."""
        return ratio(self.uniform, self.online, otherwise=np.nan)

    @property
    def mixture(self) -> Columns64:
        """Bits of a uniform mixture of all J probes of a column and its base rate; columns in ascending order [C].

        -log2 mean_j 2^-bits_j is a code of its own (each portion is predicted by the probes weighted with how well they
        did so far), at most log2(J + 1) bits longer than the best of them.
        """
        own = [np.flatnonzero(self.columns == column) for column in np.unique(self.columns)]
        return np.array([_mixed(np.append(self.online[probes], self.base_rate[probes[0]])) for probes in own])


def codelength(state: PortionMoments, code: CodeState) -> Codelength:
    """Bits of every portion, once both passes are merged."""
    positive = np.stack([one.positives[-1] for one in state.states])[:, code.columns]
    number = np.stack([one.grams[one.populations, -1, -1] for one in state.states])[:, code.columns]
    return codelength_from(code, positive=positive, number=number)


def codelength_from(code: CodeState, *, positive: PortionProbes, number: PortionProbes) -> Codelength:
    """The same from counts of rows [P, K] in each probe's population, all and positive; of some documents, say."""
    return Codelength(
        columns=code.columns,
        bits=np.vstack([number[:1], code.bits]),
        base_rate_bits=np.vstack([number[:1], _by_base_rate(positive, number)]),
        uniform_bits=number,
    )


def gaussian(readout: LinearReadout, moments: Moments) -> LinearReadout:
    """Ridge directions with log-odds for scores: LDA of the one feature w . x, from the moments of the fit.

    The classes' scores count as Gaussians with one variance, that within them. 2 D^2 K FLOP.
    """
    columns, w = readout.columns, readout.weights
    p, rate = moments.populations[columns], moments.rate[columns]
    spread = rate * (1 - rate)
    difference = (moments.cross_covariance[:, columns] * w).sum(axis=0) / spread
    variance = np.array([w[:, k] @ moments.covariance[p[k]] @ w[:, k] for k in range(len(columns))])
    slope = ratio(difference, variance - spread * difference**2, otherwise=0.0)
    centre = np.einsum("kd,dk->k", moments.mean[p], w) + (0.5 - rate) * difference
    return LinearReadout(
        weights=w * slope,
        intercepts=np.log(rate / (1 - rate)) - slope * centre,
        columns=columns,
        regularisation=readout.regularisation,
        threshold=0.0,
    )


def _by_base_rate(positive: PortionProbes, number: PortionProbes) -> np.ndarray:
    """Bits [P - 1, K] of each portion but the first by the share of positives before it."""
    share = (positive.cumsum(axis=0)[:-1] + 0.5) / (number.cumsum(axis=0)[:-1] + 1)
    return np.asarray(-positive[1:] * np.log2(share) - (number - positive)[1:] * np.log2(1 - share))


def _mixed(bits: np.ndarray) -> float:
    return float(np.log2(len(bits)) - logsumexp(-np.log(2) * bits) / np.log(2))
