"""The order of an epoch: a pure function of (root digest, seed, epoch, window) and of which rows the filters keep.

Reading random rows is 50 times slower than reading runs of them. So an epoch permutes PIECES (runs of whole chunks of
one block), fills a WINDOW of memory with as many pieces as fit into it, and permutes the rows inside the window:

    order = EpochOrder.make(root=root, seed=0, epoch=3, counts=counts, window_rows=1 << 19)
    order.starts[k]          # where window k begins in the epoch's one global sequence of rows
    order.pieces(k)          # the pieces that fill it
    order.permutation(k)     # position t of the window is row permutation[t] of its memory

Only the permutation of pieces (8 bytes for every ~65,000 rows) is held for the whole epoch. How well the rows are mixed
depends on the number of documents in a window, not on the size of the pieces, because the plan has put the documents
into random order already; a piece is at most an eighth of a window, so that windows differ between epochs.

Random numbers come from BLAKE3 as a stream of 64-bit words, not from a library's generator: the order is the same on
every machine and with every version of NumPy. The purpose is part of what is hashed, so no two uses share a stream.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from blake3 import blake3

from lrh_ray.digests import canonical_json
from lrh_ray.errors import ConfigError
from lrh_ray.layouts import RowIndex
from lrh_ray.store.plan import Plan

WINDOW_ROWS = 1 << 19
PIECES_PER_WINDOW = 8


def random_words(num_words: int, purpose: str, *names: str | int) -> np.ndarray:
    """[num_words] uint64 of the stream that `purpose` and `names` name."""
    hasher = blake3(canonical_json(["lrh", purpose, *names]))
    words = np.frombuffer(hasher.digest(length=8 * num_words), dtype="<u8")
    return words.astype(np.uint64, copy=False)


def random_permutation(num: int, purpose: str, *names: str | int) -> RowIndex:
    """A permutation of range(num): positions sorted by random keys.

    The low bits of each key are replaced by its position. Keys are then distinct, so that every sorting algorithm gives
    the same result; the remaining 64 - log2(num) random bits tie once in millions of windows.
    """
    bits = np.uint64(max(1, (num - 1).bit_length()))
    keys = (random_words(num, purpose, *names) >> bits << bits) | np.arange(num, dtype=np.uint64)
    keys.sort()
    positions = keys & ((np.uint64(1) << bits) - np.uint64(1))
    return np.asarray(positions, dtype=np.int64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pieces:
    """How blocks are cut into pieces: runs of whole chunks, numbered block by block."""

    chunk_rows: int
    chunks_per_block: int
    chunks_per_piece: int
    num_blocks: int

    @property
    def rows_per_piece(self) -> int:
        return self.chunks_per_piece * self.chunk_rows

    @property
    def per_block(self) -> int:
        return -(-self.chunks_per_block // self.chunks_per_piece)

    def block(self, piece: int) -> int:
        return piece // self.per_block

    def first_chunk(self, piece: int) -> int:
        """First chunk of a piece, counted in its block."""
        return piece % self.per_block * self.chunks_per_piece

    def first_row(self, piece: int) -> int:
        """First row of a piece, counted in its block."""
        return self.first_chunk(piece) * self.chunk_rows

    def split(self, block_rows: np.ndarray) -> np.ndarray:
        """[blocks, pieces per block] rows in each piece, from the number of leading valid rows in each block."""
        first = np.arange(self.per_block, dtype=np.int64) * self.rows_per_piece
        leading = np.asarray(block_rows, dtype=np.int64)[:, None]
        return np.asarray(np.clip(leading - first, 0, self.rows_per_piece))


def cut_pieces(plan: Plan, window_rows: int) -> Pieces:
    """Pieces of at most an eighth of a window, at least one chunk, of equal size within a block.

    Raises:
        ConfigError: The window cannot hold one chunk.
    """
    if window_rows < plan.chunk_rows:
        raise ConfigError(
            f"window_rows is {window_rows}, and this store is read in chunks of {plan.chunk_rows} rows. Ask for at "
            f"least {PIECES_PER_WINDOW * plan.chunk_rows}, so that a window mixes several places of the store."
        )
    num_chunks = plan.rows_per_block // plan.chunk_rows
    largest = max(1, min(num_chunks, window_rows // PIECES_PER_WINDOW // plan.chunk_rows))
    per_block = -(-num_chunks // largest)
    return Pieces(
        chunk_rows=plan.chunk_rows,
        chunks_per_block=num_chunks,
        chunks_per_piece=-(-num_chunks // per_block),
        num_blocks=plan.num_blocks,
    )


@dataclass(frozen=True, kw_only=True)
class EpochOrder:
    """One epoch: its pieces in order, and which of them share a window."""

    root: str
    seed: int
    epoch: int
    order: np.ndarray
    """Piece numbers in the epoch's order; pieces without rows are left out."""
    counts: np.ndarray
    """Rows of each of them."""
    edges: np.ndarray
    """[windows + 1] window k holds order[edges[k]:edges[k + 1]]."""

    @classmethod
    def make(cls, *, root: str, seed: int, epoch: int, counts: np.ndarray, window_rows: int) -> "EpochOrder":
        """The order of the rows that `counts` says each piece holds."""
        order = random_permutation(len(counts), "order of pieces", root, seed, epoch)
        order = order[counts[order] > 0]
        edges = _fill_windows(counts[order], window_rows)
        return cls(root=root, seed=seed, epoch=epoch, order=order, counts=counts[order], edges=edges)

    @property
    def num_windows(self) -> int:
        return len(self.edges) - 1

    @cached_property
    def starts(self) -> np.ndarray:
        """[windows + 1] where each window begins in the global sequence; the last entry is the number of rows."""
        return np.asarray(np.append(0, np.cumsum(self.counts))[self.edges])

    @property
    def num_rows(self) -> int:
        return int(self.starts[-1])

    def pieces(self, window: int) -> tuple[tuple[int, int], ...]:
        """(piece, rows) of each piece of a window, in the order in which they lie in memory."""
        here = slice(int(self.edges[window]), int(self.edges[window + 1]))
        return tuple(zip(self.order[here].tolist(), self.counts[here].tolist(), strict=True))

    def permutation(self, window: int) -> RowIndex:
        num = int(self.starts[window + 1] - self.starts[window])
        return random_permutation(num, "rows of a window", self.root, self.seed, self.epoch, window)


def _fill_windows(counts: np.ndarray, window_rows: int) -> np.ndarray:
    """Edges of windows, each filled with pieces as long as the next one fits."""
    ends = np.cumsum(counts, dtype=np.int64)
    edges, held = [0], 0
    while edges[-1] < len(counts):
        edges.append(int(np.searchsorted(ends, held + window_rows, side="right")))
        held = int(ends[edges[-1] - 1])
    return np.array(edges, dtype=np.int64)
