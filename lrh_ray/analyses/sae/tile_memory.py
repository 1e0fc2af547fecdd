"""Memory for tiles of pre-activations, which trainings of a worker use one after the other.

    tiles = TileMemory()
    tile = tiles.of(tile_rows(4096, 65_536), 65_536, torch.float32)        # [1024, 65536], of any content
    tiles.nbytes                                                           # of the largest tiles so far

Pre-activations of a batch and all latents would be the largest array of a step by far, so that they are made a tile of
rows at a time. A new array for each would cost as much as the product saves, because the system clears its pages first;
one for each training would be as many as there are kinds and sites.

What can go wrong: a tile holds until the next one is asked for, by whichever training.
"""

import torch
from torch import Tensor

TILE_BYTES = 1 << 28
"""Of pre-activations that are held together. The product packs the encoder anew for every tile of rows; tiles of 256
rows make it a third slower."""


def tile_rows(num_rows: int, width: int, *, itemsize: int = 4, limit: int | None = None) -> int:
    """Rows of a tile of `num_rows` with `width` numbers each, of at most `limit` bytes; None: `TILE_BYTES`."""
    return min(num_rows, max(1, (TILE_BYTES if limit is None else limit) // (width * itemsize)))


class TileMemory:
    """One tile for each data type, as large as the largest that was asked for."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._held: dict[torch.dtype, Tensor] = {}

    def of(self, height: int, width: int, dtype: torch.dtype) -> Tensor:
        """A tile [height, width]."""
        held = self._held.get(dtype)
        if held is None or held.numel() < height * width:
            self._held.pop(dtype, None)  # or both would be held
            held = self._held[dtype] = torch.empty(height * width, dtype=dtype)
        return held[: height * width].view(height, width)

    @property
    def nbytes(self) -> int:
        return sum(held.nbytes for held in self._held.values())
