"""Which latents a row is written with, in torch on any device: `selection` and `preselection` for GPUs.

    choice = DeviceChoice(selection=TopK(k=64), shard=shard, preselect=2)
    codes = choice(centred, weights)                 # of this worker's rows and latents, among those of all workers
    choice.exact(centred, weights)                   # without the preselection

Of each row the k largest of each part of the latents decide exactly which are the k largest of all. The N k largest of
a batch are sought among the `ROOM` k largest of each row and part; where a row of any worker might have more, among
twice as many, and so on. Of equal values the first by row, then by latent, are taken.

A preselection multiplies in bfloat16, takes `preselect` times k candidates of each row and part, on average of a batch
where k is one, and computes their pre-activations anew from the weights. As all rows of a tensor are as long, every row
has as many candidates as the one that a batch gives most.

Legend: N rows, D features, L latents of a part or candidates, K codes a row.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lrh_ray.analyses.sae.device_kernels import dots
from lrh_ray.analyses.sae.parameters import Weights
from lrh_ray.analyses.sae.preselection import ROUGH, num_candidates
from lrh_ray.analyses.sae.selection import BatchTopK, Selection, TopK, largest_of_parts, require_k
from lrh_ray.analyses.sae.sharding import Shard
from lrh_ray.analyses.sae.tensor_codes import TensorCodes
from lrh_ray.errors import ConfigError

ROOM = 4
"""Codes of a row, in multiples of k, among which those of a batch are sought first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceChoice:
    """Chooses as `selection` says, `TopK` or `BatchTopK`, of which k alone is read."""

    selection: Selection
    shard: Shard
    preselect: int | None = None
    """Candidates in multiples of k, from a product in bfloat16; None: the product is exact."""

    def __post_init__(self) -> None:
        if not isinstance(self.selection, TopK | BatchTopK):
            raise ConfigError(f"selection is {self.selection!r}; a device chooses by TopK or BatchTopK.")
        require_k(self.selection.k, self.shard.num_latents)
        if self.preselect is not None:
            num_candidates(self.preselect, self.selection.k, self.shard.num_latents)

    def __call__(self, centred: Tensor, weights: Weights) -> TensorCodes:
        """Codes of rows [N, D], from which the offset of the input is taken."""
        if self.preselect is None:
            return self.exact(centred, weights)
        rough = torch.addmm(weights.encoder_bias.to(ROUGH), centred.to(ROUGH), weights.encoder.to(ROUGH).T)
        width = num_candidates(self.preselect, self.selection.k, rough.shape[1])
        if isinstance(self.selection, BatchTopK):
            width = _widest(rough, width)
        latents = rough.topk(width, dim=1, sorted=False).indices
        return self._among(dots(centred, weights.encoder, latents) + weights.encoder_bias[latents], latents)

    def exact(self, centred: Tensor, weights: Weights) -> TensorCodes:
        """The same among all latents."""
        return self._among(torch.addmm(weights.encoder_bias, centred, weights.encoder.T), None)

    def _among(self, pre: Tensor, latents: Tensor | None) -> TensorCodes:
        """Codes of pre-activations [N, L], which are those of `latents` [N, L], or of all latents of the part."""
        if isinstance(self.selection, BatchTopK):
            return self._of_batch(pre, latents)
        own = _largest(pre, latents, self.selection.k)
        return own if self.shard.alone else largest_of_parts(own, self.selection.k, self.shard)

    def _of_batch(self, pre: Tensor, latents: Tensor | None) -> TensorCodes:
        width = ROOM * self.selection.k
        while True:
            own = _largest(pre, latents, width)
            every = self.shard.codes_of_all_rows(self.shard.joined(own))
            wanted = len(every.value) * self.selection.k
            least = every.value.reshape(-1).topk(min(wanted, every.value.numel())).values[-1]
            if own.value.shape[1] == pre.shape[1] or not self._anywhere((own.value[:, -1] > least).any()):
                break
            width *= 2
        chosen = _first_of_equals(every.by_latent(), least, wanted)
        return self.shard.kept(self.shard.own_rows(chosen))

    def _anywhere(self, flag: Tensor) -> bool:
        """Whether it is so on any worker; waits for the device."""
        return bool(self.shard.summed_over_all(flag.to(torch.int32)))


def _widest(pre: Tensor, width: int) -> int:
    """Most of a row [N, L] that may be among the N `width` largest; waits for the device.

    The N `width`-th largest of some of the values is at most that of all.
    """
    some = pre.topk(min(2 * width, pre.shape[1]), dim=1, sorted=False).values.reshape(-1)
    least = some.topk(len(pre) * width, sorted=False).values.min().clamp(min=0)
    return max(1, int((pre >= least).sum(dim=1).max()))


def _largest(pre: Tensor, latents: Tensor | None, width: int) -> TensorCodes:
    """The `width` largest positive of each row [N, L], the least of them last."""
    value, place = pre.topk(min(width, pre.shape[1]), dim=1)
    return TensorCodes(value=value.relu(), index=place if latents is None else latents.gather(1, place))


def _first_of_equals(codes: TensorCodes, least: Tensor, wanted: int) -> TensorCodes:
    """The `wanted` largest of codes [N, K] in the order of latents, which end with `least`; the others are absent."""
    above, equal = codes.value > least, codes.value == least
    rank = equal.reshape(-1).cumsum(dim=0).view_as(equal)
    chosen = above | (equal & (rank <= wanted - above.sum()))
    return TensorCodes(value=torch.where(chosen, codes.value, 0), index=codes.index)
