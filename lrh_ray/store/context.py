"""Whole sequences beside a store of chosen rows: what a model must see again to make a block.

Three plain `.npy` objects under `plan/`, in stored order, read by ranges, so that a worker holds one block's tokens:

    plan/context_tokens.npy   int32 [tokens]: token ids of all sequences, end to end
    plan/context_starts.npy   int64 [sequences + 1]
    plan/context_ranges.npy   int64 [rows, 2]: first and last + 1 token of each row, within its sequence; no padding

A store whose rows are all tokens has none of them.
"""

import io
from dataclasses import dataclass

import numpy as np

from lrh_ray.errors import StoreCorrupt
from lrh_ray.records import Context, TokenBatch
from lrh_ray.store.objects import Objects, put_same
from lrh_ray.store.plan import Plan

TOKENS, STARTS, RANGES = (f"plan/context_{name}.npy" for name in ("tokens", "starts", "ranges"))
KEYS = (TOKENS, STARTS, RANGES)
DTYPES: dict[str, np.dtype] = {TOKENS: np.dtype("<i4"), STARTS: np.dtype("<i8"), RANGES: np.dtype("<i8")}
HEADER = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockInput:
    """What a backend is given for a block, and which of its tokens become rows (None: each)."""

    tokens: TokenBatch
    ranges: np.ndarray | None
    """[rows, 2] tokens of the block that each row stands for."""


def write_context(objects: Objects, plan: Plan, context: Context, rows: TokenBatch) -> None:
    """Write the context of a store's rows, in stored order."""
    pieces = [context.token_ids[context.starts[s] : context.starts[s + 1]] for s in plan.source]
    ranges = [context.ranges[rows.starts[s] : rows.starts[s + 1]] for s in plan.source]
    _put(objects, TOKENS, np.concatenate(pieces))
    _put(objects, STARTS, np.append(0, np.cumsum([len(piece) for piece in pieces])))
    _put(objects, RANGES, np.concatenate(ranges))


def read_block_input(objects: Objects, plan: Plan, block: int, rows: TokenBatch) -> BlockInput:
    """The sequences of a block whose rows are `rows`."""
    if not has_context(plan):
        return BlockInput(tokens=rows, ranges=None)
    sequences = plan.sequences_of_block(block)
    starts = _get(objects, STARTS, sequences.start, len(sequences) + 1)
    tokens = _get(objects, TOKENS, int(starts[0]), int(starts[-1] - starts[0]))
    first_row = int(plan.lengths[: sequences.start].sum())
    within = _get(objects, RANGES, 2 * first_row, 2 * rows.num_tokens).reshape(-1, 2)
    lengths, nothing = np.diff(starts), np.zeros(len(tokens), np.int32)
    local = (starts - starts[0]).astype(np.int64)
    whole = TokenBatch(
        document_ids=rows.document_ids,
        token_ids=tokens.astype(np.int32),
        positions=np.concatenate([np.arange(length, dtype=np.int32) for length in lengths]),
        char_start=nothing,
        char_end=nothing,
        starts=local,
    )
    shift = np.repeat(local[:-1], np.diff(rows.starts))
    return BlockInput(tokens=whole, ranges=within + shift[:, None])


def has_context(plan: Plan) -> bool:
    """Whether the rows of the store are fewer than the tokens a model must see."""
    return plan.identity.get("rows", "all") != "all" or plan.identity.get("pool", "none") != "none"


def _put(objects: Objects, key: str, array: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array.astype(DTYPES[key]), allow_pickle=False)
    put_same(objects, key, buffer.getvalue())


def _get(objects: Objects, key: str, first: int, count: int) -> np.ndarray:
    """Numbers [first, first + count) of an object; NumPy's header of a small shape is 128 bytes."""
    dtype = DTYPES[key]
    found = objects.get(key, HEADER + first * dtype.itemsize, count * dtype.itemsize)
    if found is None or len(found.data) != count * dtype.itemsize:
        raise StoreCorrupt(f"{objects.location!r} has lost {key}, or a part of it. Restore it from a copy.")
    numbers: np.ndarray = np.frombuffer(found.data, dtype)
    return numbers
