"""ReLU codes: with an L1 penalty, with p-annealing, and with a low-rank branch beside the sparse one.

    S = relu(encoder (x - b) + c)                           |x - x^|^2 + w_t sum S^(p_t)
    z = S + R, R = relu(low_encoder (x - b) + low_bias)     ... + w_t gamma |R|_* / sqrt(N)

The first with p = 1 is the autoencoder of Bricken et al. 2023, with p falling below 1 that of Karvonen et al. 2024
(arXiv 2408.00113). The second is the structured one of Liu et al. (arXiv 2503.08980 v3, equations 6 and 87 to 92): the
nuclear norm of the batch's R asks that it has few directions, where the sparse branch has few codes. Without a branch
nothing is left of it, and training is that of p-annealing bit for bit. The norm of R grows as the root of the rows of
a batch, and is divided by it: the paper does not say at what batch its gamma holds.

What can go wrong: gamma = 0 with a branch leaves R without any penalty. It would then be a dense autoencoder of its own
that explains everything, and is refused.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lrh_ray.analyses.sae.architectures.architecture import Architecture, Loss
from lrh_ray.analyses.sae.linear import encode
from lrh_ray.analyses.sae.mesh import ALONE, Mesh
from lrh_ray.analyses.sae.nuclear import nuclear_norm
from lrh_ray.analyses.sae.sparsity import PowerPenalty
from lrh_ray.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class LowRank:
    """The low-rank branch: weight of its nuclear norm beside the sparse penalty, and how many values are summed."""

    gamma: float = 0.1
    rank: int = 64

    def __post_init__(self) -> None:
        if not self.gamma > 0:
            raise ConfigError(
                f"gamma is {self.gamma!r}: the low-rank branch would have no penalty, and explain everything densely. "
                f"Give it a weight above 0, or leave the branch out."
            )
        if self.rank < 1:
            raise ConfigError(f"rank is {self.rank!r}; the nuclear norm takes at least one singular value.")


class Relu(Architecture):
    """ReLU codes under a power penalty, with or without a low-rank branch."""

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        penalty: PowerPenalty,
        low_rank: LowRank | None = None,
        *,
        seed: int = 0,
        widths: tuple[int, ...] = (),
        mesh: Mesh = ALONE,
    ) -> None:
        """Parameters `encoder`, `encoder_bias`, `decoder`, `decoder_bias`; a branch adds `low_encoder`, `low_bias`.

        Raises:
            ConfigError: A branch of several workers.
        """
        if low_rank and mesh.everyone.world > 1:
            raise ConfigError(
                f"The nuclear norm of a low-rank branch is one of all codes, and {mesh.everyone.world} workers have "
                f"parts; train it with one worker (sae.workers)."
            )
        branch = {} if low_rank is None else _low_parameters(parameters["encoder"], seed)
        super().__init__({**branch, **parameters}, penalty, widths=widths, mesh=mesh)
        self._power, self._low_rank, self._seed = penalty, low_rank, seed

    def branches(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Sparse codes S and low-rank codes R, both [N, M]."""
        own = self.parameters
        sparse = encode(rows, own["encoder"], own["encoder_bias"], self.offset()).relu()
        if self._low_rank is None:
            return sparse, None
        return sparse, encode(rows, own["low_encoder"], own["low_bias"], self.offset()).relu()

    def codes(self, rows: Tensor) -> Tensor:
        """S, or S + R."""
        sparse, low = self.branches(rows)
        return sparse if low is None else sparse + low

    def explaining(self, target: Tensor, rows: Tensor, step: int) -> Loss:
        """Squared error and penalty."""
        sparse, low = self.branches(rows)
        codes = sparse if low is None else sparse + low
        square = self.square(target, rows, codes)
        penalty = self._power(self.weighed(sparse), step)
        if low is not None and self._low_rank is not None:
            low = self.weighed(low)
            norm = nuclear_norm(low, rank=self._low_rank.rank, seed=self._seed + step) / math.sqrt(len(rows))
            penalty = penalty + self._power.weight_at(step) * self._low_rank.gamma * norm
        return Loss(total=square + penalty, square=square, codes=codes)


def _low_parameters(encoder: Tensor, seed: int) -> dict[str, Tensor]:
    """The branch begins small beside the sparse codes, in directions of its own."""
    noise = torch.Generator().manual_seed(seed + 1)
    drawn = torch.randn(encoder.shape, generator=noise, dtype=torch.float64)
    low = 0.1 * torch.nn.functional.normalize(drawn, dim=1)
    return {"low_encoder": low.to(encoder), "low_bias": encoder.new_zeros(len(encoder))}
