"""Certify a store: some of its rows, read from disk, compared with a plain float32 forward of the same tokens.

Half of the compared documents are the longest, the others of all lengths (`models.parity`). Where a store keeps chosen
rows only, the reference passes through the same choice, so means are compared with means.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lrh_ray.errors import ParityError
from lrh_ray.models.checkpoints import Checkpoint
from lrh_ray.models.sink import ChosenRows, Collected
from lrh_ray.records import Context, Plain, TokenBatch
from lrh_ray.runtime.reduce import sample
from lrh_ray.store.commits import read_commits
from lrh_ray.store.objects import Location, absolute, open_objects
from lrh_ray.store.plan import Plan
from lrh_ray.store.reader import Store, open_store

if TYPE_CHECKING:
    from lrh_ray.models.parity import ParityCertificate


@dataclass(frozen=True, kw_only=True, slots=True)
class ParityRun:
    """Compares stored rows with a plain float32 forward of the same tokens, on a worker."""

    location: Location
    checkpoint: Checkpoint
    tokens: TokenBatch
    index: np.ndarray
    """[rows] rows of the store, ascending within each sequence."""
    ranges: np.ndarray | None
    """[rows, 2] tokens that each row stands for; None: one each, in order."""

    def __call__(self, _: None) -> "ParityCertificate":
        from lrh_ray.models.parity import compare_rows, reference_rows

        store = open_store(self.location)
        reference = reference_rows(self.checkpoint, self.tokens, store.plan.sites)
        if self.ranges is not None:
            reference = {site: choose(rows, self.ranges) for site, rows in reference.items()}
        rows = {site.name: _rows_at(store, site.name, self.index) for site in store.plan.sites}
        return compare_rows(rows, reference, dtype=coarser(store.plan.dtype, str(store.plan.identity["model_dtype"])))


def coarser(*dtypes: str) -> str:
    """The number format with the fewest digits decides how close rows can be."""
    return min(dtypes, key=("bfloat16", "float16", "float32").index)


def certify(
    location: Location, plan: Plan, tokens: TokenBatch, context: Context | None, checkpoint: Checkpoint
) -> Mapping[str, Plain]:
    """The parity certificate of a store, made on a worker from the bytes on disk.

    Raises:
        ParityError: Some site exceeds its tolerance.
    """
    from lrh_ray.models.parity import parity_sample
    from lrh_ray.models.selection import sequences_of

    whole = tokens if context is None else sequences_of(context, tokens)
    committed = sorted(read_commits(open_objects(location), plan.num_blocks))
    chosen = parity_sample(whole, among=plan.source[np.isin(plan.block_of_sequence, committed)])
    stored = np.argsort(plan.source)[list(chosen.sequences)]
    places = [
        _places(int(plan.starts[place]), sequence, int(length), tokens, context)
        for place, sequence, length in zip(stored, chosen.sequences, chosen.tokens.lengths, strict=True)
    ]
    shifts = chosen.tokens.starts[:-1]
    run = ParityRun(
        location=absolute(location),
        checkpoint=checkpoint,
        tokens=chosen.tokens,
        index=np.concatenate([index for index, _ in places]),
        ranges=None if context is None else np.concatenate([r + s for (_, r), s in zip(places, shifts, strict=True)]),
    )
    if not len(run.index):
        raise ParityError("No row lies within the tokens that are compared; the store cannot be certified.")
    (certificate,) = sample([None], run)
    try:
        certificate.require()
    except ParityError as error:
        raise ParityError(f"{error} The store {str(location)!r} is not sealed.") from error
    return certificate.as_plain()


def _places(
    first_row: int, sequence: int, length: int, tokens: TokenBatch, context: Context | None
) -> tuple[np.ndarray, np.ndarray]:
    """Rows in the store, and token ranges, of a sequence of which the first `length` tokens are compared."""
    if context is None:
        return first_row + np.arange(length), np.empty((0, 2), np.int64)
    ranges = context.ranges[tokens.starts[sequence] : tokens.starts[sequence + 1]]
    inside = np.flatnonzero(ranges[:, 1] <= length)
    return first_row + inside, ranges[inside]


def choose(rows: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    """What a store that keeps `ranges` holds of all rows, float32."""
    kept = Collected(widths={"": rows.shape[1]}, num_rows=len(ranges))
    ChosenRows(kept, ranges).write("", 0, rows)
    return kept.rows[""]


def _rows_at(store: Store, site: str, index: np.ndarray) -> np.ndarray:
    """Rows of a site at any global positions."""
    size = store.plan.rows_per_block
    rows = {int(block): store.block_rows(site, int(block)) for block in np.unique(index // size)}
    return np.stack([rows[int(position // size)][position % size] for position in index])
