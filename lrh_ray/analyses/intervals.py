"""Intervals by resampling documents.

Tokens of one document resemble one another, so an interval that treats rows as independent is too narrow, often by a
factor of several. The bootstrap here draws whole documents with replacement: draw b gives document s the integer
weight W[b, s], multinomial, and W is a pure function of (seed, number of documents). Draws made at different sites
with one seed therefore hold the same documents, and arrays of draws may be laid side by side: a simultaneous interval
over sites x concepts is `simultaneous_interval` of the concatenated columns.

    bootstrap = DocumentBootstrap(draws=1000, seed=0)
    sample = bootstrap.apply(lambda weights: auc(held_out, weights), held_out.num_documents)
    interval = percentile_interval(sample.draws)
    band = simultaneous_interval(sample.estimates, sample.draws, scale="unit")

Which interval when. *Pointwise*: percentiles; they stay within [0, 1] for bounded metrics and ask for no scale.
*Simultaneous*: the largest studentised deviation over all columns (max-T). For metrics in [0, 1] it is taken on the
scale arcsin(sqrt(m)), where the spread of a share hardly depends on its value and which, unlike the logit, is finite
at 1; the ends are mapped back, so the band is asymmetric near 1 and never leaves [0, 1].

What can go wrong: with few documents (below about 20) every bootstrap interval is too narrow. A column whose draws
are all equal (an accuracy of exactly 1) carries no information on its spread: its interval is NaN and it is flagged
`degenerate`, rather than given a width of 0. Draws without a value (a rare class missing from the drawn documents)
are left out, and their share is reported as `undefined`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lrh_ray.analyses.layouts import DocumentWeights, Draws, ProbeFloats, ProbeMask
from lrh_ray.errors import ConfigError, NotEnoughData

Scale = Literal["unit", "real"]
"""`unit`: metrics within [0, 1] (accuracy, AUC). `real`: any others (log-loss)."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Sample:
    """A metric on the data [K] and on every draw [B, K]."""

    estimates: ProbeFloats
    draws: Draws


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Interval:
    """Ends of an interval per column [K]; NaN where `degenerate`. `undefined` is the share of draws without a value."""

    low: ProbeFloats
    high: ProbeFloats
    degenerate: ProbeMask
    undefined: ProbeFloats


@dataclass(frozen=True, kw_only=True, slots=True)
class DocumentBootstrap:
    """Multinomial draws of whole documents."""

    draws: int
    seed: int

    def __post_init__(self) -> None:
        if self.draws < 2:
            raise ConfigError(f"A bootstrap of {self.draws!r} draws gives no interval; use at least 2, better 1000.")

    def weights(self, num_documents: int) -> DocumentWeights:
        """How often each draw holds each document [B, S]; each row sums to S.

        Raises:
            NotEnoughData: fewer than 2 documents.
        """
        if num_documents < 2:
            raise NotEnoughData(
                f"There are {num_documents} held-out documents; an interval over them needs at least 2."
            )
        rng = np.random.default_rng([self.seed, num_documents])
        even = np.full(num_documents, 1 / num_documents)
        return rng.multinomial(num_documents, even, size=self.draws).astype(np.float64)

    def apply(self, metric: Callable[[DocumentWeights], Draws], num_documents: int) -> Sample:
        """Evaluate a metric, which maps weights [B, S] to values [B, K], on the data and on all draws."""
        estimates = metric(np.ones((1, num_documents)))[0]
        return Sample(estimates=estimates, draws=metric(self.weights(num_documents)))


def percentile_interval(draws: Draws, level: float = 0.95) -> Interval:
    """Pointwise interval between the (1 - level) / 2 quantiles of each column's draws."""
    _require_level(level)
    degenerate = _degenerate(draws)
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.nanquantile(np.where(degenerate, 0.0, draws), tails, axis=0)
    return _interval(low, high, draws, degenerate)


def simultaneous_interval(estimates: ProbeFloats, draws: Draws, level: float = 0.95, scale: Scale = "unit") -> Interval:
    """Intervals that hold for all columns at once with probability `level`: estimate -+ c * sd, c from max-T.

    c is the `level` quantile over draws of max over columns of |draw - estimate| / sd, so dependence between columns
    (and between sites whose draws share the documents) is used, not bounded.
    """
    _require_level(level)
    degenerate = _degenerate(draws) | ~np.isfinite(estimates)
    centre, spread = _to_scale(estimates, scale), _to_scale(draws, scale)
    sd = np.nanstd(np.where(degenerate, 0.0, spread), axis=0, ddof=1)
    deviation = np.abs(spread - centre)[:, ~degenerate] / sd[~degenerate]
    largest = np.max(np.nan_to_num(deviation), axis=1, initial=0.0)
    reach = np.quantile(largest, level) * sd
    return _interval(_from_scale(centre - reach, scale), _from_scale(centre + reach, scale), draws, degenerate)


def _degenerate(draws: Draws) -> ProbeMask:
    """Columns with fewer than two distinct values, up to the rounding of a sum of weights."""
    defined = np.isfinite(draws)
    low = np.where(defined, draws, np.inf).min(axis=0)
    high = np.where(defined, draws, -np.inf).max(axis=0)
    rounding = 1e-12 * np.maximum(1.0, np.abs(np.where(np.isfinite(high), high, 0.0)))
    return np.asarray(~(high - low > rounding))


def _interval(low: ProbeFloats, high: ProbeFloats, draws: Draws, degenerate: ProbeMask) -> Interval:
    return Interval(
        low=np.where(degenerate, np.nan, low),
        high=np.where(degenerate, np.nan, high),
        degenerate=degenerate,
        undefined=np.isnan(draws).mean(axis=0),
    )


def _to_scale(values: np.ndarray, scale: Scale) -> np.ndarray:
    return np.arcsin(np.sqrt(np.clip(values, 0.0, 1.0))) if scale == "unit" else values


def _from_scale(values: np.ndarray, scale: Scale) -> np.ndarray:
    return np.sin(np.clip(values, 0.0, np.pi / 2)) ** 2 if scale == "unit" else values


def _require_level(level: float) -> None:
    if not 0 < level < 1:
        raise ConfigError(f"The level of an interval is {level!r}; it must lie between 0 and 1, 0.95 say.")
