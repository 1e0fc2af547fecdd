"""Passages that show what latents fire on: found in one pass over the held-out rows, read around in a second.

    shown = [shown_latents("topk", reader, held_out, num=20)]         # of the autoencoders of one site
    passages = find_passages(rows, (site,), shown, seed=config.seed)  # in the order in which a page shows them

The first pass keeps, of each latent, rows with its largest codes and rows drawn by chance, one of each document's
sequence. The second visits only the blocks of these rows, and takes the latent's codes at the tokens around them. What
travels is numbers of rows, borders of tokens, and codes.

What can go wrong: a store of chosen rows has gaps between its rows; their text is in the passage, without a code.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.sae.chosen import by_chance, chosen_codes, spread_by_density
from lrh_ray.analyses.sae.codes import Codes
from lrh_ray.analyses.sae.evaluation import Reconstruction
from lrh_ray.analyses.sae.examples import NOTHING, TopExamples
from lrh_ray.analyses.sae.reader import Reader
from lrh_ray.layouts import RowMask
from lrh_ray.runtime.reduce import reduce_blocks, sample
from lrh_ray.store.parts import RowKeys
from lrh_ray.studies.sae_passes import TRAINING, SaeRows

STRONGEST, BY_CHANCE = 5, 3
"""Passages of each latent: with its largest codes, and drawn from all rows it fires in."""

LEAST_ROWS = 5
"""A latent that fires in fewer held-out rows is not shown."""

BEFORE, AFTER = 16, 8
"""Rows of a passage before and after the one it is about."""

REACH = 300
"""Characters of a passage, at most, on each side of that row."""


@dataclass(frozen=True, kw_only=True)
class ShownLatents:
    """The latents [K] of one autoencoder that are shown."""

    name: str
    reader: Reader
    latents: np.ndarray
    density: np.ndarray
    """Share of held-out rows that each fires in [K]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A passage to be read: autoencoder and latent by their places among those shown, and a row of the store."""

    autoencoder: int
    latent: int
    row: int
    strongest: bool


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Passage:
    """A passage as it was read: T tokens with their borders in the text of a stored sequence, and codes."""

    wanted: Wanted
    sequence: int
    spans: np.ndarray
    """First and last + 1 character of each token [T, 2]."""
    codes: np.ndarray
    """[T] float32."""
    code: float
    """At the row that the passage is about."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """Mergeable: rows of the latents shown of each autoencoder."""

    strongest: tuple[TopExamples, ...]
    by_chance: tuple[TopExamples, ...]

    def merge(self, other: "Found") -> "Found":
        return Found(
            strongest=tuple(one.merge(two) for one, two in zip(self.strongest, other.strongest, strict=True)),
            by_chance=tuple(one.merge(two) for one, two in zip(self.by_chance, other.by_chance, strict=True)),
        )


@dataclass(frozen=True, kw_only=True)
class ExamplePass:
    """block -> which of its held-out rows show the latents of autoencoders that read the same sites."""

    rows: SaeRows
    sites: tuple[str, ...]
    shown: tuple[ShownLatents, ...]
    seed: int

    def __call__(self, block: int) -> Found:
        keys, kept = self.rows.kept(block)
        held_out = self.rows.group_of(keys) != TRAINING
        own, rows = keys.select(held_out), self.rows.read(self.sites, block, kept)[held_out]
        strongest, drawn = [], []
        for one in self.shown:
            codes = Codes.of(chosen_codes(one.reader, rows, one.latents))
            num, places = len(one.latents), (own.index, own.doc)
            strongest.append(TopExamples.of(codes, *places, num_latents=num, num=STRONGEST))
            chance = by_chance(codes, own.index, seed=self.seed)
            drawn.append(TopExamples.of(chance, *places, num_latents=num, num=STRONGEST + BY_CHANCE))
        return Found(strongest=tuple(strongest), by_chance=tuple(drawn))


@dataclass(frozen=True, kw_only=True)
class PassageTask:
    """block -> the passages that are about its rows; runs on a worker."""

    rows: SaeRows
    sites: tuple[str, ...]
    shown: tuple[ShownLatents, ...]
    wanted: Mapping[int, Sequence[Wanted]]
    """By block."""

    def __call__(self, block: int) -> list[Passage]:
        keys, kept = self.rows.kept(block)
        rows = self.rows.read(self.sites, block, kept)
        found = []
        for number, one in enumerate(self.shown):
            own = [wanted for wanted in self.wanted[block] if wanted.autoencoder == number]
            windows = [window_of(keys, wanted.row) for wanted in own]
            needed = np.logical_or.reduce(windows) if windows else np.zeros(len(rows), dtype=bool)
            codes = np.empty((len(rows), len(one.latents)), np.float32)
            codes[needed] = chosen_codes(one.reader, rows[needed], one.latents)
            found += [
                _passage(wanted, keys.select(window), codes[window, wanted.latent])
                for wanted, window in zip(own, windows, strict=True)
            ]
        return found


def shown_latents(name: str, reader: Reader, held_out: Reconstruction, *, num: int) -> ShownLatents:
    """The latents to show of an autoencoder, `num` at most."""
    latents = spread_by_density(held_out.fired, num=num, least=LEAST_ROWS)
    return ShownLatents(name=name, reader=reader, latents=latents, density=held_out.density[latents])


def find_passages(
    rows: SaeRows, sites: tuple[str, ...], shown: tuple[ShownLatents, ...], *, seed: int
) -> tuple[Passage, ...]:
    """Passages by autoencoder and latent, the strongest first, then those drawn by chance; `sites` are read."""
    plan = rows.store().plan
    found = reduce_blocks(range(plan.num_blocks), ExamplePass(rows=rows, sites=sites, shown=shown, seed=seed))
    wanted = list(_wanted(found))
    by_block: dict[int, list[Wanted]] = {}
    for one in wanted:
        by_block.setdefault(one.row // plan.rows_per_block, []).append(one)
    read = sample(sorted(by_block), PassageTask(rows=rows, sites=sites, shown=shown, wanted=by_block))
    passages = {passage.wanted: passage for of_block in read for passage in of_block}
    return tuple(passages[one] for one in wanted)


def _wanted(found: Found) -> Iterator[Wanted]:
    """Rows in the order of a page; a sequence that is among the strongest of a latent is not drawn again."""
    for number, (strongest, drawn) in enumerate(zip(found.strongest, found.by_chance, strict=True)):
        for latent in range(len(strongest.row)):
            for row in strongest.row[latent][strongest.row[latent] != NOTHING].tolist():
                yield Wanted(autoencoder=number, latent=latent, row=row, strongest=True)
            others = (drawn.row[latent] != NOTHING) & ~np.isin(drawn.sequence[latent], strongest.sequence[latent])
            for row in drawn.row[latent][others].tolist()[:BY_CHANCE]:
                yield Wanted(autoencoder=number, latent=latent, row=row, strongest=False)


def window_of(keys: RowKeys, row: int) -> RowMask:
    """Those of some rows in stored order that stand around a row of the store, of its sequence and within reach."""
    at = int(np.searchsorted(keys.index, row))
    near = slice(max(0, at - BEFORE), at + AFTER + 1)
    inside = np.zeros(len(keys.index), dtype=bool)
    inside[near] = keys.doc[near] == keys.doc[at]
    inside[near] &= keys.char_start[near] >= keys.char_start[at] - REACH
    inside[near] &= keys.char_end[near] <= keys.char_end[at] + REACH
    return inside


def _passage(wanted: Wanted, keys: RowKeys, codes: np.ndarray) -> Passage:
    return Passage(
        wanted=wanted,
        sequence=int(keys.doc[0]),
        spans=np.stack([keys.char_start, keys.char_end], axis=1).astype(np.int64),
        codes=codes.astype(np.float32),
        code=float(codes[int(np.searchsorted(keys.index, wanted.row))]),
    )
