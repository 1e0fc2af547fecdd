"""A trained autoencoder as it is used: rows to codes and back, in the rows' own unit.

    reader = TopKReader(fold(training.parameters, scale), k=32)
    codes = reader.codes(rows)                     # [N, M]
    reader.decode(codes)                           # [N, D]

Training sees rows divided by one number, their root mean square distance from their mean. `fold` takes it into the
weights. Codes that scale with their rows (all but normalised ones) keep their directions of unit length and are then in
the unit of the rows; of a normalised code only the matrices change.

BatchTopK has no batch in use: a latent fires above one threshold, the one that gives k codes a row over the corpus.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from lrh_ray.analyses.sae.linear import encode
from lrh_ray.layouts import Rows

TILE_ROWS = 1024
DIRECTIONS = ("encoder", "decoder", "low_encoder", "log_gain")
"""Of codes that scale with their rows these stay; biases are multiplied, a log threshold is moved."""


@runtime_checkable
class Reader(Protocol):
    """Rows to codes and back; an `Architecture` is one."""

    def codes(self, rows: Tensor) -> Tensor:
        """Codes [N, M] of rows [N, D]."""

    def decode(self, codes: Tensor) -> Tensor:
        """Rows [N, D] that codes [N, M] stand for."""


def codes_by_tile(reader: Reader, rows: Rows) -> Iterator[tuple[slice, np.ndarray]]:
    """Codes of rows of any float type, some rows at a time: which rows, and their codes [n, M], float32."""
    for first in range(0, max(len(rows), 1), TILE_ROWS):
        tile = slice(first, min(first + TILE_ROWS, len(rows)))
        with torch.no_grad():
            yield tile, reader.codes(torch.from_numpy(rows[tile].astype(np.float32))).numpy()


def fold(parameters: Mapping[str, Tensor], scale: float, *, normalised: bool = False) -> dict[str, Tensor]:
    """Weights for rows as they are, from weights for rows divided by `scale`; `normalised` codes do not scale."""
    if normalised:
        factors = {"encoder": 1 / scale, "decoder": scale, "decoder_bias": scale}
        return {name: tensor * factors.get(name, 1.0) for name, tensor in parameters.items()}
    shift = torch.tensor(scale, dtype=torch.float64).log().item()
    return {
        name: tensor.clone() if name in DIRECTIONS else tensor + shift if name == "log_threshold" else tensor * scale
        for name, tensor in parameters.items()
    }


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TopKReader:
    """The k largest positive pre-activations of each row."""

    parameters: Mapping[str, Tensor]
    k: int

    def codes(self, rows: Tensor) -> Tensor:
        """Codes [N, M] of rows [N, D]."""
        pre = pre_activations(self.parameters, rows)
        value, index = pre.relu().topk(self.k, dim=1)
        return torch.zeros_like(pre).scatter(1, index, value)

    def decode(self, codes: Tensor) -> Tensor:
        """Rows [N, D] that codes [N, M] stand for."""
        return codes @ self.parameters["decoder"] + self.parameters["decoder_bias"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ThresholdReader:
    """Pre-activations of at least one threshold, the same for all latents."""

    parameters: Mapping[str, Tensor]
    threshold: float

    def codes(self, rows: Tensor) -> Tensor:
        """Codes [N, M] of rows [N, D]."""
        pre = pre_activations(self.parameters, rows)
        return pre * (pre >= self.threshold)

    def decode(self, codes: Tensor) -> Tensor:
        """Rows [N, D] that codes [N, M] stand for."""
        return codes @ self.parameters["decoder"] + self.parameters["decoder_bias"]


def pre_activations(parameters: Mapping[str, Tensor], rows: Tensor) -> Tensor:
    """Pre-activations [N, M]: encoder (x - decoder_bias) + encoder_bias."""
    return encode(rows, parameters["encoder"], parameters["encoder_bias"], parameters["decoder_bias"])
