"""Weights of an autoencoder, the moments that Adam keeps of them, and how they begin.

    z = act(encoder (x - input_bias) + encoder_bias)      encoder [M, D], a row for each latent
    x^ = z decoder + decoder_bias                          decoder [M, D'], a row for each latent, of unit length

Both matrices have a row for each latent, so that all that belongs to a latent lies together: a step touches rows.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Weights:
    """Tensors of an autoencoder; training changes them in place."""

    encoder: Tensor
    encoder_bias: Tensor
    decoder: Tensor
    decoder_bias: Tensor

    @property
    def num_latents(self) -> int:
        return len(self.encoder)

    def named(self) -> Iterator[tuple[str, Tensor]]:
        return ((field.name, getattr(self, field.name)) for field in fields(self))

    def of_latents(self, own: slice) -> "Weights":
        """A copy of the rows of some latents; the offset belongs to all of them."""
        return Weights(
            encoder=self.encoder[own].clone(),
            encoder_bias=self.encoder_bias[own].clone(),
            decoder=self.decoder[own].clone(),
            decoder_bias=self.decoder_bias.clone(),
        )

    def like(self) -> "Weights":
        """Zeros of the same shapes."""
        return Weights(**{name: torch.zeros_like(tensor) for name, tensor in self.named()})


def first_weights(
    num_latents: int, centre: np.ndarray, *, seed: int, width: int | None = None, dtype: torch.dtype = torch.float32
) -> Weights:
    """Directions uniform on the sphere, the encoder the decoder's transpose, the offset at the centre of the rows.

    Args:
        num_latents: M.
        centre: Mean of the target rows [D'].
        seed: Names the directions; the same for every machine and number of workers.
        width: D of the input where it is not that of the target; the encoder then has its own directions.
        dtype: Of all weights.
    """
    noise = torch.Generator().manual_seed(seed)

    def directions(features: int) -> Tensor:
        drawn = torch.randn(num_latents, features, generator=noise, dtype=torch.float64)
        return torch.nn.functional.normalize(drawn, dim=1).to(dtype)

    decoder = directions(len(centre))
    return Weights(
        encoder=decoder.clone() if width is None else directions(width),
        encoder_bias=torch.zeros(num_latents, dtype=dtype),
        decoder=decoder,
        decoder_bias=torch.from_numpy(centre).to(dtype).clone(),
    )


@dataclass(kw_only=True, slots=True, eq=False)
class AdamState:
    """Moments of every tensor, and how many steps they have seen."""

    first: Weights
    second: Weights
    steps: int = 0

    @classmethod
    def of(cls, weights: Weights) -> "AdamState":
        return cls(first=weights.like(), second=weights.like())

    def tensors(self) -> Mapping[str, Tensor]:
        """Under names for a file."""
        return {
            f"{moment}.{name}": tensor
            for moment, weights in (("first", self.first), ("second", self.second))
            for name, tensor in weights.named()
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class AdamRates:
    """Constants of Adam (Kingma & Ba 2015)."""

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def at(self, step: int, rate: float, dtype: np.dtype) -> np.ndarray:
        """What the compiled update of step `step`, counted from 1, reads: see `row_kernels.adam`."""
        return np.array(
            [
                self.beta1,
                1 - self.beta1,
                self.beta2,
                1 - self.beta2,
                rate / (1 - self.beta1**step),
                np.sqrt(1 - self.beta2**step),
                self.epsilon,
            ],
            dtype=dtype,
        )
