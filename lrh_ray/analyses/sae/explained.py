"""What codes make of rows, and what the next step of every latent follows from.

    own = Explained(codes=codes, errors=errors, pull=pull, squares=squares)       # of this worker's rows
    main = own.of_all_rows(shard)                                                 # and of those of the others

Legend: N rows, D features, K codes a row at most, G nested groups.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lrh_ray.analyses.sae.sharding import Shard
from lrh_ray.analyses.sae.tensor_codes import TensorCodes


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Explained:
    """Codes of this worker's latents, beside errors and gradients; tensors of one device."""

    codes: TensorCodes
    errors: Tensor
    """[G, N, D'] of reconstruction g and all after it, already 2 / (N G) times."""
    pull: Tensor
    """Gradients of codes [N, K]."""
    squares: Tensor
    """Squared error of each reconstruction of each row [G, N]."""

    @property
    def loss(self) -> Tensor:
        """Mean square of a row and group, float64."""
        return self.squares.mean(dtype=torch.float64)

    def of_all_rows(self, shard: Shard) -> "Explained":
        """With the rows of all workers that share them."""
        if shard.has_all_rows:
            return self
        return Explained(
            codes=shard.codes_of_all_rows(self.codes),
            errors=shard.of_all_rows(self.errors, axis=1),
            pull=shard.entries_of_all_rows(self.pull),
            squares=shard.of_all_rows(self.squares, axis=1),
        )
