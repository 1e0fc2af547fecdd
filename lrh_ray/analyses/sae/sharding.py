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

What travels are tensors of the worker's device: gloo sends those of CPUs, NCCL those of GPUs and no others. Whoever has
NumPy arrays wraps them.

What can go wrong: a worker that dies leaves the others waiting; whoever started them ends them together.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, distributed
from torch.nn import functional

from lrh_ray.analyses.sae.mesh import Mesh
from lrh_ray.analyses.sae.tensor_codes import TensorCodes
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
    def has_all(self) -> bool:
        """Whether there is no other worker."""
        return self.mesh.everyone.world == 1

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

    def summed(self, tensor: Tensor) -> Tensor:
        """The sum over parts of the latents, in place; the same bits on all of them."""
        if not self.alone:
            distributed.all_reduce(tensor, group=self.mesh.latents.group)
        return tensor

    def summed_over_all(self, tensor: Tensor) -> Tensor:
        """The sum over all workers, in place."""
        if not self.has_all:
            distributed.all_reduce(tensor)
        return tensor

    def joined(self, codes: TensorCodes) -> TensorCodes:
        """Codes of all parts [N, K parts] under global numbers; those of each part in the order of latents."""
        if self.alone:
            return codes
        share, part = self.mesh.latents, self.part
        wide = TensorCodes(
            value=_wide(codes.value, share), index=_wide((codes.index + part.start).to(torch.int32), share)
        )
        last = torch.where(wide.value > 0, wide.index, part.stop - 1)
        own = TensorCodes(value=wide.value, index=last).by_latent()
        index = _gathered(own.index, share, axis=1).to(codes.index.dtype)
        return TensorCodes(value=_gathered(own.value, share, axis=1), index=index)

    def kept(self, codes: TensorCodes) -> TensorCodes:
        """Codes of this worker's part, under its own numbers, before what is absent."""
        if self.alone:
            return codes
        part = self.part
        mine = (codes.value > 0) & (codes.index >= part.start) & (codes.index < part.stop)
        own = TensorCodes(
            value=torch.where(mine, codes.value, 0),
            index=codes.index % (part.stop - part.start),  # of absent ones spread over all latents
        )
        return own.packed()

    def of_all_rows(self, tensor: Tensor, *, axis: int = 0) -> Tensor:
        """Tensors of the workers' rows, one behind the other; each worker has equally many rows."""
        return tensor if self.has_all_rows else _gathered(tensor, self.mesh.rows, axis=axis)

    def entries_of_all_rows(self, tensor: Tensor) -> Tensor:
        """The same of a tensor [N, K] whose width may differ between workers; filled up with 0."""
        return tensor if self.has_all_rows else self.of_all_rows(_wide(tensor, self.mesh.rows))

    def codes_of_all_rows(self, codes: TensorCodes) -> TensorCodes:
        """Codes of every worker's rows."""
        if self.has_all_rows:
            return codes
        index = self.entries_of_all_rows(codes.index.to(torch.int32)).to(codes.index.dtype)
        return TensorCodes(value=self.entries_of_all_rows(codes.value), index=index)

    def own_rows(self, codes: TensorCodes) -> TensorCodes:
        """Of the codes of all rows those of this worker's rows."""
        if self.has_all_rows:
            return codes
        own = self.mesh.rows.of(len(codes.value))
        return TensorCodes(value=codes.value[own], index=codes.index[own])


def _gathered(tensor: Tensor, share: Share, *, axis: int) -> Tensor:
    """Tensors of all workers of `share`, side by side."""
    own = tensor.contiguous()
    everyone = [torch.empty_like(own) for _ in range(share.world)]
    distributed.all_gather(everyone, own, group=share.group)
    return torch.cat(everyone, dim=axis)


def _wide(tensor: Tensor, share: Share) -> Tensor:
    """A tensor [N, K] filled up with 0 to the width of the widest among the workers of `share`."""
    width = torch.tensor(tensor.shape[1], device=tensor.device)
    distributed.all_reduce(width, distributed.ReduceOp.MAX, group=share.group)
    return functional.pad(tensor, (0, int(width) - tensor.shape[1]))
