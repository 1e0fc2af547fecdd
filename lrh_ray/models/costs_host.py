"""Host memory and batches of a run, from the lengths of its documents alone.

Rows of a block leave the model in batches of documents of like length, so they fall all over the block, and a store's
writer holds a buffer for every chunk that has begun and is not full. How many that are depends on the lengths; the same
rule that makes the batches (`plan_batches`) tells, without running anything.

    padded_tokens(batch_shapes(lengths, 2048))       # what the model really computes
    open_chunks(starts, lengths, seen=lengths, batch_tokens=2048, chunk_rows=256)

What can go wrong: nothing that would not go wrong in the run itself; the functions are pure.
"""

from collections.abc import Sequence

import numpy as np

from lrh_ray.models.batches import plan_batches
from lrh_ray.models.costs_measured import Shape


def batch_shapes(lengths: np.ndarray, batch_tokens: int) -> list[Shape]:
    """Sequences and width of each forward pass of one block."""
    return [(len(members), int(lengths[members].max())) for members in plan_batches(lengths, batch_tokens)]


def padded_tokens(shapes: Sequence[Shape]) -> int:
    return sum(rows * width for rows, width in shapes)


def typical_shapes(shapes: Sequence[Shape], number: int) -> list[Shape]:
    """A few of the shapes, as often among them as their tokens are among all; the median first."""
    ordered = sorted(shapes, key=lambda shape: (shape[1], shape[0]))
    ends = np.cumsum([rows * width for rows, width in ordered])
    wanted = sorted(((place + 0.5) / number for place in range(number)), key=lambda share: abs(share - 0.5))
    return [ordered[int(np.searchsorted(ends, share * ends[-1]))] for share in wanted]


def open_chunks(
    starts: np.ndarray, lengths: np.ndarray, *, seen: np.ndarray, batch_tokens: int, chunk_rows: int
) -> int:
    """Chunks of one site that have begun and are not full, at the worst moment of a block.

    Of each document, in stored order: `starts` its first row within the block, `lengths` its rows, `seen` its tokens,
    which decide its batch.
    """
    num_chunks = -(-int((starts + lengths).max()) // chunk_rows)
    first, last = np.full(num_chunks, len(lengths)), np.full(num_chunks, -1)
    batches = plan_batches(seen, batch_tokens)
    for number, members in enumerate(batches):
        for start, length in zip(starts[members], lengths[members], strict=True):
            touched = slice(int(start) // chunk_rows, -(-int(start + length) // chunk_rows))
            first[touched] = np.minimum(first[touched], number)
            last[touched] = np.maximum(last[touched], number)
    opened = np.bincount(first, minlength=len(batches) + 1)[: len(batches)]
    closed = np.bincount(last[last >= 0], minlength=len(batches))[: len(batches)]
    standing = np.cumsum(opened) - np.concatenate([[0], np.cumsum(closed)[:-1]])
    return int(standing.max())
