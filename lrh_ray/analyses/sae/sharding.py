"""Latents and rows shared out over workers: each computes some codes of some rows, and choices are exact.

    shard = Shard(mesh=make_mesh(share, parts=2), num_latents=16384)
    shard.part                               # slice(0, 8192): the latents whose codes this worker computes
    shard.held                               # those of them whose weights it updates and saves
    everyone = shard.joined(codes)           # what all parts found, global numbers of latents, in their order
    mine = shard.kept(chosen)                # those of this worker's part, under its own numbers
    of_all = shard.codes_of_all_rows(mine)   # of the other workers' rows too

The k largest of a row are among the k largest of every part, so that N k values a part decide exactly. Where latents
alone are shared out, a step moves N (2 D + 2 k world) numbers; gradients, and the moments of Adam, stay where their
latents are. Where rows are shared out, each worker has the weights of its whole part, updates only those it holds, from
the codes and errors of all rows, and tells the others: no gradient travels, and moments are held once.

All workers get the same bits from every sum and every choice, and so go on alike. A product with fewer latents, or of
fewer rows, may round differently: between numbers of workers, results agree to rounding.

What can go wrong: a worker that dies leaves the others waiting; whoever started them ends them together.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import distributed

from lrh_ray.analyses.sae.codes import Codes
from lrh_ray.analyses.sae.mesh import Mesh
from lrh_ray.collective import Share
from lrh_ray.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """The latents of one worker: equal parts of all, in order."""

    mesh: Mesh
    num_latents: int

    def __post_init__(self) -> None:
        world = self.mesh.everyone.world
        if self.num_latents % world:
            raise ConfigError(
                f"{self.num_latents} latents cannot be shared out equally over {world} workers; take a "
                f"multiple of {world} (sae.latents), or another number of workers."
            )

    @property
    def alone(self) -> bool:
        """Whether this worker has all latents."""
        return self.mesh.latents.world == 1

    @property
    def has_all_rows(self) -> bool:
        return self.mesh.rows.world == 1

    @property
    def part(self) -> slice:
        """Latents whose codes this worker computes."""
        return self.mesh.latents.of(self.num_latents)

    @property
    def held(self) -> slice:
        """Latents that this worker updates and saves; each is held once."""
        return self.mesh.everyone.of(self.num_latents)

    @property
    def held_of_part(self) -> slice:
        """The same, counted from the first of the part."""
        return slice(self.held.start - self.part.start, self.held.stop - self.part.start)

    def summed(self, array: np.ndarray) -> np.ndarray:
        """The sum over parts of the latents, in place; the same bits on all of them."""
        if not self.alone:
            distributed.all_reduce(torch.from_numpy(array), group=self.mesh.latents.group)
        return array

    def summed_over_all(self, array: np.ndarray) -> np.ndarray:
        """The sum over all workers, in place."""
        if self.mesh.everyone.world > 1:
            distributed.all_reduce(torch.from_numpy(array))
        return array

    def joined(self, codes: Codes) -> Codes:
        """Codes of all parts [N, K parts] under global numbers, sorted by them; absent entries have value -1."""
        if self.alone:
            return codes
        share, part = self.mesh.latents, self.part
        width, mask = _widest(codes, share), codes.mask()
        value = _wide(np.where(mask, codes.value, -1), width, -1)
        index = _wide(np.where(mask, codes.index + part.start, part.stop - 1), width, part.stop - 1)
        order = np.argsort(index, axis=1, kind="stable")
        values = _gathered(np.take_along_axis(value, order, axis=1), share, axis=1)
        indices = _gathered(np.take_along_axis(index, order, axis=1), share, axis=1)
        return Codes(value=values, index=indices, count=np.full(len(values), values.shape[1]))

    def kept(self, codes: Codes) -> Codes:
        """Codes of this worker's part, under its own numbers."""
        if self.alone:
            return codes
        part = self.part
        mine = codes.mask() & (codes.index >= part.start) & (codes.index < part.stop)
        order = np.argsort(~mine, axis=1, kind="stable")[:, : max(1, int(mine.sum(axis=1).max(initial=0)))]
        index = np.take_along_axis(codes.index, order, axis=1) - part.start
        return Codes(
            value=np.ascontiguousarray(np.take_along_axis(codes.value, order, axis=1)),
            index=np.ascontiguousarray(index).astype(np.int32),
            count=mine.sum(axis=1),
        )

    def of_all_rows(self, array: np.ndarray, *, axis: int = 0) -> np.ndarray:
        """Arrays of the workers' rows, one behind the other; each worker has equally many rows."""
        return array if self.has_all_rows else _gathered(array, self.mesh.rows, axis=axis)

    def codes_of_all_rows(self, codes: Codes) -> Codes:
        """Codes of every worker's rows."""
        if self.has_all_rows:
            return codes
        width = _widest(codes, self.mesh.rows)
        return Codes(
            value=self.of_all_rows(_wide(codes.value, width, 0)),
            index=self.of_all_rows(_wide(codes.index, width, 0)),
            count=self.of_all_rows(codes.count),
        )

    def own_rows(self, codes: Codes) -> Codes:
        """Of the codes of all rows those of this worker's rows."""
        if self.has_all_rows:
            return codes
        own = self.mesh.rows.of(len(codes.count))
        return Codes(value=codes.value[own], index=codes.index[own], count=codes.count[own])


def _widest(codes: Codes, share: Share) -> int:
    width = torch.tensor(codes.index.shape[1])
    distributed.all_reduce(width, distributed.ReduceOp.MAX, group=share.group)
    return int(width)


def _gathered(array: np.ndarray, share: Share, *, axis: int) -> np.ndarray:
    """Arrays of all workers of `share`, side by side."""
    own = torch.from_numpy(np.ascontiguousarray(array))
    everyone = [torch.empty_like(own) for _ in range(share.world)]
    distributed.all_gather(everyone, own, group=share.group)
    return np.concatenate([part.numpy() for part in everyone], axis=axis)


def _wide(array: np.ndarray, width: int, filler: float) -> np.ndarray:
    added = width - array.shape[1]
    return np.pad(array, ((0, 0), (0, added)), constant_values=filler) if added else array
