"""Latents shared out over workers: each holds some of them, all see every row, and choices are exact.

    shard = Shard(share=Share(rank=0, world=2), num_latents=16384)
    shard.own                                # slice(0, 8192): the latents of this worker
    everyone = shard.joined(codes)           # what all workers found, global numbers of latents, in their order
    mine = shard.kept(chosen)                # those of this worker, under its own numbers

The k largest of a row are among the k largest of every worker, so that N k values a worker decide exactly. What a step
moves is N (2 D + 2 k world) numbers; gradients, and the moments of Adam, stay where their latents are. Data parallel
training would move 2 M D of them instead, which is more wherever a batch has fewer rows than about 1.5 M.

All workers get the same bits from every sum and every choice, and so go on alike. A product with fewer latents may
round differently from one with all of them: between numbers of workers, results agree to rounding.

What can go wrong: a worker that dies leaves the others waiting; whoever started them ends them together.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import distributed

from lrh_ray.analyses.sae.codes import Codes
from lrh_ray.collective import Share
from lrh_ray.errors import ConfigError

ALONE = Share(rank=0, world=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """The latents of one worker: equal parts of all, in order."""

    share: Share
    num_latents: int

    def __post_init__(self) -> None:
        if self.num_latents % self.share.world:
            raise ConfigError(
                f"{self.num_latents} latents cannot be shared out equally over {self.share.world} workers; take a "
                f"multiple of {self.share.world} (sae.latents), or another number of workers."
            )

    @property
    def alone(self) -> bool:
        return self.share.world == 1

    @property
    def own(self) -> slice:
        """Latents of this worker."""
        return self.share.of(self.num_latents)

    def summed(self, array: np.ndarray) -> np.ndarray:
        """The sum over workers, in place; the same bits on all of them."""
        if not self.alone:
            distributed.all_reduce(torch.from_numpy(array))
        return array

    def joined(self, codes: Codes) -> Codes:
        """Codes of all workers [N, K world] under global numbers, sorted by them; absent entries have value -1."""
        if self.alone:
            return codes
        width = torch.tensor(codes.index.shape[1])
        distributed.all_reduce(width, distributed.ReduceOp.MAX)
        mask = codes.mask()
        value = _wide(np.where(mask, codes.value, -1), int(width), -1)
        index = _wide(np.where(mask, codes.index + self.own.start, self.own.stop - 1), int(width), self.own.stop - 1)
        order = np.argsort(index, axis=1, kind="stable")
        values = self._gathered(np.take_along_axis(value, order, axis=1))
        indices = self._gathered(np.take_along_axis(index, order, axis=1))
        return Codes(value=values, index=indices, count=np.full(len(values), values.shape[1]))

    def _gathered(self, array: np.ndarray) -> np.ndarray:
        """Columns of all workers side by side."""
        own = torch.from_numpy(np.ascontiguousarray(array))
        everyone = [torch.empty_like(own) for _ in range(self.share.world)]
        distributed.all_gather(everyone, own)
        return np.concatenate([part.numpy() for part in everyone], axis=1)

    def kept(self, codes: Codes) -> Codes:
        """Codes of this worker's latents, under its own numbers."""
        if self.alone:
            return codes
        mine = codes.mask() & (codes.index >= self.own.start) & (codes.index < self.own.stop)
        order = np.argsort(~mine, axis=1, kind="stable")[:, : max(1, int(mine.sum(axis=1).max(initial=0)))]
        index = np.take_along_axis(codes.index, order, axis=1) - self.own.start
        return Codes(
            value=np.ascontiguousarray(np.take_along_axis(codes.value, order, axis=1)),
            index=np.ascontiguousarray(index).astype(np.int32),
            count=mine.sum(axis=1),
        )


def _wide(array: np.ndarray, width: int, filler: float) -> np.ndarray:
    added = width - array.shape[1]
    return np.pad(array, ((0, 0), (0, added)), constant_values=filler) if added else array
