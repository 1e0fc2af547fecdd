"""The step of `sparse_step` in torch, on any device: for GPUs, and for a bfloat16 preselection.

    training = DeviceTraining(first_weights(65536, mean, seed=0), TopK(k=64), device="cuda", preselect=2)
    facts = training.step(rows, rate=1e-4)                  # rows [N, D], NumPy

The formulas, and the files of a checkpoint, are those of `SparseTraining`; a run may go from one to the other. On a GPU
Adam and the unit norm are compiled into one pass over the rows of each matrix. A step waits for the device once, when
its numbers are read at its end; whether any latent is dead is known from the step before.

`preselect` makes the encoder's product in bfloat16 and takes that many times k candidates of each row from it; their
pre-activations are then computed in float32, and the k largest taken. `recall` says how many of the exact choice that
finds, of any rows.

What can go wrong: with too few candidates, and latents whose pre-activations lie closer than bfloat16 tells apart, some
codes are others than the exact ones; raise `preselect` until `recall` is 1.

Legend: N rows, D features, M latents, K codes a row, G groups.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lrh_ray.analyses.sae.device_kernels import SparseProducts, adam_rows, adam_unit_rows, decode, dots
from lrh_ray.analyses.sae.facts import StepFacts, require_finite, target_of
from lrh_ray.analyses.sae.parameters import AdamRates, AdamState, Weights
from lrh_ray.analyses.sae.selection import BatchTopK, Selection, TopK, require_k
from lrh_ray.analyses.sae.sparse_step import Auxiliary, group_of_latents
from lrh_ray.errors import ConfigError

ROOM = 4
"""Codes of a row, in multiples of k, among which those of a batch are sought first."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Codes:
    """Values and latents [N, K]; absent ones have value 0."""

    value: Tensor
    index: Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Explained:
    """Codes, the scaled errors they leave [G, N, D], what errors pull each code by [N, K], and the loss."""

    codes: _Codes
    errors: Tensor
    pull: Tensor
    loss: Tensor


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
            preselect: Candidates of a row in multiples of k, from a product in bfloat16; None: the product is exact.

        Raises:
            ConfigError: Groups that do not end with all latents, a k or a number of candidates that cannot be.
        """
        if not isinstance(selection, TopK | BatchTopK):
            raise ConfigError(f"selection is {selection!r}; a device chooses by TopK or BatchTopK.")
        require_k(selection.k, weights.num_latents)
        if preselect is not None and preselect < 1:
            raise ConfigError(f"preselect is {preselect!r}; candidates are at least 1 times k.")
        self._device, self._preselect = torch.device(device), preselect
        self._k, self._of_batch = selection.k, isinstance(selection, BatchTopK)
        self._num_groups = max(1, len(groups))
        self._group = torch.from_numpy(group_of_latents(groups, weights.num_latents)).to(self._device)
        self._rates, self._auxiliary = rates or AdamRates(), auxiliary or Auxiliary()
        self.weights = _moved(weights, self._device)
        self.adam = AdamState.of(self.weights)
        self.since_fired = torch.zeros(weights.num_latents, dtype=torch.int64, device=self._device)
        self._num_dead = 0
        self._update_rows, self._update_unit_rows = _compiled(self._device)

    @torch.no_grad()
    def step(self, rows: np.ndarray, *, rate: float, target: np.ndarray | None = None) -> StepFacts:
        """Make one step on rows [N, D] of the weights' dtype, to explain `target` [N, D'], or themselves.

        Raises:
            ConfigError: A target of another shape than rows and weights ask for.
            NotEnoughData: A row is not finite; nothing was changed.
        """
        aim = target_of(rows, target, self.weights.decoder.shape[1])
        centred = self._here(rows) - self.weights.offset
        codes = self._chosen(centred)
        main = self._explained(codes, self._without_codes(centred, aim))
        dead = self._num_dead
        auxiliary = self._revived(main, centred) if dead and self._auxiliary.weight else None
        num_codes = (codes.value > 0).sum()
        of_dead = auxiliary.loss if auxiliary else main.loss.new_zeros(())
        loss, dead_loss, total = torch.stack([main.loss.double(), of_dead.double(), num_codes.double()]).tolist()
        require_finite(loss, rows, target)
        self._update(main, auxiliary, centred, rate)
        self._count(codes)
        weighted = self._auxiliary.weight * dead_loss
        return StepFacts(loss=loss, penalty=weighted, l0=total / len(rows), dead=dead)

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The weights by name."""
        return dict(self.weights.named())

    def _state(self) -> dict[str, Tensor]:
        return {
            **{f"parameter.{name}": tensor for name, tensor in self.weights.named()},
            **{f"adam.{name}": tensor for name, tensor in self.adam.tensors().items()},
            "since_fired": self.since_fired,
        }

    def tensors(self) -> Mapping[str, Tensor]:
        """As `SparseTraining.tensors`, on the CPU."""
        return {
            **{name: tensor.cpu() for name, tensor in self._state().items()},
            "steps": torch.tensor(self.adam.steps),
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from `tensors`, or from those of a `SparseTraining`."""
        for name, tensor in self._state().items():
            tensor.copy_(tensors[name])
        self.adam.steps = int(tensors["steps"])
        self._num_dead = int((self.since_fired >= self._auxiliary.dead_after).sum())

    @torch.no_grad()
    def recall(self, rows: np.ndarray) -> float:
        """Share of the exact codes of rows [N, D] that are chosen."""
        centred = self._here(rows) - self.weights.offset
        exact = self._sparsest(self._product(centred))
        found = self._chosen(centred)
        both = torch.isin(_entries(exact, len(self.since_fired)), _entries(found, len(self.since_fired)))
        return float(both.double().mean()) if len(both) else 1.0

    def _here(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(rows).to(self._device, non_blocking=True)

    def _without_codes(self, centred: Tensor, aim: np.ndarray) -> Tensor:
        """What a reconstruction without any code errs by [N, D']."""
        missing = self.weights.decoder_bias - self._here(aim)
        return missing if self.weights.skip is None else torch.addmm(missing, centred, self.weights.skip.T)

    def _product(self, centred: Tensor) -> Tensor:
        return torch.addmm(self.weights.encoder_bias, centred, self.weights.encoder.T)

    def _chosen(self, centred: Tensor) -> _Codes:
        if self._preselect is None:
            return self._sparsest(self._product(centred))
        weights, low = self.weights, torch.bfloat16
        rough = torch.addmm(weights.encoder_bias.to(low), centred.to(low), weights.encoder.to(low).T)
        index = rough.topk(min(self._preselect * self._k, rough.shape[1]), dim=1, sorted=False).indices
        value = dots(centred, weights.encoder, index) + weights.encoder_bias[index]
        chosen = self._sparsest(value)
        return _Codes(value=chosen.value, index=index.gather(1, chosen.index))

    def _sparsest(self, pre: Tensor) -> _Codes:
        """The largest positive of pre-activations [N, L]: k of each row, or N k of all."""
        if not self._of_batch:
            value, index = pre.topk(min(self._k, pre.shape[1]), dim=1)
            return _Codes(value=value.relu(), index=index)
        wanted, width = len(pre) * self._k, pre.shape[1]
        value, index = pre.topk(min(ROOM * self._k, width), dim=1)
        least = value.reshape(-1).topk(min(wanted, value.numel())).values[-1]
        if value.shape[1] < width and bool((value[:, -1] > least).any()):
            value, index = pre.sort(dim=1, descending=True)
            least = value.reshape(-1).topk(wanted).values[-1]
        return _Codes(value=torch.where(_first_of_equals(value, index, least, wanted), value, 0).relu(), index=index)

    def _explained(self, codes: _Codes, offset: Tensor, *, nested: bool = True, weight: float = 1) -> _Explained:
        """Errors of codes @ decoder + offset, in all groups or in one."""
        num, decoder = self._num_groups if nested else 1, self.weights.decoder
        group = self._group[codes.index] if num > 1 else torch.zeros_like(codes.index)
        parts = torch.stack([decode(codes.value * (group == g), codes.index, decoder) for g in range(num)])
        errors = parts.cumsum(dim=0) + offset
        loss = errors.square().sum(dim=2).mean()
        scaled = (errors * (2 * weight / (len(offset) * num))).flip(0).cumsum(dim=0).flip(0)
        pulls = torch.stack([dots(scaled[g], decoder, codes.index) * (group == g) for g in range(num)]).sum(dim=0)
        return _Explained(codes=codes, errors=scaled, pull=pulls * (codes.value > 0), loss=loss)

    def _revived(self, main: _Explained, centred: Tensor) -> _Explained:
        """What the dead make of the rest that the full reconstruction leaves."""
        _, num_rows, width = main.errors.shape
        k = min(self._num_dead, self._auxiliary.k or max(1, width // 2))
        silent = (self.since_fired >= self._auxiliary.dead_after).to(torch.int8)
        dead = silent.sort(descending=True, stable=True).indices[: self._num_dead]
        pre = torch.addmm(self.weights.encoder_bias[dead], centred, self.weights.encoder[dead].T)
        value, place = pre.topk(k, dim=1)
        codes = _Codes(value=value.relu(), index=dead[place])
        left = main.errors[-1] * (num_rows * self._num_groups / 2)
        return self._explained(codes, left, nested=False, weight=self._auxiliary.weight)

    def _update(self, main: _Explained, auxiliary: _Explained | None, centred: Tensor, rate: float) -> None:
        weights, moments, num = self.weights, self.adam, len(self.since_fired)
        moments.steps += 1
        constants = self._rates.at(moments.steps, rate, np.dtype(np.float64))
        rates = torch.from_numpy(constants).to(self._device, weights.encoder.dtype)
        of_decoder, of_encoder, of_bias = self._gradients(main, centred, num)
        if auxiliary is not None:
            more = self._gradients(auxiliary, centred, num)
            of_decoder, of_encoder, of_bias = of_decoder + more[0], of_encoder + more[1], of_bias + more[2]
        gradients = {"encoder": of_encoder, "encoder_bias": of_bias, "decoder_bias": main.errors[0].sum(dim=0)}
        if weights.input_offset is None:
            gradients["decoder_bias"] -= of_bias @ weights.encoder
        if weights.skip is not None:
            gradients["skip"] = main.errors[0].T @ centred
        self._update_unit_rows(weights.decoder, of_decoder, moments.first.decoder, moments.second.decoder, rates)
        for name, gradient in gradients.items():
            tensors = (getattr(moment, name) for moment in (moments.first, moments.second))
            self._update_rows(getattr(weights, name), gradient, *tensors, rates)

    def _gradients(self, of: _Explained, centred: Tensor, num_latents: int) -> tuple[Tensor, Tensor, Tensor]:
        """Of decoder [M, D], encoder [M, D] and its bias [M]."""
        products = SparseProducts.of(of.codes.index, num_latents)
        if len(of.errors) == 1:
            decoder = products.with_rows(of.codes.value, of.errors[0])
        else:
            group = self._group[of.codes.index]
            each = (products.with_rows(of.codes.value * (group == g), error) for g, error in enumerate(of.errors))
            decoder = torch.stack(list(each)).sum(dim=0)
        return decoder, products.with_rows(of.pull, centred), products.sums(of.pull)

    def _count(self, codes: _Codes) -> None:
        """Rows since each latent fired, and how many are dead at the next step."""
        fired = torch.zeros_like(self.since_fired, dtype=torch.bool)
        fired[codes.index[codes.value > 0]] = True
        self.since_fired += len(codes.index)
        self.since_fired[fired] = 0
        self._num_dead = int((self.since_fired >= self._auxiliary.dead_after).sum())


def _moved(weights: Weights, device: torch.device) -> Weights:
    return Weights(**{name: tensor.to(device, copy=True) for name, tensor in weights.named()})


def _entries(codes: _Codes, num_latents: int) -> Tensor:
    """A number for each code: its row and its latent."""
    rows = torch.arange(len(codes.index), device=codes.index.device)[:, None]
    return (rows * num_latents + codes.index)[codes.value > 0]


def _first_of_equals(value: Tensor, index: Tensor, least: Tensor, wanted: int) -> Tensor:
    """Which values are among the `wanted` largest; of those that equal the least the first by row, then by latent."""
    above, equal = value > least, value == least
    width = int(index.max()) + 1
    rows = torch.arange(len(value), device=value.device)[:, None]
    place = torch.where(equal, rows * width + index, torch.iinfo(torch.int64).max).reshape(-1)
    rank = torch.empty_like(place).scatter_(0, place.argsort(), torch.arange(len(place), device=place.device))
    return above | (equal & (rank.view_as(value) < wanted - above.sum()))


def _compiled(device: torch.device) -> tuple[Callable[..., None], Callable[..., None]]:
    """Adam on rows: on a GPU fused into one pass, on a CPU as it is."""
    if device.type == "cpu":
        return adam_rows, adam_unit_rows
    return torch.compile(adam_rows), torch.compile(adam_unit_rows)
