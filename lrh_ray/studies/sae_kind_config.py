"""Kinds of sparse autoencoders, and the numbers that each is trained with.

    {kind: jumprelu, target: 32, bandwidth: 0.05}
    {kind: topk, k: 32, latents: 16384, seed: 1}         # its own width and first weights; the others have the run's

Penalty weights hold for rows divided by their root mean square distance from their mean, so that a reconstruction that
explains nothing has a squared error of 1 at every site of every model.

What can go wrong: a bandwidth or a threshold of 0 has no logarithm or no slope, and training would end in weights that
are no numbers, without a word; a penalty below 0 rewards codes. Such numbers are refused here, with the way out.
"""

from math import inf
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from lrh_ray.config import settings

CONCA_GROUPS = 4
"""Equal groups of latents that `conca` with norm `group` is normalised over."""

OwnLatents: TypeAlias = Annotated[int | None, Field(description="Its own number of latents; None: `sae.latents`.")]
OwnSeed: TypeAlias = Annotated[
    int | None,
    Field(description="Seed of its own first weights; None: `sae.seed`. Rows and their order are the run's."),
]
"""Widths and seeds are swept in one list of kinds, whose members all learn from one reading of the store."""


def _above_zero(example: float, **named: float) -> None:
    for name, value in named.items():
        if not 0 < value < inf:
            raise ValueError(f"{name} is {value:g}: it must be above 0, for example {example:g}")


def _penalty(weight: float) -> None:
    if not 0 <= weight < inf:
        raise ValueError(f"weight is {weight:g}: it must be 0, for no penalty, or more; below 0 it would reward codes")


def _falling(last_p: float) -> None:
    if not 0 < last_p <= 1:
        raise ValueError(f"last_p is {last_p:g}: it must lie above 0, for example 0.2, and at most at 1, which is L1")


@settings
class TopKKind:
    """The k largest latents of each row (Gao et al. 2024)."""

    kind: Literal["topk"] = "topk"
    """What this one is."""

    k: int = 32
    """Codes of a row."""

    latents: OwnLatents = None
    seed: OwnSeed = None

    def __post_init__(self) -> None:
        _above_zero(32, k=self.k)


@settings
class BatchTopKKind:
    """The largest latents of a batch, k a row on average (Bussmann et al. 2024)."""

    kind: Literal["batchtopk"] = "batchtopk"
    """What this one is."""

    k: int = 32
    """Codes of a row, on average."""

    latents: OwnLatents = None
    seed: OwnSeed = None

    def __post_init__(self) -> None:
        _above_zero(32, k=self.k)


@settings
class MatryoshkaKind:
    """BatchTopK whose first latents must explain rows by themselves (Bussmann et al. 2025)."""

    kind: Literal["matryoshka"] = "matryoshka"
    """What this one is."""

    k: int = 32
    """Codes of a row, on average."""

    groups: tuple[float, ...] = (0.0625, 0.125, 0.25, 0.5, 1.0)
    """Nested groups: the first latents up to these shares of all."""

    latents: OwnLatents = None
    seed: OwnSeed = None

    def __post_init__(self) -> None:
        _above_zero(32, k=self.k)
        if (ends := (0.0, *self.groups)) != tuple(sorted(set(ends))) or ends[-1] != 1:
            raise ValueError("groups must ascend, from above 0 to 1, for example [0.25, 0.5, 1.0]")


@settings
class ReluKind:
    """ReLU codes under an L1 penalty (Bricken et al. 2023)."""

    kind: Literal["relu"] = "relu"
    """What this one is."""

    weight: float = 0.03
    """Of the sum of codes."""

    latents: OwnLatents = None
    seed: OwnSeed = None

    def __post_init__(self) -> None:
        _penalty(self.weight)


@settings
class PAnnealKind:
    """ReLU codes under a penalty whose power falls from 1 (Karvonen et al. 2024)."""

    kind: Literal["p_anneal"] = "p_anneal"
    """What this one is."""

    weight: float = 0.03
    """Of the sum of codes to the power p."""

    last_p: float = 0.2
    """The power at the end, reached after nine tenths of the steps; annealing begins after half of them."""

    latents: OwnLatents = None
    seed: OwnSeed = None

    def __post_init__(self) -> None:
        _penalty(self.weight)
        _falling(self.last_p)


@settings
class StructuredKind:
    """P-annealing with a low-rank branch under a nuclear norm (Liu et al., 2503.08980)."""

    kind: Literal["structured"] = "structured"
    """What this one is."""

    weight: float = 0.03
    """Of the penalty as a whole."""

    last_p: float = 0.2
    """As in p-annealing."""

    gamma: float = 0.1
    """Weight of the nuclear norm inside the penalty; must be above 0."""

    rank: int | None = 64
    """Singular values that the norm sums up; None: no low-rank branch, which is p-annealing."""

    latents: OwnLatents = None
    seed: OwnSeed = None

    def __post_init__(self) -> None:
        _penalty(self.weight)
        _falling(self.last_p)
        if self.rank is not None and (self.rank < 1 or not self.gamma > 0):
            raise ValueError(
                "gamma must be above 0 and rank 1 or more: without a penalty the low-rank branch explains everything "
                "densely. rank: null leaves the branch out"
            )


@settings
class GatedKind:
    """Gates and magnitudes apart (Rajamanoharan et al. 2024)."""

    kind: Literal["gated"] = "gated"
    """What this one is."""

    weight: float = 0.03
    """Of the sum of open gates."""

    latents: OwnLatents = None
    seed: OwnSeed = None

    def __post_init__(self) -> None:
        _penalty(self.weight)


@settings
class JumpReluKind:
    """A threshold for every latent (Rajamanoharan et al. 2024; Gemma Scope)."""

    kind: Literal["jumprelu"] = "jumprelu"
    """What this one is."""

    penalty: Literal["step", "quadratic", "tanh"] = "quadratic"
    """Number of codes, their squared relative distance from `target`, or a soft count."""

    weight: float = 1.0
    """Of the penalty."""

    target: float = 32.0
    """Codes of a row that `quadratic` aims at."""

    bandwidth: float = 0.03
    """Distance around a threshold within which rows move it, in the unit of pre-activations."""

    first_threshold: float = 0.03
    """Of every latent."""

    latents: OwnLatents = None
    seed: OwnSeed = None

    def __post_init__(self) -> None:
        _penalty(self.weight)
        _above_zero(32, target=self.target)
        _above_zero(0.03, bandwidth=self.bandwidth, first_threshold=self.first_threshold)


@settings
class ConCAKind:
    """Normalised linear codes under a softplus penalty (Liu et al. 2026)."""

    kind: Literal["conca"] = "conca"
    """What this one is."""

    weight: float = 1e-4
    """Of the sum of softplus codes."""

    norm: Literal["layer", "group", "batch"] = "layer"
    """What codes are normalised over."""

    latents: OwnLatents = None
    seed: OwnSeed = None

    def __post_init__(self) -> None:
        _penalty(self.weight)


Kind: TypeAlias = Annotated[
    TopKKind
    | BatchTopKKind
    | MatryoshkaKind
    | ReluKind
    | PAnnealKind
    | StructuredKind
    | GatedKind
    | JumpReluKind
    | ConCAKind,
    Field(discriminator="kind"),
]


Chosen = TopKKind | BatchTopKKind | MatryoshkaKind
"""Kinds whose codes are chosen by size."""
