"""A choice of codes that costs half a product: candidates from bfloat16, their values and the choice from float32.

    rough = Preselection(encoder, TopK(k=32), factor=2)
    codes = rough.chosen(centred, encoder, bias, shard, threads, tiles)    # about what TopK chooses of all
    rough.follow(encoder, 0, 256)                                          # after rows 0 ... 255 were updated

Processors with 16-bit products make them two to eight times as fast as those of float32, and the encoder's product is
most of a step. From it the same choice is made of `factor` k codes, of each row, or on average of a batch. Each of
these candidates is then computed anew from the weights themselves, so that no value is rounded, and the codes are
chosen among them. A code is lost only if more than (factor - 1) k others of its row, or (factor - 1) N k others of a
batch of N rows, come before it by rounding alone; `recall` of a training counts.

Where latents are shared out every worker takes as many candidates of its own, which together are more than one worker
would have: what one finds, several find too.

On a processor without 16-bit products this is slower than the exact choice.
"""

from collections.abc import Iterator
from concurrent.futures import Executor

import numpy as np
import torch
from torch import Tensor

from lrh_ray.analyses.sae.codes import Codes
from lrh_ray.analyses.sae.mesh import ALONE
from lrh_ray.analyses.sae.row_kernels import encode_entries
from lrh_ray.analyses.sae.selection import PART_ROWS, Selection, Tiles, of_other_k
from lrh_ray.analyses.sae.sharding import Shard
from lrh_ray.analyses.sae.tensor_codes import TensorCodes
from lrh_ray.analyses.sae.tile_memory import TileMemory, tile_rows
from lrh_ray.compiled import in_parts
from lrh_ray.errors import ConfigError

ROUGH_TILE_BYTES = 1 << 27
"""Of rough pre-activations that are held together, made wide again."""
ROUGH = torch.bfloat16


def num_candidates(factor: int, k: int, num_latents: int) -> int:
    """Candidates of a row, or of a row on average, among `num_latents`.

    Raises:
        ConfigError: A factor below 1.
    """
    if factor < 1:
        raise ConfigError(f"preselect is {factor!r}; candidates are at least 1 times k.")
    return min(factor * k, num_latents)


class Preselection:
    """Holds the encoder in bfloat16."""

    def __init__(self, encoder: Tensor, selection: Selection, *, factor: int) -> None:
        """Copy encoder [M, D]; `factor` k candidates of a row, or of a row on average.

        Raises:
            ConfigError: A factor below 1.
        """
        self._selection = selection
        self._first = of_other_k(selection, num_candidates(factor, selection.k, len(encoder)))
        self._own = Shard(mesh=ALONE, num_latents=len(encoder))
        self._encoder = encoder.to(ROUGH)

    def follow(self, encoder: Tensor, first: int, last: int) -> None:
        """Take over rows that were updated."""
        self._encoder[first:last].copy_(encoder[first:last])

    def chosen(
        self,
        centred: np.ndarray,
        encoder: Tensor,
        bias: np.ndarray,
        shard: Shard,
        threads: Executor | None,
        tiles: TileMemory,
    ) -> Codes:
        """Codes of rows [N, D], from which the offset of the input is taken."""
        found = self._first(self._tiles(torch.from_numpy(centred), tiles), bias, len(centred), threads, self._own)
        weights = encoder.numpy()

        def rescore(first: int, last: int) -> None:
            own = slice(first, last)
            encode_entries(centred[own], weights, bias, found.index[own], found.count[own], found.value[own])
            np.maximum(found.value[own], 0, out=found.value[own])

        for _ in in_parts(rescore, len(centred), size=PART_ROWS, threads=threads):
            pass
        return self._selection.among(found, shard)

    def _tiles(self, centred: Tensor, tiles: TileMemory) -> Tiles:
        width = len(self._encoder)
        height = tile_rows(len(centred), width, limit=ROUGH_TILE_BYTES)
        rough, wide = (tiles.of(height, width, dtype) for dtype in (ROUGH, centred.dtype))
        rows = centred.to(ROUGH)

        def made() -> Iterator[tuple[int, np.ndarray]]:
            for first in range(0, len(rows), height):
                own = rows[first : first + height]
                torch.mm(own, self._encoder.T, out=rough[: len(own)])
                yield first, wide[: len(own)].copy_(rough[: len(own)]).numpy()

        return made


def recall_of(exact: TensorCodes, found: TensorCodes, shard: Shard) -> float:
    """Share of the exact codes of all workers that are found; 1 where there are none."""
    both = torch.isin(_entries(exact, shard.num_latents), _entries(found, shard.num_latents))
    counts = torch.stack([both.sum(), torch.full_like(both.sum(), both.numel())])
    num_found, num = shard.summed_over_all(counts).tolist()
    return num_found / num if num else 1.0


def _entries(codes: TensorCodes, num_latents: int) -> Tensor:
    """A number for each code: its row and its latent."""
    rows = torch.arange(len(codes.index), device=codes.index.device)[:, None]
    return (rows * num_latents + codes.index)[codes.value > 0]
