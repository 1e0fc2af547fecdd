"""Shuffled batches of rows at disk speed, resumable at any batch, on any number of ranks.

    loader = Loader(store, ["resid.15", "resid.20"], batch_size=4096, seed=0)
    for batch in loader:                            # one epoch; every row once
        batch.rows["resid.15"], batch.rows["resid.20"], batch.index
    place = loader.state_dict()                     # small, plain; of the batches handed out so far
    loader.load_state_dict(place)                   # here or elsewhere: goes on with the next batch

The order is a pure function of (root digest, seed, epoch, filters, window); see `lrh_ray.store.order` for how it comes
about and `lrh_ray.store.deal` for what each rank gets. Iterating goes on from the loader's place to the end of its
epoch, and leaves it at the start of the next one; so a run that loops over epochs may be interrupted anywhere.

Memory is (1 + prefetch) windows and the batches that the caller still holds; it does not grow with the store. A batch
is the caller's own: its arrays are used again only after nobody refers to them any more.

A `Loader` starts no thread before it is iterated, so it may be pickled, forked and spawned, and carries its place. One
iteration at a time: two of them work, but share one place.

What can go wrong: missing blocks are `StoreIncomplete`; the place of another store, seed, window or filter is
`StateConflict`; damaged bytes are `StoreCorrupt` and surface in the batch that needs them, after which the loader's
place is still that of the last good batch.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np

from lrh_ray.errors import ConfigError, SiteError, StateConflict, StoreIncomplete
from lrh_ray.records import Plain
from lrh_ray.store.batches import Batch, Outputs, gather
from lrh_ray.store.deal import BatchDeal, Deal, Dealt, WindowDeal, deal_windows, share
from lrh_ray.store.filters import ChosenRows, LabelFilter, RowFilters
from lrh_ray.store.order import WINDOW_ROWS, EpochOrder, cut_pieces
from lrh_ray.store.place import STATE_VERSION, Place, decode_place, encode_place
from lrh_ray.store.plan_shape import DTYPES
from lrh_ray.store.reader import Store
from lrh_ray.store.windows import PieceReader, Slot, WindowReader, make_slot

Verify: TypeAlias = Literal["first_epoch", "always", "never"]
DealName: TypeAlias = Literal["batch", "window"]


class Loader:
    """Shuffled epochs over the rows of one or several sites; making a loader reads nothing but labels.

    Args:
        store: An open store; its root digest fixes the order, so an unsealed store has another order when it grows.
        sites: One or several sites; a batch has the same rows of all of them.
        batch_size: Rows of a global batch, over all ranks.
        seed: Names the order, together with root and epoch.
        epoch: The epoch to start with.
        rank: This rank.
        world: Number of ranks.
        deal: `batch` cuts global batches, the same at any world size; `window` deals whole windows, which saves
            reading and promises only that each row appears once.
        window_rows: Rows shuffled together in memory; None: min(2^19, all). Part of the order.
        verify: When to check every chunk's crc32c; `first_epoch` is the epoch this loader was made with.
        prefetch: Windows read ahead; 0 reads when needed, with half the memory.
        drop_last: Leave out a last batch that is shorter than the others.
        dtype: Data type of the batches; None keeps the store's, or takes float32 where a site has one of its own.
        documents: Only rows of these document ids.
        positions: Only these token positions.
        labels: Only rows with these labels.
        sinks: `drop` leaves out attention sinks at any of `sink_sites`.
        sink_sites: Sites that say what a sink is, read or not; None: `sites`.
        without_text: `drop` leaves out rows that stand for no text, as special tokens do.
        missing: `skip` passes over blocks that are not committed.

    Raises:
        SiteError: The store has no such site.
        ConfigError: A value that cannot be.
        StoreIncomplete: Blocks are missing.
        UnknownName: A document id, concept or label value that the store does not have.
    """

    def __init__(
        self,
        store: Store,
        sites: str | Sequence[str],
        *,
        batch_size: int,
        seed: int = 0,
        epoch: int = 0,
        rank: int = 0,
        world: int = 1,
        deal: DealName = "batch",
        window_rows: int | None = None,
        verify: Verify = "first_epoch",
        prefetch: int = 1,
        drop_last: bool = False,
        dtype: str | None = None,
        documents: Sequence[str] | None = None,
        positions: range | Sequence[int] | None = None,
        labels: Sequence[LabelFilter] = (),
        sinks: Literal["keep", "drop"] = "keep",
        sink_sites: Sequence[str] | None = None,
        without_text: Literal["keep", "drop"] = "keep",
        missing: Literal["error", "skip"] = "error",
    ) -> None:
        self.store = store
        self.sites = (sites,) if isinstance(sites, str) else tuple(sites)
        self.batch_size, self.seed = batch_size, seed
        self.rank, self.world, self.deal = rank, world, deal
        self.window_rows = min(WINDOW_ROWS, store.plan.num_rows) if window_rows is None else window_rows
        self.dtype = _common_dtype(store, self.sites) if dtype is None else dtype
        self._verify, self._prefetch, self._drop_last, self._missing = verify, prefetch, drop_last, missing
        self._first_epoch = epoch
        self._place = Place(epoch=epoch)
        self._check()
        self._slots: list[Slot] = []
        self._outputs = self._make_outputs()
        filters = RowFilters(
            documents=None if documents is None else tuple(documents),
            positions=positions if positions is None or isinstance(positions, range) else tuple(positions),
            labels=tuple(labels),
            sinks=sinks,
            sink_sites=None if sink_sites is None else tuple(sink_sites),
            without_text=without_text,
        )
        self._require_sites(filters.sink_sites or ())
        self._chosen = ChosenRows(store, filters, self.sites)
        self._pieces = cut_pieces(store.plan, self.window_rows)

    def _check(self) -> None:
        if not self.sites or len(set(self.sites)) < len(self.sites) or not set(self.sites) <= set(self.store.sites):
            raise SiteError(f"sites is {self.sites!r}; name some of {', '.join(self.store.sites)}, each once.")
        for name, value, allowed in (
            ("deal", self.deal, ("batch", "window")),
            ("verify", self._verify, ("first_epoch", "always", "never")),
            ("missing", self._missing, ("error", "skip")),
            ("dtype", self.dtype, tuple(DTYPES)),
        ):
            if value not in allowed:
                raise ConfigError(f"{name} is {value!r}; it must be one of {', '.join(allowed)}.")
        if not 0 <= self.rank < self.world:
            raise ConfigError(f"rank is {self.rank} of {self.world}; ranks count from 0 to world - 1.")
        if self.batch_size < self.world:
            raise ConfigError(f"batch_size is {self.batch_size}; it counts all {self.world} ranks, each needs a row.")
        if self._prefetch < 0 or self._place.epoch < 0 or self.seed < 0:
            raise ConfigError("prefetch, epoch and seed must be 0 or more.")
        if self._missing == "error" and self.store.missing_blocks:
            blocks = self.store.missing_blocks
            raise StoreIncomplete(
                f"{len(blocks)} of {self.store.plan.num_blocks} blocks are missing, the first is block {blocks[0]} "
                f"(rows from {blocks[0] * self.store.plan.rows_per_block}). Repeat {self.store.writing_command}, or "
                f"pass missing='skip'."
            )

    def _require_sites(self, sink_sites: Sequence[str]) -> None:
        if not set(sink_sites) <= set(self.store.sites):
            raise SiteError(f"sink_sites is {sink_sites!r}; name some of {', '.join(self.store.sites)}.")

    @property
    def epoch(self) -> int:
        """The epoch of the next batch."""
        return self._place.epoch

    @cached_property
    def num_rows(self) -> int:
        """Rows of an epoch over all ranks, after filters; filters are held against the keys of all rows once."""
        return int(self._counts.sum())

    def __len__(self) -> int:
        """Batches of a whole epoch on this rank."""
        deal = self._deal(self._order, ())
        num, size = deal.num_rows, deal.batch_size
        return num // size if self._drop_last else -(-num // size)

    @cached_property
    def _counts(self) -> np.ndarray:
        """[pieces] rows that pass the filters."""
        plan = self.store.plan
        leading = np.where([block in self.store.commits for block in range(plan.num_blocks)], plan.valid_rows, 0)
        counts = self._pieces.split(leading)
        if not self._chosen.filters.keep_all:
            edges = np.arange(self._pieces.per_block) * self._pieces.rows_per_piece
            for block in sorted(self.store.commits):
                passed = np.append(0, np.cumsum(self._chosen.mask(block)))
                stops = np.minimum(edges + self._pieces.rows_per_piece, len(passed) - 1)
                counts[block] = passed[stops] - passed[np.minimum(edges, len(passed) - 1)]
        return counts.reshape(-1)

    @property
    def _order(self) -> EpochOrder:
        return EpochOrder.make(
            root=self.store.root,
            seed=self.seed,
            epoch=self.epoch,
            counts=self._counts,
            window_rows=self.window_rows,
        )

    def _deal(self, order: EpochOrder, dealt: tuple[Dealt, ...]) -> Deal:
        if self.deal == "batch":
            return BatchDeal(
                num_rows=order.num_rows,
                batch_size=self.batch_size,
                rank=self.rank,
                world=self.world,
                drop_last=self._drop_last,
            )
        first, last = share(self.batch_size, self.rank, self.world)
        segments = deal_windows(order.starts, dealt, self.rank, self.world)
        return WindowDeal(segments=segments, batch_size=last - first, drop_last=self._drop_last)

    def __iter__(self) -> Iterator[Batch]:
        epoch = self.epoch
        yield from self.iterate()
        self._place = Place(epoch=epoch + 1)

    def iterate(self, *, first: int = 0, step: int = 1) -> Iterator[Batch]:
        """Every `step`-th batch of this rank from the loader's place to the end of the epoch, and not beyond it.

        Processes that share a rank's batches use it: worker j of k takes `first=j, step=k` at the start, and goes on
        from its own place with `first=0`. The place accounts for `first` as soon as this returns.
        """
        order = self._order
        deal = self._deal(order, self._place.dealt)
        self._place = replace(self._place, consumed=self._place.consumed + first * deal.batch_size)
        return self._batches(order, deal, self._place, step * deal.batch_size)

    def _batches(self, order: EpochOrder, deal: Deal, place: Place, stride: int) -> Iterator[Batch]:
        slots, self._slots = self._slots, []  # a second iteration at the same time finds none and makes its own
        reader = self._reader(order, deal.windows(order.starts, place.consumed), slots, place.epoch)
        try:
            while (intervals := deal.batch(place.consumed)) is not None:
                batch = gather(reader, order.starts, intervals, self._outputs)
                self._place = place = replace(place, consumed=place.consumed + stride)
                yield batch
                del batch  # or its memory could not be used for the next one
        finally:
            reader.close()
            self._slots = slots

    def _reader(self, order: EpochOrder, numbers: Sequence[int], slots: list[Slot], epoch: int) -> WindowReader:
        capacity = min(self.window_rows, order.num_rows)
        if slots and len(slots[0].index) < capacity:
            slots.clear()
        while len(slots) < min(1 + self._prefetch, len(numbers)):
            slots.append(make_slot(self.store, self.sites, capacity))
        verify = self._verify == "always" or (self._verify == "first_epoch" and epoch == self._first_epoch)
        pieces = PieceReader(
            store=self.store, sites=self.sites, pieces=self._pieces, chosen=self._chosen, verify=verify
        )
        return WindowReader(pieces=pieces, order=order, numbers=numbers, slots=slots)

    def _make_outputs(self) -> Outputs:
        widths = {site: self.store.plan.site(site).width for site in self.sites}
        return Outputs(widths, DTYPES[self.dtype])

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch; asking for the current one keeps the place, so a resumed run may always ask."""
        if epoch != self._place.epoch:
            self.restart(epoch)

    def restart(self, epoch: int) -> None:
        """Go to the start of an epoch, also of the current one."""
        if epoch < 0:
            raise ConfigError(f"epoch is {epoch}; it must be 0 or more.")
        self._place = Place(epoch=epoch)

    @property
    def _identity(self) -> dict[str, Plain]:
        """What a place is meaningless without."""
        return {
            "version": STATE_VERSION,
            "root": self.store.root,
            "seed": self.seed,
            "window_rows": self.window_rows,
            "filters": self._chosen.digest,
            "deal": self.deal,
        }

    def state_dict(self) -> dict[str, Plain]:
        """The place after the batches handed out so far, as plain values.

        With `deal="batch"` it is the same on all ranks and serves any world and batch size. With `deal="window"` it is
        this rank's own; `join_states` makes one of all ranks' places that serves any world.
        """
        ranks: dict[str, Plain] = {"rank": self.rank, "world": self.world} if self.deal == "window" else {}
        return {**self._identity, **encode_place(self._place), **ranks}

    def load_state_dict(self, state: Mapping[str, Plain]) -> None:
        """Go to a place made by `state_dict`; reads nothing.

        Raises:
            StateConflict: It belongs to another store, seed, window, filter or deal, or to another rank's windows.
        """
        wanted = dict(self._identity)
        if self.deal == "window" and "rank" in state:
            wanted |= {"rank": self.rank, "world": self.world}
        wrong = {name: state.get(name) for name, value in wanted.items() if state.get(name) != value}
        if wrong:
            raise StateConflict(
                f"This place belongs to another run; it has {wrong!r} where this loader has "
                f"{ {name: wanted[name] for name in wrong}!r}. Open the same store with the same settings; places of "
                f"several ranks with deal='window' become one by join_states."
            )
        self._place = decode_place(state)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_slots": [], "_outputs": None}  # memory does not travel

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._outputs = self._make_outputs()


def _common_dtype(store: Store, sites: Sequence[str]) -> str:
    """A data type for batches of all these sites; float32 holds what the others do, and whole numbers below 2^24."""
    own = any(spec.dtype for spec in store.plan.sites if spec.name in sites)
    return "float32" if own else store.plan.dtype
