"""One training step of a TopK autoencoder: exact gradients, projection, Adam and unit norm, without dense codes.

    state = SparseTraining(first_weights(16384, mean, seed=0), TopK(k=32))
    facts = state.step(rows, rate=1e-4)                     # rows [N, D]

    pre = (x - b) encoder^T + c;  z = the chosen of pre;  x^ = z decoder + b
    loss = mean over rows of |x - x^|^2  +  aux_weight * mean over rows of |(x - x^) - z' decoder|^2

A transcoder explains rows y beside those that it reads, `step(rows, target=other_rows, rate=...)`:

    pre = (x - o) encoder^T + c;  y^ = z decoder + b [+ (x - o) skip^T]           o constant (`parameters`)

The second term of the loss (AuxK, Gao et al. 2024) revives the dead: z' are the `aux_k` largest of the latents that
have not fired for `dead_after` rows, and what they are to explain is what the others leave, which they cannot change.
Nested groups (Matryoshka, Bussmann et al. 2025, arXiv 2503.17547): the mean over groups g of the loss of the
reconstruction from the latents of groups 0 ... g alone.

Only the encoder's product runs over all latents. The gradient of b takes two ways, through the reconstruction and
through the input; the second is (sum of dloss / dpre over rows) @ encoder, one product with a vector, and a transcoder
has only the first. Sums over codes are cut by latent and not by thread, so that the number of threads changes no bit of
what comes after the product.

What can go wrong: rows that are not finite make a loss that is not; the step then says so, and leaves the weights as
they were.

Legend: N rows, D features, M latents, K codes a row at most, G groups.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
import torch

from lrh_ray.analyses.sae.codes import Codes
from lrh_ray.analyses.sae.facts import StepFacts, require_finite, target_of
from lrh_ray.analyses.sae.parameters import AdamRates, AdamState, Weights
from lrh_ray.analyses.sae.row_kernels import (
    adam,
    by_latent,
    decode_parts,
    decode_rows,
    errors_of_parts,
    pull_codes,
    update_latents,
)
from lrh_ray.analyses.sae.selection import PART_ROWS, Selection, Tiles, top_codes, top_of_joined
from lrh_ray.analyses.sae.sharding import ALONE, Shard
from lrh_ray.analyses.sae.training import belongs_to_all
from lrh_ray.collective import Share
from lrh_ray.compiled import in_parts
from lrh_ray.errors import ConfigError

TILE_BYTES = 1 << 28
"""Of pre-activations that are held together. The product packs the encoder anew for every tile of rows; tiles of 256
rows make it a third slower."""
LATENT_PARTS = 64
"""Parts into which latents are cut for their update, on any number of threads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Auxiliary:
    """How the dead are revived."""

    dead_after: int = 10_000_000
    """A latent that has not fired for so many rows is dead."""
    k: int | None = None
    """Dead latents that a row may be written with; None: half as many as there are features."""
    weight: float = 1 / 32
    """Of the auxiliary loss; 0 for none."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Explained:
    """Codes beside the errors [G, N, D] they leave (already 2 / (N G) times) and their gradients [N, K]."""

    codes: Codes
    errors: np.ndarray
    pull: np.ndarray
    loss: float

    def by_latent(self, num_latents: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        start, entry = np.empty(num_latents + 1, np.int64), np.empty(max(1, self.codes.num), np.int64)
        by_latent(self.codes.index, self.codes.count, start, entry)
        return start, entry, self.codes.value, self.pull, self.errors


class SparseTraining:
    """A TopK, BatchTopK or Matryoshka autoencoder in training."""

    def __init__(
        self,
        weights: Weights,
        selection: Selection,
        *,
        groups: Sequence[int] = (),
        auxiliary: Auxiliary | None = None,
        rates: AdamRates | None = None,
        threads: Executor | None = None,
        share: Share = ALONE,
    ) -> None:
        """Take the weights over; a step changes them in place.

        Args:
            weights: Of all latents; of one dtype, float32 or (for tests) float64.
            selection: Which latents a row is written with.
            groups: Ends of nested groups of latents, ascending, the last of them M; none for one reconstruction.
            auxiliary: How the dead are revived.
            rates: Constants of Adam.
            threads: Where loops run beside the caller's; None runs them in its own thread.
            share: This worker's place among those that share the latents out; all of them see the same rows.

        Raises:
            ConfigError: Groups that do not end with all latents, or latents that cannot be shared out equally.
        """
        ends = tuple(groups) or (weights.num_latents,)
        if list(ends) != sorted(set(ends)) or ends[0] < 1 or ends[-1] != weights.num_latents:
            raise ConfigError(
                f"groups is {ends!r}; give ends of nested groups, ascending, the last of them the number of latents, "
                f"{weights.num_latents}."
            )
        self._shard = Shard(share=share, num_latents=weights.num_latents)
        self.weights = weights if self._shard.alone else weights.of_latents(self._shard.own)
        self.adam = AdamState.of(self.weights)
        self.since_fired = np.zeros(self.weights.num_latents, dtype=np.int64)
        self._selection, self._threads = selection, threads
        self._rates, self._auxiliary = rates or AdamRates(), auxiliary or Auxiliary()
        latents = np.arange(weights.num_latents)[self._shard.own]
        self._group = np.searchsorted(np.array(ends), latents, side="right").astype(np.int32)
        self._num_groups = len(ends)
        self._buffer = torch.empty(0)

    def step(self, rows: np.ndarray, *, rate: float, target: np.ndarray | None = None) -> StepFacts:
        """Make one step on rows [N, D] of the weights' dtype, to explain `target` [N, D'], or themselves.

        Raises:
            ConfigError: A target of another shape than rows and weights ask for.
            NotEnoughData: A row is not finite; nothing was changed.
        """
        aim = target_of(rows, target, self.weights.decoder.shape[1])
        centred = rows - self.weights.offset.numpy()
        tiles = self._tiles(torch.from_numpy(centred), self.weights.encoder)
        codes = self._selection(tiles, self.weights.encoder_bias.numpy(), len(rows), self._threads, self._shard)
        main = self._explained(codes, self._without_codes(centred, aim))
        require_finite(main.loss, rows, target)
        dead = np.flatnonzero(self.since_fired >= self._auxiliary.dead_after)
        num_dead, num_codes = self._shard.summed(np.array([len(dead), codes.num])).tolist()
        auxiliary = self._revived(dead, num_dead, main, centred)
        self._update(main, auxiliary, centred, rate)
        self._count(codes)
        penalty = self._auxiliary.weight * auxiliary.loss
        return StepFacts(loss=main.loss, penalty=penalty, l0=num_codes / len(rows), dead=num_dead)

    @property
    def parameters(self) -> dict[str, torch.Tensor]:
        """The weights by name."""
        return dict(self.weights.named())

    def tensors(self) -> dict[str, torch.Tensor]:
        """All that a resumed run needs of this worker's latents, under names for a file."""
        return {
            **{f"parameter.{name}": tensor for name, tensor in self.weights.named()},
            **{f"adam.{name}": tensor for name, tensor in self.adam.tensors().items()},
            "since_fired": torch.from_numpy(self.since_fired),
            "steps": torch.tensor(self.adam.steps),
        }

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Go on from `tensors` of all latents."""
        for name, tensor in self.tensors().items():
            if name != "steps":
                tensor.copy_(tensors[name] if belongs_to_all(name) else tensors[name][self._shard.own])
        self.adam.steps = int(tensors["steps"])

    def _tiles(self, centred: torch.Tensor, encoder: torch.Tensor) -> Tiles:
        """The encoder's product, a tile of rows after the other in one buffer."""
        width = len(encoder)
        height = min(len(centred), max(1, TILE_BYTES // (width * centred.element_size())))
        if self._buffer.numel() < height * width:
            self._buffer = torch.empty(height * width, dtype=centred.dtype)
        buffer = self._buffer[: height * width].view(height, width)

        def made() -> Iterator[tuple[int, np.ndarray]]:
            for first in range(0, len(centred), len(buffer)):
                own = centred[first : first + len(buffer)]
                yield first, torch.mm(own, encoder.T, out=buffer[: len(own)]).numpy()

        return made

    def _without_codes(self, centred: np.ndarray, aim: np.ndarray) -> np.ndarray:
        """What a reconstruction without any code errs by [N, D']."""
        missing: np.ndarray = self.weights.decoder_bias.numpy() - aim
        if self.weights.skip is not None:
            torch.from_numpy(missing).addmm_(torch.from_numpy(centred), self.weights.skip.T)
        return missing

    def _explained(self, codes: Codes, offset: np.ndarray, *, nested: bool = True, weight: float = 1) -> _Explained:
        """Errors of codes @ decoder + offset, in all groups or in one."""
        num, decoder = self._num_groups if nested else 1, self.weights.decoder.numpy()
        errors, pull = np.empty((num, *offset.shape), offset.dtype), np.empty_like(codes.value)
        squares, scale = np.empty((num, len(offset)), offset.dtype), offset.dtype.type(2 * weight / (len(offset) * num))

        if num == 1 and self._shard.alone:

            def decode(first: int, last: int) -> None:
                own = slice(first, last)
                part = codes.value[own], codes.index[own], codes.count[own]
                decode_rows(*part, decoder, offset[own], scale, errors[0, own], pull[own], squares[0, own])

            self._over_rows(decode, len(offset))
        else:
            self._decode_parts(codes, offset, scale, errors, pull, squares)
        return _Explained(codes=codes, errors=errors, pull=pull, loss=float(squares.mean(dtype=np.float64)))

    def _decode_parts(
        self,
        codes: Codes,
        offset: np.ndarray,
        scale: np.floating,
        errors: np.ndarray,
        pull: np.ndarray,
        squares: np.ndarray,
    ) -> None:
        """The same where latents are nested or shared out: parts, their sum over workers, errors, gradients."""
        group = self._group if len(errors) > 1 else np.zeros_like(self._group)
        decoder = self.weights.decoder.numpy()

        def decode(first: int, last: int) -> None:
            own, part = slice(first, last), np.empty((len(errors), last - first, offset.shape[1]), offset.dtype)
            decode_parts(codes.value[own], codes.index[own], codes.count[own], group, decoder, part)
            errors[:, own] = part

        def finish(first: int, last: int) -> None:
            own = slice(first, last)
            part, square = np.ascontiguousarray(errors[:, own]), np.empty((len(errors), last - first), offset.dtype)
            errors_of_parts(offset[own], scale, part, square)
            pull_codes(codes.index[own], codes.count[own], group, decoder, part, pull[own])
            errors[:, own], squares[:, own] = part, square

        self._over_rows(decode, len(offset))
        self._shard.summed(errors)
        self._over_rows(finish, len(offset))

    def _over_rows(self, work: Callable[[int, int], None], num_rows: int) -> None:
        for _ in in_parts(work, num_rows, size=PART_ROWS, threads=self._threads):
            pass

    def _revived(self, dead: np.ndarray, num_dead: int, main: _Explained, centred: np.ndarray) -> _Explained:
        """What the dead make of the rest that the full reconstruction leaves; nothing if none is dead anywhere."""
        _, num_rows, width = main.errors.shape
        k = min(num_dead, self._auxiliary.k or max(1, width // 2))
        if not k or not self._auxiliary.weight:
            nothing = _no_codes(num_rows, centred.dtype)
            return _Explained(codes=nothing, errors=main.errors, pull=nothing.value, loss=0.0)
        codes = self._of_dead(dead, k, centred)
        if not self._shard.alone:
            codes = self._shard.kept(top_of_joined(self._shard.joined(codes), k))
        left = main.errors[-1] * (num_rows * self._num_groups / 2)
        return self._explained(codes, left, nested=False, weight=self._auxiliary.weight)

    def _of_dead(self, dead: np.ndarray, k: int, centred: np.ndarray) -> Codes:
        """The k largest of this worker's dead latents."""
        if not len(dead):
            return _no_codes(len(centred), centred.dtype)
        tiles = self._tiles(torch.from_numpy(centred), self.weights.encoder[torch.from_numpy(dead)])
        bias = self.weights.encoder_bias.numpy()[dead]
        found = top_codes(tiles, bias, len(centred), min(k, len(dead)), self._threads)
        latents = dead.astype(np.int32)[np.where(found.mask(), found.index, 0)]
        return Codes(value=found.value, index=latents, count=found.count)

    def _update(self, main: _Explained, auxiliary: _Explained, centred: np.ndarray, rate: float) -> None:
        weights, moments = self.weights, self.adam
        moments.steps += 1
        rates = self._rates.at(moments.steps, rate, centred.dtype)
        num, size = weights.num_latents, -(-weights.num_latents // LATENT_PARTS)
        through = np.zeros((-(-num // size), centred.shape[1]), centred.dtype)
        codes, dead_codes = main.by_latent(num), auxiliary.by_latent(num)
        encoder, decoder, bias = (
            tuple(getattr(part, name).numpy() for part in (weights, moments.first, moments.second))
            for name in ("encoder", "decoder", "encoder_bias")
        )

        def update(first: int, last: int) -> None:
            own = through[first // size]
            update_latents(first, last, codes, dead_codes, self._group, centred, encoder, decoder, bias, rates, own)

        for _ in in_parts(update, num, size=size, threads=self._threads):
            pass
        gradient = main.errors[0].sum(axis=0)
        if weights.input_offset is None:
            gradient -= self._shard.summed(through.sum(axis=0))
        self._update_whole("decoder_bias", gradient, rates)
        if weights.skip is not None:
            self._update_whole("skip", torch.mm(torch.from_numpy(main.errors[0]).T, torch.from_numpy(centred)), rates)

    def _update_whole(self, name: str, gradient: np.ndarray | torch.Tensor, rates: np.ndarray) -> None:
        """A step of Adam of what belongs to all latents; all workers make the same."""
        parts = (getattr(part, name).numpy().ravel() for part in (self.weights, self.adam.first, self.adam.second))
        parameter, first, second = parts
        adam(parameter, np.asarray(gradient).ravel(), first, second, rates)

    def _count(self, codes: Codes) -> None:
        """Rows since each latent fired."""
        self.since_fired += len(codes.count)
        self.since_fired[codes.index[codes.mask()]] = 0


def _no_codes(num_rows: int, dtype: np.dtype) -> Codes:
    return Codes(
        value=np.empty((num_rows, 1), dtype),
        index=np.empty((num_rows, 1), np.int32),
        count=np.zeros(num_rows, np.int64),
    )
