"""What a kind of autoencoder gives to the loop that trains it: parameters, codes, and the loss of a batch."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from lrh_ray.analyses.sae.mesh import ALONE, Mesh
from lrh_ray.analyses.sae.parts import sum_of_parts, used_in_parts
from lrh_ray.analyses.sae.sharding import Shard
from lrh_ray.analyses.sae.sparsity import PowerPenalty
from lrh_ray.collective import Share


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Loss:
    """What a batch says: `total` is what training lowers, `square` the squared error, both per row; codes [N, M].

    Losses are those of all latents and of this worker's rows, codes those of this worker's latents and rows.
    """

    total: Tensor
    square: Tensor
    codes: Tensor


class Architecture(ABC):
    """A kind of autoencoder, with its parameters; whoever trains it changes them in place."""

    unit_decoder: bool = True
    """Whether decoder rows have length 1."""

    def __init__(
        self, parameters: Mapping[str, Tensor], penalty: PowerPenalty | None = None, *, mesh: Mesh = ALONE
    ) -> None:
        """Parameters under names for a file: `decoder` [M, D], `decoder_bias` [D] and what the codes are made with.

        Where latents are shared out, `parameters` are those of all; this worker keeps its part, and `mesh` says which.
        """
        self.shard, self._penalty = Shard(mesh=mesh, num_latents=len(parameters["decoder"])), penalty
        self.parameters = {
            name: tensor if self.shard.alone else _own(name, tensor, self.shard.part)
            for name, tensor in parameters.items()
        }

    @property
    def latents(self) -> Share:
        """This worker among those that share the latents out."""
        return self.shard.mesh.latents

    @property
    def rows(self) -> Share:
        """This worker among those that share the rows."""
        return self.shard.mesh.rows

    @abstractmethod
    def codes(self, rows: Tensor) -> Tensor:
        """Codes [N, M] of rows [N, D]."""

    @abstractmethod
    def loss(self, rows: Tensor, step: int) -> Loss:
        """Loss of a batch at step `step`, counted from 0."""

    def decode(self, codes: Tensor) -> Tensor:
        """Rows [N, D] that codes [N, M] stand for."""
        return sum_of_parts(codes @ self.parameters["decoder"], self.latents) + self.parameters["decoder_bias"]

    def offset(self) -> Tensor:
        """What is taken from the rows before the encoder sees them."""
        return used_in_parts(self.parameters["decoder_bias"], self.latents)

    def square(self, rows: Tensor, codes: Tensor) -> Tensor:
        """Mean squared error of the reconstruction, summed over features."""
        return (self.decode(codes) - rows).pow(2).sum(dim=1).mean()

    def done(self, step: int) -> None:
        """Follow a step, after the optimiser and the decoder's constraint."""
        if self._penalty is not None:
            self._penalty.done(step)

    def tensors(self) -> Mapping[str, Tensor]:
        """State beside the parameters that a resumed run needs."""
        return {} if self._penalty is None else self._penalty.tensors()

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Back from `tensors`."""
        if self._penalty is not None:
            self._penalty.load(tensors)


def _own(name: str, tensor: Tensor, latents: slice) -> Tensor:
    """This worker's part of a parameter; the offset belongs to all of them."""
    return (tensor if name == "decoder_bias" else tensor[latents]).clone()
