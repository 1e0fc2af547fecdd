"""The tokens of a block whose rows somebody wants: chosen on the device, before anything is copied.

A store of last tokens keeps one row of a document of thousands; the others need not leave the model's memory.

    wanted = wanted_tokens(ranges, block.num_tokens)      # or None: every token
    runs = runs_of(block, wanted)
    runs[3]                                               # [(170, 171)]: one row, token 170 of the block

A backend delivers every wanted row, and no other.
"""

from typing import TypeAlias

import numpy as np
from jaxtyping import Bool

from lrh_ray.records import TokenBatch

Wanted: TypeAlias = Bool[np.ndarray, "tokens"]
"""Which tokens of a block give rows."""

Run: TypeAlias = tuple[int, int]
"""First token and last + 1, counted from the block's first."""


def wanted_tokens(ranges: np.ndarray, num_tokens: int) -> Wanted:
    """The tokens of [rows, 2] ranges, first and last + 1."""
    edges = np.zeros(num_tokens + 1, np.int64)
    np.add.at(edges, ranges[:, 0], 1)
    np.add.at(edges, ranges[:, 1], -1)
    return np.cumsum(edges[:-1]) > 0


def count(block: TokenBatch, wanted: Wanted | None) -> int:
    """Rows that each site gives."""
    return block.num_tokens if wanted is None else int(np.count_nonzero(wanted))


def runs_of(block: TokenBatch, wanted: Wanted | None) -> tuple[tuple[Run, ...], ...]:
    """The wanted tokens of each sequence as runs of neighbours, ascending."""
    bounds = list(zip(block.starts[:-1].tolist(), block.starts[1:].tolist(), strict=True))
    if wanted is None:
        return tuple((bound,) for bound in bounds)
    tokens = np.flatnonzero(wanted)
    pieces = np.split(tokens, np.searchsorted(tokens, block.starts[1:-1]))
    return tuple(
        tuple((int(piece[part.start]), int(piece[part.stop - 1]) + 1) for part in neighbours(piece)) for piece in pieces
    )


def neighbours(numbers: np.ndarray) -> list[slice]:
    """Parts of ascending integers in which each is one more than the last."""
    if not len(numbers):
        return []
    breaks = np.flatnonzero(np.diff(numbers) > 1) + 1
    return [slice(int(a), int(b)) for a, b in zip((0, *breaks), (*breaks, len(numbers)), strict=True)]
