"""A trained autoencoder as it is used: rows to codes and back, in the rows' own unit.

    reader = TopKReader(fold(training.parameters, scale), k=32)
    codes = reader.codes(rows)                     # [N, M]
    reader.decode(codes)                           # [N, D]; with a skip connection reader.decode(codes, rows)

Training sees rows divided by one number, their root mean square distance from their mean. `fold` takes it into the
weights. Codes that scale with the rows they are to explain (all but normalised ones) keep their directions of unit
length and are then in the unit of these rows; of a normalised code only the matrices change. Several sites that are
written side by side have a scale each: codes then stay as in training.

BatchTopK has no batch in use: a latent fires above one threshold, the one that gives k codes a row over the corpus.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from lrh_ray.analyses.sae.linear import encode
from lrh_ray.analyses.sae.parameters import OFFSET
from lrh_ray.errors import ConfigError
from lrh_ray.layouts import Rows

TILE_ROWS = 1024


@runtime_checkable
class Reader(Protocol):
    """Rows to codes and back; an `Architecture` is one."""

    def codes(self, rows: Tensor) -> Tensor:
        """Codes [N, M] of rows [N, D]."""

    def decode(self, codes: Tensor, rows: Tensor | None = None) -> Tensor:
        """Rows [N, D'] that codes [N, M] stand for; only a skip connection needs the `rows` [N, D] they are of."""


def tiles(rows: Rows) -> Iterator[tuple[slice, Tensor]]:
    """Rows of any float type, some at a time: which, and they themselves [n, D], float32; of no rows one empty tile."""
    for first in range(0, max(len(rows), 1), TILE_ROWS):
        tile = slice(first, min(first + TILE_ROWS, len(rows)))
        yield tile, torch.from_numpy(rows[tile].astype(np.float32))


def codes_by_tile(reader: Reader, rows: Rows) -> Iterator[tuple[slice, np.ndarray]]:
    """Codes of rows of any float type, some rows at a time: which rows, and their codes [n, M], float32."""
    for tile, own in tiles(rows):
        with torch.no_grad():
            codes = reader.codes(own).numpy()
        yield tile, codes


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Scales:
    """What training divides rows by, float64: one number each, or one for every feature."""

    read: Tensor
    """Of what is read, [1] or [D]."""
    written: Tensor
    """Of what is explained, [1] or [D']."""
    codes: float
    """Codes in use are this many times those of training."""

    @classmethod
    def of(cls, scale: float) -> "Scales":
        """Of an autoencoder of one site."""
        one = torch.tensor([scale], dtype=torch.float64)
        return cls(read=one, written=one, codes=scale)


def fold(parameters: Mapping[str, Tensor], scale: float | Scales, *, normalised: bool = False) -> dict[str, Tensor]:
    """Weights for rows as they are, from weights for rows divided by `scale`; `normalised` codes do not scale."""
    scales = scale if isinstance(scale, Scales) else Scales.of(scale)
    unit = 1.0 if normalised else scales.codes
    factors = {
        "encoder": unit / scales.read,
        "low_encoder": unit / scales.read,
        "decoder": scales.written / unit,
        "decoder_bias": scales.written,
        OFFSET: scales.read,
        "skip": scales.written[:, None] / scales.read,
        "log_gain": torch.ones(1),
    }
    others = torch.tensor([unit], dtype=torch.float64)
    return {
        name: tensor + math.log(unit)
        if name == "log_threshold"
        else tensor * factors.get(name, others).to(tensor.dtype)
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

    def decode(self, codes: Tensor, rows: Tensor | None = None) -> Tensor:
        """Rows [N, D'] that codes [N, M] stand for."""
        return decoded(self.parameters, codes, rows)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ThresholdReader:
    """Pre-activations of at least one threshold, the same for all latents."""

    parameters: Mapping[str, Tensor]
    threshold: float

    def codes(self, rows: Tensor) -> Tensor:
        """Codes [N, M] of rows [N, D]."""
        pre = pre_activations(self.parameters, rows)
        return pre * (pre >= self.threshold)

    def decode(self, codes: Tensor, rows: Tensor | None = None) -> Tensor:
        """Rows [N, D'] that codes [N, M] stand for."""
        return decoded(self.parameters, codes, rows)


def pre_activations(parameters: Mapping[str, Tensor], rows: Tensor) -> Tensor:
    """Pre-activations [N, M]: encoder (x - offset) + encoder_bias."""
    offset = parameters.get(OFFSET, parameters["decoder_bias"])
    return encode(rows, parameters["encoder"], parameters["encoder_bias"], offset)


def decoded(parameters: Mapping[str, Tensor], codes: Tensor, rows: Tensor | None) -> Tensor:
    """Rows [N, D'] that codes [N, M] stand for."""
    return with_what_is_no_code(codes @ parameters["decoder"], parameters, rows)


def with_what_is_no_code(found: Tensor, parameters: Mapping[str, Tensor], rows: Tensor | None) -> Tensor:
    """Sums of codes times decoder rows [N, D'], with the offset of the target and the skip connection added.

    Raises:
        ConfigError: There is a skip connection, and no rows.
    """
    found = found + parameters["decoder_bias"]
    if "skip" not in parameters:
        return found
    if rows is None:
        raise ConfigError("A skip connection adds a linear map of what was read: give `decode` the rows, too.")
    return found + (rows - parameters[OFFSET]) @ parameters["skip"].T
