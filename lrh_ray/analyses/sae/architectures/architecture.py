"""What a kind of autoencoder gives to the loop that trains it: parameters, codes, and the loss of a batch."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from lrh_ray.analyses.sae.sparsity import PowerPenalty


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Loss:
    """What a batch says: `total` is what training lowers, `square` the squared error, both per row; codes [N, M]."""

    total: Tensor
    square: Tensor
    codes: Tensor


class Architecture(ABC):
    """A kind of autoencoder, with its parameters; whoever trains it changes them in place."""

    unit_decoder: bool = True
    """Whether decoder rows have length 1."""

    def __init__(self, parameters: Mapping[str, Tensor], penalty: PowerPenalty | None = None) -> None:
        """Parameters under names for a file: `decoder` [M, D], `decoder_bias` [D] and what the codes are made with."""
        self.parameters, self._penalty = dict(parameters), penalty

    @abstractmethod
    def codes(self, rows: Tensor) -> Tensor:
        """Codes [N, M] of rows [N, D]."""

    @abstractmethod
    def loss(self, rows: Tensor, step: int) -> Loss:
        """Loss of a batch at step `step`, counted from 0."""

    def decode(self, codes: Tensor) -> Tensor:
        """Rows [N, D] that codes [N, M] stand for."""
        return codes @ self.parameters["decoder"] + self.parameters["decoder_bias"]

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
