"""One worker's share of a training step: which rows are its own, and the sum of what all workers found.

Data parallel training is exact only if the step does not depend on how many workers share it: the global batch is cut
into contiguous parts, and gradients are summed, not averaged over unequal parts.

    share = Share(rank=1, world=4)
    own = rows[share.of(len(rows))]
    loss = criterion(model(own)).sum() / len(rows)          # the mean over the global batch, this worker's part of it
    loss.backward()
    sum_over_workers([p.grad for p in model.parameters()], share)

What can go wrong: a worker that dies leaves the others waiting in the sum; whoever started them ends them together.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, distributed


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """Worker `rank` of `world`. With one worker no process group is needed."""

    rank: int
    world: int
    group: distributed.ProcessGroup | None = field(default=None, compare=False, repr=False)
    """Who takes part; None: all workers there are."""

    def of(self, num: int) -> slice:
        """This worker's rows of a batch of `num`; sizes differ by one at most."""
        return slice(num * self.rank // self.world, num * (self.rank + 1) // self.world)


def sum_over_workers(tensors: Sequence[Tensor], share: Share) -> None:
    """Replace each tensor by its sum over the workers, in one message of all of them; all ranks get the same bits."""
    if share.world == 1:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    distributed.all_reduce(flat, group=share.group)
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))
