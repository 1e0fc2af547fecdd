"""A choice of codes that costs half a product: candidates from bfloat16, their values and the choice from float32.

    rough = Preselection(encoder, factor=2)
    codes = rough.chosen(centred, encoder, bias, TopK(k=32), threads)      # about what TopK chooses of all
    rough.follow(encoder, 0, 256)                                          # after rows 0 ... 255 were updated

Processors with 16-bit products make them two to eight times as fast as those of float32, and the encoder's product is
most of a step. Of each row the `factor` k largest are taken from it; each is then computed anew from the weights
themselves, so that no value is rounded, and the k largest of these are the codes. A code is lost only if more than
(factor - 1) k others of its row come before it by rounding alone; `SparseTraining.recall` counts.

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
from lrh_ray.analyses.sae.selection import PART_ROWS, BatchTopK, Tiles, TopK, top_codes
from lrh_ray.analyses.sae.sharding import Shard
from lrh_ray.compiled import in_parts
from lrh_ray.errors import ConfigError

TILE_BYTES = 1 << 27
"""Of rough pre-activations that are held together."""


class Preselection:
    """Holds the encoder in bfloat16."""

    def __init__(self, encoder: Tensor, *, factor: int) -> None:
        """Copy encoder [M, D]; `factor` k candidates of a row.

        Raises:
            ConfigError: A factor below 1.
        """
        if factor < 1:
            raise ConfigError(f"preselect is {factor!r}; candidates are at least 1 times k.")
        self._factor = factor
        self._encoder = encoder.to(torch.bfloat16)
        self._rough, self._wide = torch.empty(0, dtype=torch.bfloat16), torch.empty(0)

    def follow(self, encoder: Tensor, first: int, last: int) -> None:
        """Take over rows that were updated."""
        self._encoder[first:last].copy_(encoder[first:last])

    def chosen(
        self,
        centred: np.ndarray,
        encoder: Tensor,
        bias: np.ndarray,
        selection: TopK | BatchTopK,
        threads: Executor | None,
    ) -> Codes:
        """Codes of rows [N, D], from which the offset of the input is taken."""
        width = min(self._factor * selection.k, len(bias))
        found = top_codes(self._tiles(torch.from_numpy(centred)), bias, len(centred), width, threads)
        exact = np.full(found.value.shape, -1, centred.dtype)
        weights = encoder.numpy()

        def rescore(first: int, last: int) -> None:
            own = slice(first, last)
            encode_entries(centred[own], weights, bias, found.index[own], found.count[own], exact[own])

        for _ in in_parts(rescore, len(centred), size=PART_ROWS, threads=threads):
            pass
        among = Shard(mesh=ALONE, num_latents=width)
        codes = selection(lambda: iter([(0, exact)]), np.zeros(width, exact.dtype), len(exact), threads, among)
        places = np.where(codes.mask(), codes.index, 0)
        return Codes(value=codes.value, index=np.take_along_axis(found.index, places, axis=1), count=codes.count)

    def _tiles(self, centred: Tensor) -> Tiles:
        width = len(self._encoder)
        height = min(len(centred), max(1, TILE_BYTES // (4 * width)))
        if self._wide.numel() < height * width:
            self._rough = torch.empty(height * width, dtype=torch.bfloat16)
            self._wide = torch.empty(height * width)
        rough, wide = (buffer[: height * width].view(height, width) for buffer in (self._rough, self._wide))
        rows = centred.to(torch.bfloat16)

        def made() -> Iterator[tuple[int, np.ndarray]]:
            for first in range(0, len(rows), height):
                own = rows[first : first + height]
                torch.mm(own, self._encoder.T, out=rough[: len(own)])
                yield first, wide[: len(own)].copy_(rough[: len(own)]).numpy()

        return made
