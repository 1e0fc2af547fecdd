"""What a kind of autoencoder gives to the loop that trains it: parameters, codes, and the loss of a batch.

Each is a transcoder too where its parameters say so (`parameters.OFFSET`), and a crosscoder where it is told the widths
of several sites, whose rows it then reads and writes side by side (Lindsey et al. 2024, Transformer Circuits). Of a
crosscoder a code counts in a penalty as often as the lengths of its decoder row's parts at the sites add up to: 1 where
one site has it all, the root of the number of sites where all have the same. A latent of one site is the cheaper one.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from lrh_ray.analyses.sae.mesh import ALONE, Mesh
from lrh_ray.analyses.sae.parameters import OF_ALL, OFFSET
from lrh_ray.analyses.sae.parts import sum_of_parts, used_in_parts
from lrh_ray.analyses.sae.reader import with_what_is_no_code
from lrh_ray.analyses.sae.sharding import Shard
from lrh_ray.analyses.sae.site_norms import site_norms
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
        self,
        parameters: Mapping[str, Tensor],
        penalty: PowerPenalty | None = None,
        *,
        widths: tuple[int, ...] = (),
        mesh: Mesh = ALONE,
    ) -> None:
        """Parameters under names for a file: `decoder` [M, D], `decoder_bias` [D] and what the codes are made with.

        `widths` are those of several sites, side by side in decoder rows; none of one. Where latents are shared out,
        `parameters` are those of all; this worker keeps its part, and `mesh` says which.
        """
        self.shard, self._penalty = Shard(mesh=mesh, num_latents=len(parameters["decoder"])), penalty
        self._widths = widths
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

    def loss(self, rows: Tensor, step: int, target: Tensor | None = None) -> Loss:
        """Loss of a batch at step `step`, counted from 0, in explaining `target` [N, D'], or the rows themselves."""
        return self.explaining(rows if target is None else target, rows, step)

    @abstractmethod
    def explaining(self, target: Tensor, rows: Tensor, step: int) -> Loss:
        """Loss of what codes of `rows` make of `target`."""

    def decode(self, codes: Tensor, rows: Tensor | None = None) -> Tensor:
        """Rows [N, D'] that codes [N, M] stand for; a skip connection adds what it makes of the `rows` they are of."""
        return with_what_is_no_code(
            sum_of_parts(codes @ self.parameters["decoder"], self.latents), self.parameters, rows
        )

    def offset(self) -> Tensor:
        """What is taken from the rows before the encoder sees them."""
        if OFFSET in self.parameters:
            return self.parameters[OFFSET]
        return used_in_parts(self.parameters["decoder_bias"], self.latents)

    def square(self, target: Tensor, rows: Tensor, codes: Tensor) -> Tensor:
        """Mean squared error of the reconstruction, summed over features."""
        return (self.decode(codes, rows) - target).pow(2).sum(dim=1).mean()

    def weighed(self, codes: Tensor) -> Tensor:
        """Codes [N, M] as a penalty counts them."""
        return codes * site_norms(self.parameters["decoder"], self._widths).sum(dim=1) if self._widths else codes

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
    """This worker's part of a parameter."""
    return (tensor if name in OF_ALL else tensor[latents]).clone()
