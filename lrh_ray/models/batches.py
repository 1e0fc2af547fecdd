"""Batches: which sequences of a block share a forward pass.

Sequences of unlike length waste a padded forward on padding, so a batch takes neighbours in order of length. The
choice depends on the lengths alone: the same block makes the same batches, hence the same bytes.
"""

from typing import TypeAlias

import numpy as np
from jaxtyping import Int64

Lengths: TypeAlias = Int64[np.ndarray, "sequences"]
"""Tokens per sequence, each at least 1."""


def plan_batches(lengths: Lengths, batch_tokens: int) -> tuple[np.ndarray, ...]:
    """Indices of the sequences of each batch, longest first; ties keep their order.

    A batch of n sequences padded to its longest, w tokens, has n * w <= `batch_tokens`, or n = 1. Every sequence is
    in exactly one batch.
    """
    by_length = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(by_length):
        width = int(lengths[by_length[start]])
        stop = start + max(1, batch_tokens // width)
        batches.append(by_length[start:stop])
        start = stop
    return tuple(batches)
