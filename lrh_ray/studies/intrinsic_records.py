"""What intrinsic probing finds, before it becomes measures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.intrinsic import Information, SubsetNull


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """One task: a concept at a site."""

    site: str
    concept: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Subset:
    """The first `size` dimensions of a ranking: what they say, what random ones say, and the chance of so much."""

    size: int
    found: Information
    random: SubsetNull
    p_value: float
    """The larger of two: that random dimensions say as much, and that these do of permuted labels. 1 where the bound is
    not above 0, and so says nothing, however much less the others say."""


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Dimensions in the order in which they were chosen [K], and subsets of the first of them."""

    order: np.ndarray
    subsets: Sequence[Subset]


@dataclass(frozen=True, kw_only=True)
class ProbeFinding:
    """One kind of probe: fitted to the labels, and to shuffled ones; and what it says of all dimensions."""

    kind: str
    true: Ranking
    shuffled: Ranking
    whole: Information


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A concept at a site."""

    site: str
    concept: str
    width: int
    """Dimensions that vary in every class."""
    rows: Sequence[int]
    documents: Sequence[int]
    """Of training, validation and held-out part."""
    scarcest: int
    """Training rows of the rarest class."""
    probes: Sequence[ProbeFinding]
    linear: Information
    """What a logistic probe says of all dimensions."""

    @property
    def ceiling(self) -> Information:
        """The largest bound known: more dimensions say no less, so that every bound is one for all of them."""
        bounds = [self.linear, *(probe.whole for probe in self.probes)]
        bounds += [subset.found for probe in self.probes for subset in probe.true.subsets]
        return max(bounds, key=lambda bound: bound.share)

    def half(self, probe: ProbeFinding) -> Subset | None:
        """The smallest subset that says half of what all dimensions do; None if none does, or there is nothing."""
        if not self.ceiling.share_low > 0:
            return None
        enough = (subset for subset in probe.true.subsets if subset.found.share >= self.ceiling.share / 2)
        return next(enough, None)
