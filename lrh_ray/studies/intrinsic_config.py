"""Settings of intrinsic probing."""

from typing import Literal, TypeAlias

from lrh_ray.config import settings

ProbeKind: TypeAlias = Literal["gaussian", "poisson", "conditional"]


@settings
class IntrinsicConfig:
    """Which few dimensions of a site carry a concept, and how much of it (`lrh intrinsic CONFIG`)."""

    concepts: tuple[str, ...] = ("all",)
    """Names of concepts of the store's labels, or `all`."""

    sites: tuple[str, ...] = ()
    """Sites of the store; empty for all."""

    probes: tuple[ProbeKind, ...] = ("gaussian", "poisson")
    """Gaussians of each class, or a softmax probe trained on subsets drawn from a Poisson or conditional Poisson. The
    first reads few dimensions best, the second many; the third lies between them, and takes longest."""

    sizes: tuple[int, ...] = (1, 2, 5, 10, 20, 50)
    """Numbers of dimensions, ascending; those beyond the width of a site are left out there."""

    max_rows: int = 10_000
    """Rows of a concept that fit a probe, and rows that give the numbers: whole documents of at most so many rows."""

    ranking_rows: int = 2_000
    """Rows of a concept that rank the dimensions. Every dimension is tried on each of them for every place of the
    ranking, so that this is what most of the time goes into."""

    steps: int = 300
    """Training steps of the softmax probes."""

    draws: int = 400
    """Bootstrap draws over held-out documents."""

    null_draws: int = 200
    """Random subsets of each size, and permutations of the held-out labels; 1 / (null_draws + 1) is the least p value.
    """

    sinks: Literal["drop", "keep"] = "drop"
    """Attention sinks (rows whose norm exceeds 10 times the median of any site) are left out, or kept."""

    held_out: float = 0.3
    """Fraction of documents held out for the numbers reported; half as many again rank the dimensions."""

    seed: int = 0
    """Seed of split, sample of documents, shuffled labels, training, bootstrap and nulls."""

    def __post_init__(self) -> None:
        if not self.concepts:
            raise ValueError("concepts must name at least one, or all: [all]")
        if not self.probes or len(set(self.probes)) < len(self.probes):
            raise ValueError("probes must name at least one, each once, for example [gaussian, conditional]")
        if not self.sizes or list(self.sizes) != sorted(set(self.sizes)) or self.sizes[0] < 1:
            raise ValueError("sizes must ascend from 1 or more, each once, for example [1, 2, 5, 10]")
        if not 0 < self.held_out < 0.6:
            raise ValueError("held_out must lie in (0, 0.6), for example 0.3")
        if min(self.max_rows, self.ranking_rows) < 100 or self.steps < 1 or self.seed < 0:
            raise ValueError("max_rows and ranking_rows must be 100 or more, steps 1 or more, seed 0 or more")
        if self.draws < 100:
            raise ValueError("draws must be at least 100 to give a 95 % interval")
        if self.null_draws < 20:
            raise ValueError("null_draws must be at least 20, or no p value could be below 0.05")
