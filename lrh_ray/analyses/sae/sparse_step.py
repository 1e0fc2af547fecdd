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
from lrh_ray.analyses.sae.explained import Explained
from lrh_ray.analyses.sae.facts import DEAD_AFTER, StepFacts, require_finite, target_of
from lrh_ray.analyses.sae.mesh import ALONE, Mesh
from lrh_ray.analyses.sae.parameters import AdamRates, Weights
from lrh_ray.analyses.sae.preselection import Preselection, recall_of
from lrh_ray.analyses.sae.row_kernels import (
    adam,
    by_latent,
    decode_parts,
    decode_rows,
    errors_of_parts,
    pull_codes,
    update_latents,
)
from lrh_ray.analyses.sae.selection import PART_ROWS, Selection, Tiles, largest_of_parts, top_codes
from lrh_ray.analyses.sae.sharding import Shard
from lrh_ray.analyses.sae.sparse_state import SparseState
from lrh_ray.analyses.sae.tensor_codes import TensorCodes
from lrh_ray.analyses.sae.tile_memory import TileMemory, tile_rows
from lrh_ray.compiled import in_parts
from lrh_ray.errors import ConfigError

LATENT_PARTS = 64
"""Parts into which latents are cut for their update, on any number of threads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Auxiliary:
    """How the dead are revived."""

    dead_after: int = DEAD_AFTER
    """A latent that has not fired for so many rows is dead."""
    k: int | None = None
    """Dead latents that a row may be written with; None: half as many as there are features."""
    weight: float = 1 / 32
    """Of the auxiliary loss; 0 for none."""

    def num_codes(self, num_dead: int, width: int) -> int:
        """Dead latents that a row of `width` features is written with."""
        return min(num_dead, self.k or max(1, width // 2)) if self.weight else 0


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
        mesh: Mesh = ALONE,
        preselect: int | None = None,
        tiles: TileMemory | None = None,
    ) -> None:
        """Take the weights over; a step changes them in place.

        Args:
            weights: Of all latents; of one dtype, float32 or (for tests) float64.
            selection: Which latents a row is written with.
            groups: Ends of nested groups of latents, ascending, the last of them M; none for one reconstruction.
            auxiliary: How the dead are revived.
            rates: Constants of Adam.
            threads: Where loops run beside the caller's; None runs them in its own thread.
            mesh: This worker's place among those that share latents and rows out.
            preselect: Candidates in multiples of k that a product in bfloat16 finds (`preselection`); None: none, the
                choice is exact.
            tiles: Memory that it shares with others whose steps are made before and after its own; None: its own.

        Raises:
            ConfigError: Groups that do not end with all latents, latents that cannot be shared out equally, or a
                preselection of no candidates.
        """
        self._shard = Shard(mesh=mesh, num_latents=weights.num_latents)
        self._state = SparseState.of(weights, self._shard)
        self.weights, self.adam = self._state.weights, self._state.adam
        self.since_fired = self._state.since_fired.numpy()
        self._selection, self._threads = selection, threads
        self._rates, self._auxiliary = rates or AdamRates(), auxiliary or Auxiliary()
        self._group = group_of_latents(groups, weights.num_latents)[self._shard.part]
        self._num_groups = max(1, len(groups))
        self.tiles = tiles or TileMemory()
        encoder = self.weights.encoder
        self._rough = None if preselect is None else Preselection(encoder, selection, factor=preselect)

    def step(self, rows: np.ndarray, *, rate: float, target: np.ndarray | None = None) -> StepFacts:
        """Make one step on rows [N, D] of the weights' dtype, to explain `target` [N, D'], or themselves.

        Of workers that share the rows each has equally many.

        Raises:
            ConfigError: A target of another shape than rows and weights ask for.
            NotEnoughData: A row is not finite; nothing was changed.
        """
        aim = target_of(rows, target, self.weights.decoder.shape[1])
        centred = rows - self.weights.offset.numpy()
        own = self._explained(self._chosen(centred), self._without_codes(centred, aim))
        main = own.of_all_rows(self._shard)
        require_finite(float(main.loss), rows, target, share=self._shard.mesh.rows)
        dead = np.flatnonzero(self.since_fired >= self._auxiliary.dead_after)
        codes = main.codes.codes()
        num_dead, num_codes = self._shard.summed(torch.tensor([len(dead), codes.num])).tolist()
        auxiliary = self._revived(dead, num_dead, own, centred)
        self._update(main, auxiliary, self._shard.of_all_rows(torch.from_numpy(centred)).numpy(), rate)
        self._count(codes)
        penalty, num_rows = self._auxiliary.weight * float(auxiliary.loss), len(codes.count)
        return StepFacts(loss=float(main.loss), penalty=penalty, l0=num_codes / num_rows, dead=num_dead)

    @property
    def parameters(self) -> dict[str, torch.Tensor]:
        """The weights by name."""
        return dict(self.weights.named())

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """All that a resumed run needs of the latents that this worker holds, under names for a file."""
        return self._state.tensors()

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Go on from `tensors` of all latents."""
        self._state.load(tensors)
        self._follow(0, self.weights.num_latents)

    def recall(self, rows: np.ndarray) -> float:
        """Share of the exact codes of all workers' rows [N, D] that a step would choose; 1 without a preselection."""
        centred = rows - self.weights.offset.numpy()
        exact, found = (TensorCodes.of(one) for one in (self._exactly_chosen(centred), self._chosen(centred)))
        return recall_of(exact, found, self._shard)

    def _follow(self, first: int, last: int) -> None:
        """Let the preselection know of latents that have changed."""
        if self._rough is not None:
            self._rough.follow(self.weights.encoder, first, last)

    def _chosen(self, centred: np.ndarray) -> Codes:
        if self._rough is None:
            return self._exactly_chosen(centred)
        bias = self.weights.encoder_bias.numpy()
        return self._rough.chosen(centred, self.weights.encoder, bias, self._shard, self._threads, self.tiles)

    def _exactly_chosen(self, centred: np.ndarray) -> Codes:
        tiles = self._tiles(torch.from_numpy(centred), self.weights.encoder)
        return self._selection(tiles, self.weights.encoder_bias.numpy(), len(centred), self._threads, self._shard)

    def _tiles(self, centred: torch.Tensor, encoder: torch.Tensor) -> Tiles:
        """The encoder's product, a tile of rows after the other in the same memory."""
        height = tile_rows(len(centred), len(encoder), itemsize=centred.element_size())
        buffer = self.tiles.of(height, len(encoder), centred.dtype)

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

    def _explained(self, codes: Codes, offset: np.ndarray, *, nested: bool = True, weight: float = 1) -> Explained:
        """Errors of codes @ decoder + offset, in all groups or in one."""
        num, decoder = self._num_groups if nested else 1, self.weights.decoder.numpy()
        errors, pull = np.empty((num, *offset.shape), offset.dtype), np.zeros_like(codes.value)
        scale = offset.dtype.type(2 * weight / (len(offset) * self._shard.mesh.rows.world * num))
        squares = np.empty((num, len(offset)), offset.dtype)

        if num == 1 and self._shard.alone:

            def decode(first: int, last: int) -> None:
                own = slice(first, last)
                part = codes.value[own], codes.index[own], codes.count[own]
                decode_rows(*part, decoder, offset[own], scale, errors[0, own], pull[own], squares[0, own])

            self._over_rows(decode, len(offset))
        else:
            self._decode_parts(codes, offset, scale, errors, pull, squares)
        return _explained(codes, errors, pull, squares)

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
        self._shard.summed(torch.from_numpy(errors))
        self._over_rows(finish, len(offset))

    def _over_rows(self, work: Callable[[int, int], None], num_rows: int) -> None:
        for _ in in_parts(work, num_rows, size=PART_ROWS, threads=self._threads):
            pass

    def _revived(self, dead: np.ndarray, num_dead: int, main: Explained, centred: np.ndarray) -> Explained:
        """What the dead make of the rest that the full reconstruction leaves of all rows; nothing if none is dead."""
        errors = main.errors.numpy()
        _, num_rows, width = errors.shape
        k = self._auxiliary.num_codes(num_dead, width)
        if not k:
            nothing = _no_codes(num_rows, centred.dtype)
            return _explained(nothing, errors, nothing.value, np.zeros((1, num_rows)))
        codes = self._of_dead(dead, k, centred)
        if not self._shard.alone:
            codes = largest_of_parts(TensorCodes.of(codes), k, self._shard).codes()
        left = errors[-1] * (num_rows * self._shard.mesh.rows.world * self._num_groups / 2)
        revived = self._explained(codes, left, nested=False, weight=self._auxiliary.weight)
        return revived.of_all_rows(self._shard)

    def _of_dead(self, dead: np.ndarray, k: int, centred: np.ndarray) -> Codes:
        """The k largest of this worker's dead latents."""
        if not len(dead):
            return _no_codes(len(centred), centred.dtype)
        tiles = self._tiles(torch.from_numpy(centred), self.weights.encoder[torch.from_numpy(dead)])
        bias = self.weights.encoder_bias.numpy()[dead]
        found = top_codes(tiles, bias, len(centred), min(k, len(dead)), self._threads)
        latents = dead.astype(np.int32)[np.where(found.mask(), found.index, 0)]
        return Codes(value=found.value, index=latents, count=found.count)

    def _update(self, main: Explained, auxiliary: Explained, centred: np.ndarray, rate: float) -> None:
        """Adam's step of the latents that this worker holds, from the codes of all rows."""
        weights, moments, held = self.weights, self.adam, self._shard.held_of_part
        moments.steps += 1
        rates = self._rates.at(moments.steps, rate, centred.dtype)
        num = held.stop - held.start
        size = -(-num // LATENT_PARTS)
        through = np.zeros((-(-num // size), centred.shape[1]), centred.dtype)
        codes, dead_codes = (_by_latent(one, weights.num_latents, held) for one in (main, auxiliary))
        encoder, decoder, bias = (
            (
                getattr(weights, name).numpy()[held],
                getattr(moments.first, name).numpy(),
                getattr(moments.second, name).numpy(),
            )
            for name in ("encoder", "decoder", "encoder_bias")
        )

        def update(first: int, last: int) -> None:
            own, group = through[first // size], self._group[held]
            update_latents(first, last, codes, dead_codes, group, centred, encoder, decoder, bias, rates, own)
            self._follow(held.start + first, held.start + last)

        for _ in in_parts(update, num, size=size, threads=self._threads):
            pass
        gradient = torch.from_numpy(main.errors[0].numpy().sum(axis=0))
        if weights.input_offset is None:
            gradient -= self._shard.summed_over_all(torch.from_numpy(through.sum(axis=0)))
        self._update_whole("decoder_bias", gradient, rates)
        if weights.skip is not None:
            self._update_whole("skip", torch.mm(main.errors[0].T, torch.from_numpy(centred)), rates)
        self._state.tell()
        if not self._shard.has_all_rows:
            self._follow(0, weights.num_latents)

    def _update_whole(self, name: str, gradient: torch.Tensor, rates: np.ndarray) -> None:
        """A step of Adam of what belongs to all latents; all workers make the same."""
        parts = (getattr(part, name).numpy().ravel() for part in (self.weights, self.adam.first, self.adam.second))
        parameter, first, second = parts
        adam(parameter, gradient.numpy().ravel(), first, second, rates)

    def _count(self, codes: Codes) -> None:
        """Rows since each latent fired."""
        self.since_fired += len(codes.count)
        self.since_fired[codes.index[codes.mask()]] = 0


def group_of_latents(ends: Sequence[int], num_latents: int) -> np.ndarray:
    """The nested group of each latent [M], int32, from where groups end; without any all are in one.

    Raises:
        ConfigError: Groups that do not end with all latents.
    """
    ends = tuple(ends) or (num_latents,)
    if list(ends) != sorted(set(ends)) or ends[0] < 1 or ends[-1] != num_latents:
        raise ConfigError(
            f"groups is {ends!r}; give ends of nested groups, ascending, the last of them the number of latents, "
            f"{num_latents}."
        )
    return np.searchsorted(np.array(ends), np.arange(num_latents), side="right").astype(np.int32)


def _explained(codes: Codes, errors: np.ndarray, pull: np.ndarray, squares: np.ndarray) -> Explained:
    return Explained(
        codes=TensorCodes.of(codes),
        errors=torch.from_numpy(errors),
        pull=torch.from_numpy(pull),
        squares=torch.from_numpy(squares),
    )


def _by_latent(
    of: Explained, num_latents: int, held: slice
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What `update_latents` reads of the latents held."""
    codes = of.codes.codes()
    start, entry = np.empty(num_latents + 1, np.int64), np.empty(max(1, codes.num), np.int64)
    by_latent(codes.index, codes.count, start, entry)
    return start[held.start : held.stop + 1], entry, codes.value, of.pull.numpy(), of.errors.numpy()


def _no_codes(num_rows: int, dtype: np.dtype) -> Codes:
    return Codes(
        value=np.zeros((num_rows, 1), dtype),
        index=np.zeros((num_rows, 1), np.int32),
        count=np.zeros(num_rows, np.int64),
    )
