"""What a TopK kind has while it trains, of one worker among several, and how it is written down and read again.

    state = SparseState.of(first_weights(16384, mean, seed=0), Shard(mesh=mesh, num_latents=16384), device)
    state.weights, state.adam, state.since_fired      # of this worker's part; moments only of latents that it holds
    state.tell()                                      # after a step: bring held latents to those that share the part
    joined([state.tensors(), ...])                    # of all workers, in order: what any number of them can `load`

Files are those of any device: `tensors` are on the CPU, `load` copies to wherever the state is.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lrh_ray.analyses.sae.parameters import AdamState, Weights
from lrh_ray.analyses.sae.sharding import Shard
from lrh_ray.analyses.sae.training import of_latents

LATENT_TENSORS = ("encoder", "encoder_bias", "decoder")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SparseState:
    """Changes in place from step to step."""

    shard: Shard
    weights: Weights
    adam: AdamState
    since_fired: Tensor
    """Rows since each latent of the part fired, int64."""

    @classmethod
    def of(cls, weights: Weights, shard: Shard, device: torch.device | None = None) -> "SparseState":
        """Before the first step, from weights of all latents; on a device a copy of them, else they are taken over."""
        own = weights if shard.alone else weights.of_latents(shard.part)
        own = own if device is None else own.on(device)
        return cls(
            shard=shard,
            weights=own,
            adam=AdamState.of(own.of_latents(shard.held_of_part)),
            since_fired=torch.zeros(own.num_latents, dtype=torch.int64, device=own.encoder.device),
        )

    def _of_part(self) -> dict[str, Tensor]:
        """What this worker has of every latent of its part."""
        own = {f"parameter.{name}": tensor for name, tensor in self.weights.named()}
        return {**own, "since_fired": self.since_fired}

    def _of_held(self) -> dict[str, Tensor]:
        """What it has only of the latents that it updates."""
        return {f"adam.{name}": tensor for name, tensor in self.adam.tensors().items()}

    def tensors(self) -> dict[str, Tensor]:
        """All that a resumed run needs of the latents that this worker holds, under names for a file; on the CPU."""
        held = of_latents(self._of_part(), self.shard.held_of_part)
        own = {name: tensor.cpu() for name, tensor in {**held, **self._of_held()}.items()}
        return {**own, "steps": torch.tensor(self.adam.steps)}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from `tensors` of all latents."""
        for own, latents in ((self._of_part(), self.shard.part), (self._of_held(), self.shard.held)):
            for name, tensor in of_latents({name: tensors[name] for name in own}, latents).items():
                own[name].copy_(tensor)
        self.adam.steps = int(tensors["steps"])

    def tell(self) -> None:
        """Bring the latents of the part that other workers hold to their state."""
        if self.shard.has_all_rows:
            return
        for name in LATENT_TENSORS:
            part = getattr(self.weights, name)
            part.copy_(self.shard.of_all_rows(part[self.shard.held_of_part]))
