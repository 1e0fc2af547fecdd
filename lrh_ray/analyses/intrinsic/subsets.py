"""Distributions over subsets of dimensions: Poisson, and conditional Poisson of given sizes.

Which k of D dimensions carry a concept is a question about 2^D subsets. Both models give each dimension a weight
w_i = exp(phi_i) > 0, and a subset C the probability

    Poisson               q(C) = prod_{i in C} w_i / prod_i (1 + w_i)                 dimensions are independent
    conditional Poisson   q(C | k) = prod_{i in C} w_i / e_k(w),  |C| = k             k itself uniform over some sizes

with e_k the elementary symmetric polynomial (Stanczak et al., arXiv 2201.08214; Hajek 1964). e_k of the first
d dimensions is e_k(d) = e_k(d - 1) + w_d e_{k-1}(d - 1), here in logarithms, so that weights of any size neither
overflow nor vanish. The same table gives exact samples and the exact entropy: walking from the last dimension to the
first, dimension d is taken with probability w_d e_{r-1}(d - 1) / e_r(d) when r are still wanted.

    q = ConditionalPoisson(log_weights=phi, smallest=1, largest=5)
    masks = q.sample(100, generator)           # [100, D] of 0/1
    q.log_prob(masks), q.entropy(), q.inclusion()

All is differentiable in phi, in float64. A conditional Poisson costs O(D * largest) in D steps, and as much again for
a gradient; a Poisson costs O(D).

What can go wrong: a common factor of all weights changes a Poisson and no conditional Poisson, whose weights are
therefore known up to a constant.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.nn import functional

from lrh_ray.errors import ConfigError

LogWeights = Float64[Tensor, "dimension"]
Masks = Float64[Tensor, "subset dimension"]
SubsetFloats = Float64[Tensor, "subset"]

Family: TypeAlias = Literal["poisson", "conditional"]

NOTHING = -1e30
"""Logarithm of 0; a true infinity has no gradient."""
CERTAIN = 1e-15


@runtime_checkable
class SubsetModel(Protocol):
    """A distribution over subsets of D dimensions, written as 0/1 masks; probabilities in nats."""

    def log_prob(self, masks: Masks) -> SubsetFloats: ...

    def inclusion(self) -> LogWeights:
        """Probability of each dimension to be in a subset."""
        ...

    def entropy(self) -> Float64[Tensor, ""]:
        """Entropy in nats."""
        ...

    def sample(self, number: int, generator: torch.Generator) -> Masks:
        """Independent subsets, without a gradient."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Poisson:
    """Every dimension by itself, with odds exp(phi)."""

    log_weights: LogWeights

    def log_prob(self, masks: Masks) -> SubsetFloats:
        return masks @ self.log_weights - functional.softplus(self.log_weights).sum()

    def inclusion(self) -> LogWeights:
        return torch.sigmoid(self.log_weights)

    def entropy(self) -> Float64[Tensor, ""]:
        return (functional.softplus(self.log_weights) - self.inclusion() * self.log_weights).sum()

    def sample(self, number: int, generator: torch.Generator) -> Masks:
        draws = torch.rand(number, len(self.log_weights), generator=generator, dtype=torch.float64)
        return (draws < self.inclusion().detach()).double()


@dataclass(frozen=True, kw_only=True, eq=False)
class ConditionalPoisson:
    """Subsets of a size drawn uniformly from `smallest` to `largest`. No slots, because the table is kept.

    Raises:
        ConfigError: No such size among subsets of D dimensions.
    """

    log_weights: LogWeights
    smallest: int
    largest: int

    def __post_init__(self) -> None:
        if not 0 <= self.smallest <= self.largest <= len(self.log_weights):
            raise ConfigError(
                f"Subsets of {self.smallest} to {self.largest} of {len(self.log_weights)} dimensions: sizes must "
                f"ascend and lie between 0 and the number of dimensions."
            )

    @property
    def num_sizes(self) -> int:
        return self.largest - self.smallest + 1

    @cached_property
    def polynomials(self) -> Float64[Tensor, "dimension_plus_1 size_plus_1"]:
        """The logarithms of e_k of the first d dimensions, for d = 0 ... D and k = 0 ... `largest`."""
        row = torch.full((self.largest + 1,), NOTHING, dtype=torch.float64)
        row[0] = 0.0
        rows = [row]
        for log_weight in self.log_weights:
            row = torch.logaddexp(row, functional.pad(row[:-1] + log_weight, (1, 0), value=NOTHING))
            rows.append(row)
        return torch.stack(rows)

    def log_prob(self, masks: Masks) -> SubsetFloats:
        size = masks.sum(dim=1).round().long()
        allowed = (size >= self.smallest) & (size <= self.largest)
        normaliser = self.polynomials[-1][size.clamp(max=self.largest)] + math.log(self.num_sizes)
        return torch.where(allowed, masks @ self.log_weights - normaliser, -math.inf)

    def inclusion(self) -> LogWeights:
        """The slopes d log e_k / d phi, averaged over sizes; no gradient of its own."""
        phi = self.log_weights.detach().requires_grad_()
        with torch.enable_grad():
            other = ConditionalPoisson(log_weights=phi, smallest=self.smallest, largest=self.largest)
            total = other.polynomials[-1, self.smallest :].mean()
            (gradient,) = torch.autograd.grad(total, phi)
        return gradient

    def entropy(self) -> Float64[Tensor, ""]:
        """Entropy of size and subset: the entropy of each decision of the walk, averaged over where it leads."""
        row = torch.zeros(self.largest + 1, dtype=torch.float64)
        for taken, decision in zip(self._taken, _binary_entropy(self._taken), strict=True):
            row = torch.lerp(row, functional.pad(row[:-1], (1, 0)), taken) + decision
        return row[self.smallest :].mean() + math.log(self.num_sizes)

    def sample(self, number: int, generator: torch.Generator) -> Masks:
        table = self._taken.detach()  # made here, with its graph: what is kept serves gradients too
        with torch.no_grad():
            wanted = torch.randint(self.smallest, self.largest + 1, (number,), generator=generator)
            draws = torch.rand(len(self.log_weights), number, generator=generator, dtype=torch.float64)
            masks = torch.zeros(len(self.log_weights), number, dtype=torch.float64)
            for d in range(len(self.log_weights) - 1, -1, -1):
                taken = (draws[d] < table[d][wanted]) | (wanted > d)  # all that are left are wanted
                masks[d] = taken.double()
                wanted = wanted - taken.long()
            return masks.T.contiguous()

    @cached_property
    def _taken(self) -> Float64[Tensor, "dimension size_plus_1"]:
        """Probability [D, k] that dimension d is taken when k are wanted of it and those before it."""
        before, after = self.polynomials[:-1], self.polynomials[1:]
        shifted = functional.pad(before, (1, 0), value=NOTHING)[:, :-1] + self.log_weights[:, None]
        return torch.where(after > NOTHING / 2, torch.exp(torch.clamp(shifted - after, max=0.0)), 0.0)


def subset_model(family: Family, *, smallest: int, largest: int) -> Callable[[LogWeights], SubsetModel]:
    """The model of weights that are still to come; sizes are for `conditional` alone."""
    if family == "poisson":
        return lambda phi: Poisson(log_weights=phi)
    return lambda phi: ConditionalPoisson(log_weights=phi, smallest=smallest, largest=largest)


def _binary_entropy(p: Tensor) -> Tensor:
    """-p log p - (1 - p) log(1 - p); 0 at both ends, without an infinite slope there."""
    inside = p.clamp(CERTAIN, 1 - CERTAIN)
    entropy = -inside * torch.log(inside) - (1 - inside) * torch.log1p(-inside)
    return torch.where((p > CERTAIN) & (p < 1 - CERTAIN), entropy, 0.0)
