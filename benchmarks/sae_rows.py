"""Rows on which autoencoders are timed and compared: sparse sums of directions, noise, and an offset.

    batch_of(1024, 2048, 7)             # batch 7 of rows of width 1024; the same in every process; -1 is held out

Random rows would do for timing, but leave nothing to learn. Eight batches take turns, so that they cost nothing.
"""

from functools import lru_cache

import numpy as np

TURNS = 8
FEATURES, ACTIVE = 4, 20
"""Directions for each feature of a row, and how many of them a row is the sum of."""


def batch_of(width: int, rows: int, number: int) -> np.ndarray:
    """Rows [N, D] float32."""
    return _made(width, rows, number % TURNS if number >= 0 else TURNS)


@lru_cache(maxsize=TURNS + 1)
def _made(width: int, rows: int, turn: int) -> np.ndarray:
    rng = np.random.default_rng([width, rows, turn])
    index = rng.integers(0, FEATURES * width, (rows, ACTIVE))
    size = rng.random((rows, ACTIVE, 1), dtype=np.float32) + 0.5
    directions = _directions(width)
    found = np.zeros((rows, width), np.float32)
    for j in range(ACTIVE):
        found += size[:, j] * directions[index[:, j]]
    return np.asarray(found + 0.02 * rng.standard_normal((rows, width), dtype=np.float32) + directions[0])


@lru_cache(maxsize=1)
def _directions(width: int) -> np.ndarray:
    found = np.random.default_rng(width).standard_normal((FEATURES * width, width), dtype=np.float32)
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))
