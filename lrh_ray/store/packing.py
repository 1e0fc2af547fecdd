"""Cut documents into blocks: which documents share a block, and in which order.

A block is the unit of work, of commit and of storage, so a document never straddles two. Documents come in a seeded
random order; each block takes, again and again, the longest document that still fits among the next `LOOK_AHEAD`.
With blocks of at least 32 longest documents and at least 20 blocks, more than 0.999 of all rows are used; smaller
stores lose more, and the plan prints how much.
"""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lrh_ray.errors import DocumentTooLong

LOOK_AHEAD = 256
CHUNK_BYTES = 1 << 20
SHARD_BYTES = 96 << 20
MAX_SHARD_BYTES = 4 << 30
MAX_FILES = 20_000
MIN_CHUNK_ROWS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Packing:
    """Sequences in stored order, with the first row of each and the number of blocks they fill."""

    order: np.ndarray
    """[sequences] int64: index of each stored sequence in the given lengths."""
    starts: np.ndarray
    """[sequences] int64: first row of each stored sequence."""
    num_blocks: int


def pack(lengths: Sequence[int] | np.ndarray, rows_per_block: int, seed: int) -> Packing:
    """Place every sequence in exactly one block; a pure function of its arguments.

    Raises:
        DocumentTooLong: A sequence is longer than a block.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    if len(lengths) and lengths.max() > rows_per_block:
        raise DocumentTooLong(
            f"A sequence of {int(lengths.max())} tokens does not fit a block of {rows_per_block} rows. "
            f"Raise store.rows_per_block, or leave it out to have it sized."
        )
    queue = np.random.default_rng(seed).permutation(len(lengths)).tolist()
    window: list[tuple[int, int, int]] = []  # (length, -arrival, sequence), ascending
    arrived = 0
    order, starts = [], []
    block, used = 0, 0
    while arrived < len(queue) or window:
        while arrived < len(queue) and len(window) < LOOK_AHEAD:
            bisect.insort(window, (int(lengths[queue[arrived]]), -arrived, queue[arrived]))
            arrived += 1
        fitting = bisect.bisect_right(window, (rows_per_block - used, 1, 0))
        if not fitting:
            block, used = block + 1, 0
            continue
        length, _, sequence = window.pop(fitting - 1)
        order.append(sequence)
        starts.append(block * rows_per_block + used)
        used += length
    return Packing(
        order=np.array(order, dtype=np.int64),
        starts=np.array(starts, dtype=np.int64),
        num_blocks=block + 1 if len(lengths) else 0,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockSize:
    """Rows of a block and of a chunk; a block is a whole number of chunks."""

    rows_per_block: int
    chunk_rows: int


def chunk_rows_for(row_bytes: int, rows_per_block: int) -> int:
    """The power of two that gives chunks of 1-2 MiB, smaller when a block holds less than that."""
    wanted = 1 << max(0, (CHUNK_BYTES // row_bytes)).bit_length()
    while wanted > MIN_CHUNK_ROWS and (wanted * row_bytes > 2 * CHUNK_BYTES or wanted * 4 > rows_per_block):
        wanted //= 2
    return max(1, wanted)


def size_blocks(
    lengths: np.ndarray, *, row_bytes: int, num_sites: int, min_blocks: int, asked: int | None
) -> BlockSize:
    """Choose rows per block: as asked, or enough blocks for `min_blocks`, at most 96 MiB a shard and 20,000 files.

    A pure function of the corpus and the settings, never of the machine, so that a plan is the same everywhere.
    """
    total, longest = int(lengths.sum()), int(lengths.max())
    if asked is not None:
        chunk = chunk_rows_for(row_bytes, asked)
        return BlockSize(rows_per_block=_round_up(asked, chunk), chunk_rows=chunk)
    rows = max(longest, min(-(-total // min_blocks), SHARD_BYTES // row_bytes))
    while _num_files(total, rows, num_sites) > MAX_FILES and 2 * rows * row_bytes <= MAX_SHARD_BYTES:
        rows *= 2
    chunk = chunk_rows_for(row_bytes, rows)
    return BlockSize(rows_per_block=_round_up(rows, chunk), chunk_rows=chunk)


def _num_files(total_rows: int, rows_per_block: int, num_sites: int) -> int:
    return -(-total_rows // rows_per_block) * (num_sites + 1)


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
