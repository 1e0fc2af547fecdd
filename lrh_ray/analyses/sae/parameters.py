"""Weights of an autoencoder, the moments that Adam keeps of them, and how they begin.

    z = act(encoder (x - offset) + encoder_bias)                     encoder [M, D], a row for each latent
    y^ = z decoder + decoder_bias [+ skip (x - offset)]              decoder [M, D'], a row for each latent, of length 1

An autoencoder has y = x, and its offset is `decoder_bias`: what stands for no code is taken from the input too. A
transcoder writes other rows than it reads. Its offset is `input_offset`, the mean of what it reads, and does not learn:
`encoder_bias` learns all that an offset could. With `skip` [D', D] it is a skip transcoder (Paulo et al. 2025, arXiv
2501.18823): codes say what a linear map leaves.

Encoder and decoder have a row for each latent, so that all that belongs to a latent lies together: a step touches rows.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from lrh_ray.errors import ConfigError

OFFSET = "input_offset"
"""Says by being there that an autoencoder is a transcoder; the one tensor that does not learn."""
OF_ALL = ("decoder_bias", OFFSET, "skip")
"""What belongs to all latents together; every other tensor has a row for each."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Weights:
    """Tensors of an autoencoder; training changes them in place."""

    encoder: Tensor
    encoder_bias: Tensor
    decoder: Tensor
    decoder_bias: Tensor
    input_offset: Tensor | None = None
    """Of a transcoder [D]."""
    skip: Tensor | None = None
    """Of a skip transcoder [D', D]."""

    @property
    def num_latents(self) -> int:
        return len(self.encoder)

    @property
    def offset(self) -> Tensor:
        """What is taken from the input."""
        return self.decoder_bias if self.input_offset is None else self.input_offset

    def named(self) -> Iterator[tuple[str, Tensor]]:
        found = ((field.name, getattr(self, field.name)) for field in fields(self))
        return ((name, tensor) for name, tensor in found if tensor is not None)

    def of_latents(self, own: slice) -> "Weights":
        """A copy of what belongs to some latents, and of what belongs to all."""
        return Weights(**{name: (t if name in OF_ALL else t[own]).clone() for name, t in self.named()})

    def on(self, device: torch.device) -> "Weights":
        """A copy on a device."""
        return Weights(**{name: tensor.to(device, copy=True) for name, tensor in self.named()})

    def like(self) -> "Weights":
        """Zeros of the same shapes, for all that learns."""
        return Weights(**{name: torch.zeros_like(tensor) for name, tensor in self.named() if name != OFFSET})


def first_weights(
    num_latents: int,
    centre: np.ndarray,
    *,
    seed: int,
    read_centre: np.ndarray | None = None,
    skip: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Weights:
    """Directions uniform on the sphere, the encoder the decoder's transpose, the offset at the centre of the rows.

    Args:
        num_latents: M.
        centre: Mean of the target rows [D'].
        seed: Names the directions; the same for every machine and number of workers.
        read_centre: Of a transcoder: mean of the rows it reads [D]; the encoder then has its own directions.
        skip: Whether a transcoder has a skip connection, which begins at 0.
        dtype: Of all weights.

    Raises:
        ConfigError: A skip connection of an autoencoder, which would copy what codes are to explain.
    """
    if skip and read_centre is None:
        raise ConfigError("A skip connection would copy the rows that an autoencoder reads; only transcoders have one.")
    noise = torch.Generator().manual_seed(seed)

    def directions(features: int) -> Tensor:
        drawn = torch.randn(num_latents, features, generator=noise, dtype=torch.float64)
        return torch.nn.functional.normalize(drawn, dim=1).to(dtype)

    decoder = directions(len(centre))
    return Weights(
        encoder=decoder.clone() if read_centre is None else directions(len(read_centre)),
        encoder_bias=torch.zeros(num_latents, dtype=dtype),
        decoder=decoder,
        decoder_bias=torch.from_numpy(centre).to(dtype).clone(),
        input_offset=None if read_centre is None else torch.from_numpy(read_centre).to(dtype).clone(),
        skip=torch.zeros(len(centre), len(read_centre), dtype=dtype) if skip and read_centre is not None else None,
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
