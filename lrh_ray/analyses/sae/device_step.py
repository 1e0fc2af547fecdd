"""The step of `sparse_step` in torch, on any device: for GPUs.

    training = DeviceTraining(first_weights(65536, mean, seed=0), TopK(k=64), device="cuda", preselect=2)
    facts = training.step(rows, rate=1e-4)                  # rows [N, D], NumPy

The formulas, the files of a checkpoint, and how workers share rows and latents out are those of `SparseTraining`; a run
may go from one to the other. On a GPU Adam and the unit norm are compiled into one pass over the rows of each matrix.
Alone, a step waits for the device twice: for its numbers before the update, so that rows that are not finite change
nothing, and for the count of the dead at its end, on which the next step's revival depends. BatchTopK waits once more
for each try of its candidates, a transcoder once more to look at the rows that it reads.

`preselect` makes the encoder's product in bfloat16 (`device_choice`). `recall` says how many of the exact choice that
finds, of any rows.

What can go wrong: with too few candidates, and latents whose pre-activations lie closer than bfloat16 tells apart, some
codes are others than the exact ones; raise `preselect` until `recall` is 1.

Legend: N rows, D features, M latents, K codes a row, G groups.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from lrh_ray.analyses.sae.device_choice import DeviceChoice
from lrh_ray.analyses.sae.device_kernels import SparseProducts, adam_rows, adam_unit_rows, decode, dots
from lrh_ray.analyses.sae.explained import Explained
from lrh_ray.analyses.sae.facts import StepFacts, require_finite, target_of
from lrh_ray.analyses.sae.mesh import ALONE, Mesh
from lrh_ray.analyses.sae.parameters import AdamRates, Weights
from lrh_ray.analyses.sae.preselection import recall_of
from lrh_ray.analyses.sae.selection import Selection, largest_of_parts
from lrh_ray.analyses.sae.sharding import Shard
from lrh_ray.analyses.sae.sparse_state import LATENT_TENSORS, SparseState
from lrh_ray.analyses.sae.sparse_step import Auxiliary, group_of_latents
from lrh_ray.analyses.sae.tensor_codes import TensorCodes


class DeviceTraining:
    """A TopK, BatchTopK or Matryoshka autoencoder in training on one device."""

    def __init__(
        self,
        weights: Weights,
        selection: Selection,
        *,
        device: str | torch.device = "cpu",
        groups: Sequence[int] = (),
        auxiliary: Auxiliary | None = None,
        rates: AdamRates | None = None,
        mesh: Mesh = ALONE,
        preselect: int | None = None,
    ) -> None:
        """Take a copy of the weights to the device.

        Args:
            weights: Of all latents.
            selection: `TopK` or `BatchTopK`; its k is what is read.
            device: Where to train.
            groups: As `SparseTraining` has them.
            auxiliary: How the dead are revived.
            rates: Constants of Adam.
            mesh: This worker's place among those that share latents and rows out, all of them on such devices.
            preselect: Candidates of a row in multiples of k, from a product in bfloat16; None: the product is exact.

        Raises:
            ConfigError: Groups that do not end with all latents, latents that cannot be shared out equally, a k or a
                number of candidates that cannot be.
        """
        self._device, self._shard = torch.device(device), Shard(mesh=mesh, num_latents=weights.num_latents)
        self._choice = DeviceChoice(selection=selection, shard=self._shard, preselect=preselect)
        self._num_groups = max(1, len(groups))
        group = group_of_latents(groups, weights.num_latents)[self._shard.part]
        self._group = torch.from_numpy(group).to(self._device)
        self._rates, self._auxiliary = rates or AdamRates(), auxiliary or Auxiliary()
        self._state = SparseState.of(weights, self._shard, self._device)
        self.weights, self.adam, self.since_fired = self._state.weights, self._state.adam, self._state.since_fired
        self._dead, self._num_dead = 0, 0
        self._update_rows, self._update_unit_rows = _compiled(self._device)

    @torch.no_grad()
    def step(self, rows: np.ndarray, *, rate: float, target: np.ndarray | None = None) -> StepFacts:
        """Make one step on rows [N, D] of the weights' dtype, to explain `target` [N, D'], or themselves.

        Of workers that share the rows each has equally many.

        Raises:
            ConfigError: A target of another shape than rows and weights ask for.
            NotEnoughData: A row is not finite; nothing was changed.
        """
        aim = target_of(rows, target, self.weights.decoder.shape[1])
        centred = self._here(rows) - self.weights.offset
        own = self._explained(self._choice(centred, self.weights), self._without_codes(centred, aim))
        main, dead = own.of_all_rows(self._shard), self._num_dead
        auxiliary = self._revived(own, centred)
        num_codes = self._shard.summed((main.codes.value > 0).sum().double())
        of_dead = auxiliary.loss if auxiliary else torch.zeros_like(num_codes)
        loss, dead_loss, total = torch.stack([main.loss, of_dead, num_codes]).tolist()
        require_finite(loss, rows, target, share=self._shard.mesh.rows, device=self._device)
        self._update(main, auxiliary, self._shard.of_all_rows(centred), rate)
        self._count(main.codes)
        weighted = self._auxiliary.weight * dead_loss
        return StepFacts(loss=loss, penalty=weighted, l0=total / len(main.codes.value), dead=dead)

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The weights by name."""
        return dict(self.weights.named())

    def tensors(self) -> Mapping[str, Tensor]:
        """As `SparseTraining.tensors`, on the CPU."""
        return self._state.tensors()

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from `tensors`, or from those of a `SparseTraining`."""
        self._state.load(tensors)
        self._count_dead()

    @torch.no_grad()
    def recall(self, rows: np.ndarray) -> float:
        """Share of the exact codes of all workers' rows [N, D] that a step would choose; 1 without a preselection."""
        centred = self._here(rows) - self.weights.offset
        exact, found = self._choice.exact(centred, self.weights), self._choice(centred, self.weights)
        return recall_of(exact, found, self._shard)

    def _here(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(rows).to(self._device, non_blocking=True)

    def _without_codes(self, centred: Tensor, aim: np.ndarray) -> Tensor:
        """What a reconstruction without any code errs by [N, D']."""
        missing = self.weights.decoder_bias - self._here(aim)
        return missing if self.weights.skip is None else torch.addmm(missing, centred, self.weights.skip.T)

    def _explained(self, codes: TensorCodes, offset: Tensor, *, nested: bool = True, weight: float = 1) -> Explained:
        """Errors of codes @ decoder + offset, in all groups or in one."""
        num, decoder = self._num_groups if nested else 1, self.weights.decoder
        group = self._group[codes.index] if num > 1 else torch.zeros_like(codes.index)
        parts = torch.stack([decode(codes.value * (group == g), codes.index, decoder) for g in range(num)])
        errors = self._shard.summed(parts).cumsum(dim=0) + offset
        num_rows = len(offset) * self._shard.mesh.rows.world
        scaled = (errors * (2 * weight / (num_rows * num))).flip(0).cumsum(dim=0).flip(0)
        pulls = torch.stack([dots(scaled[g], decoder, codes.index) * (group == g) for g in range(num)]).sum(dim=0)
        pull, squares = pulls * (codes.value > 0), errors.square().sum(dim=2)
        return Explained(codes=codes, errors=scaled, pull=pull, squares=squares)

    def _revived(self, main: Explained, centred: Tensor) -> Explained | None:
        """What the dead make of the rest that the full reconstruction leaves of all rows; None if none is dead."""
        _, num_rows, width = main.errors.shape
        k = self._auxiliary.num_codes(self._num_dead, width)
        if not k:
            return None
        codes = self._of_dead(k, centred)
        if not self._shard.alone:
            codes = largest_of_parts(codes, k, self._shard)
        left = main.errors[-1] * (num_rows * self._shard.mesh.rows.world * self._num_groups / 2)
        return self._explained(codes, left, nested=False, weight=self._auxiliary.weight).of_all_rows(self._shard)

    def _of_dead(self, k: int, centred: Tensor) -> TensorCodes:
        """The k largest of this worker's dead latents."""
        silent = (self.since_fired >= self._auxiliary.dead_after).to(torch.int8)
        dead = silent.sort(descending=True, stable=True).indices[: max(1, self._dead)]
        pre = torch.addmm(self.weights.encoder_bias[dead], centred, self.weights.encoder[dead].T)
        value, place = pre.topk(min(k, len(dead)), dim=1)
        return TensorCodes(value=value.relu() * bool(self._dead), index=dead[place])  # of none: absent ones

    def _update(self, main: Explained, auxiliary: Explained | None, centred: Tensor, rate: float) -> None:
        """Adam's step of the latents that this worker holds, from the codes of all rows."""
        weights, moments, held = self.weights, self.adam, self._shard.held_of_part
        moments.steps += 1
        constants = self._rates.at(moments.steps, rate, np.dtype(np.float64))
        rates = torch.from_numpy(constants).to(self._device, weights.encoder.dtype)
        of_decoder, of_encoder, of_bias = self._gradients(main, centred)
        if auxiliary is not None:
            more = self._gradients(auxiliary, centred)
            of_decoder, of_encoder, of_bias = of_decoder + more[0], of_encoder + more[1], of_bias + more[2]
        gradients = {"encoder": of_encoder, "encoder_bias": of_bias, "decoder_bias": main.errors[0].sum(dim=0)}
        if weights.input_offset is None:
            gradients["decoder_bias"] -= self._shard.summed_over_all(of_bias @ weights.encoder[held])
        if weights.skip is not None:
            gradients["skip"] = main.errors[0].T @ centred
        self._update_unit_rows(weights.decoder[held], of_decoder, moments.first.decoder, moments.second.decoder, rates)
        for name, gradient in gradients.items():
            own = getattr(weights, name)[held] if name in LATENT_TENSORS else getattr(weights, name)
            tensors = (getattr(moment, name) for moment in (moments.first, moments.second))
            self._update_rows(own, gradient, *tensors, rates)
        self._state.tell()

    def _gradients(self, of: Explained, centred: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of decoder [L, D'], encoder [L, D] and its bias [L] of the latents held."""
        products = SparseProducts.of(of.codes, self._shard.held_of_part, cut=not self._shard.has_all)
        if len(of.errors) == 1:
            decoder = products.with_rows(of.codes.value, of.errors[0])
        else:
            group = self._group[of.codes.index]
            each = (products.with_rows(of.codes.value * (group == g), error) for g, error in enumerate(of.errors))
            decoder = torch.stack(list(each)).sum(dim=0)
        return decoder, products.with_rows(of.pull, centred), products.sums(of.pull)

    def _count(self, codes: TensorCodes) -> None:
        """Rows since each latent fired, and how many are dead at the next step."""
        absent = len(self.since_fired)  # a place of their own, because to leave them out would wait for their number
        fired = torch.zeros(absent + 1, dtype=torch.bool, device=self._device)
        fired.index_fill_(0, torch.where(codes.value > 0, codes.index, absent).flatten(), True)
        self.since_fired += len(codes.index)
        self.since_fired.masked_fill_(fired[:absent], 0)
        self._count_dead()

    def _count_dead(self) -> None:
        dead = (self.since_fired >= self._auxiliary.dead_after).sum()
        self._dead, self._num_dead = torch.stack([dead, self._shard.summed(dead.clone())]).tolist()


def _compiled(device: torch.device) -> tuple[Callable[..., None], Callable[..., None]]:
    """Adam on rows: on a GPU fused into one pass, on a CPU as it is."""
    if device.type == "cpu":
        return adam_rows, adam_unit_rows
    return torch.compile(adam_rows), torch.compile(adam_unit_rows)
