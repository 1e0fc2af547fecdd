"""What a store will hold, from a real plan or from a number of tokens: bytes, objects, blocks, some blocks' lengths.

A real plan knows every document. A plan by numbers draws lengths from an exponential distribution with the mean asked
for, cut at the model's window: text is uneven, and attention, batches and buffers depend on how uneven. Blocks are
sized by the store's own rule in both cases, and full ones hold 99.9 % rows, so a number of tokens is enough.

    layout_of_plan(plan)
    layout_of_tokens(10**9, mean=1024, window=8192, described=described, store=config.store)
"""

from dataclasses import dataclass

import numpy as np

from lrh_ray.errors import ConfigError
from lrh_ray.models.meta_facts import Described
from lrh_ray.records import Context, SiteSpec
from lrh_ray.store.config import StoreConfig
from lrh_ray.store.packing import pack, size_blocks
from lrh_ray.store.plan import Plan
from lrh_ray.store.plan_shape import DTYPES
from lrh_ray.store.shards import ShardLayout

SAMPLED_BLOCKS = 6
MOST_DRAWN = 200_000
"""Lengths drawn for a plan by numbers; the largest block holds fewer documents."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockSample:
    """First rows (within the block) and lengths of the documents of one block, in stored order.

    `seen` are the tokens of each document that the model must see, more than its rows where a store keeps some of them.
    """

    starts: np.ndarray
    lengths: np.ndarray
    seen: np.ndarray


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Sizes of a store."""

    tokens: int
    documents: int
    sites: tuple[SiteSpec, ...]
    dtype: str
    rows_per_block: int
    chunk_rows: int
    blocks: int
    num_bytes: int
    objects: int
    attended: float
    """Mean over the tokens that the model sees of the length of their document."""
    longest: int
    """Tokens of the longest document."""
    sample: tuple[BlockSample, ...]

    @property
    def itemsize(self) -> int:
        return int(DTYPES[self.dtype].itemsize)

    @property
    def row_bytes(self) -> int:
        """Bytes of one token at all sites."""
        return sum(site.width for site in self.sites) * self.itemsize


def layout_of_plan(plan: Plan, context: Context | None = None) -> Layout:
    """The sizes of a plan that exists; `context` holds the whole documents where the plan keeps some rows only."""
    chosen = np.unique(np.linspace(0, plan.num_blocks - 1, SAMPLED_BLOCKS).astype(int))
    seen = plan.lengths if context is None else np.diff(context.starts)[plan.source]
    return Layout(
        tokens=plan.num_valid_rows,
        documents=len(plan.lengths),
        sites=plan.sites,
        dtype=plan.dtype,
        rows_per_block=plan.rows_per_block,
        chunk_rows=plan.chunk_rows,
        blocks=plan.num_blocks,
        num_bytes=plan.activation_bytes,
        objects=plan.num_files,
        attended=_attended(seen),
        longest=int(seen.max()),
        sample=tuple(_block(plan, seen, int(block)) for block in chosen),
    )


def _attended(lengths: np.ndarray) -> float:
    """Mean over tokens, not over documents."""
    exact = lengths.astype(np.float64)
    return float((exact**2).sum() / exact.sum())


def _block(plan: Plan, seen: np.ndarray, block: int) -> BlockSample:
    members = plan.sequences_of_block(block)
    here = slice(members.start, members.stop)
    starts = plan.starts[here] - block * plan.rows_per_block
    return BlockSample(starts=starts, lengths=plan.lengths[here], seen=seen[here])


def layout_of_tokens(tokens: int, *, mean: int, described: Described, store: StoreConfig) -> Layout:
    """The sizes of a store of `tokens` tokens in documents of `mean` tokens on average.

    Raises:
        ConfigError: Numbers that no corpus has.
    """
    if tokens < 1 or mean < 1:
        raise ConfigError(f"{tokens!r} tokens in documents of {mean!r}: both must be at least 1.")
    lengths = _drawn(tokens, mean, described.window)
    longest = int(lengths.max())
    dtype = described.dtype if store.dtype == "model" else store.dtype
    row_bytes = max(site.width for site in described.sites) * DTYPES[dtype].itemsize
    size = size_blocks(
        np.broadcast_to(np.int64(longest), (-(-tokens // longest),)),  # only its sum and its maximum are used
        row_bytes=row_bytes,
        num_sites=len(described.sites),
        min_blocks=store.min_blocks,
        asked=store.rows_per_block,
    )
    blocks = -(-tokens // size.rows_per_block)
    return Layout(
        tokens=tokens,
        documents=max(1, round(tokens / lengths.mean())),
        sites=described.sites,
        dtype=dtype,
        rows_per_block=size.rows_per_block,
        chunk_rows=size.chunk_rows,
        blocks=blocks,
        num_bytes=blocks
        * sum(_shard_bytes(site, dtype, size.rows_per_block, size.chunk_rows) for site in described.sites),
        objects=blocks * (len(described.sites) + 1) + 1,
        attended=_attended(lengths),
        longest=longest,
        sample=(_drawn_block(lengths, size.rows_per_block, store.seed),),
    )


def _drawn(tokens: int, mean: int, window: int) -> np.ndarray:
    """Lengths of documents, or of the pieces that the window cuts them into."""
    number = int(np.clip(tokens // mean, 1, MOST_DRAWN))
    drawn = np.random.default_rng(0).exponential(mean, size=number)
    return np.clip(np.rint(drawn), 1, min(window, max(tokens, 1))).astype(np.int64)


def _drawn_block(lengths: np.ndarray, rows: int, seed: int) -> BlockSample:
    """One full block of the drawn lengths, packed as the store packs."""
    packing = pack(lengths[: max(1, int(4 * rows / lengths.mean()))], rows, seed)
    here = packing.starts < rows
    drawn = lengths[packing.order[here]]
    return BlockSample(starts=packing.starts[here], lengths=drawn, seen=drawn)


def _shard_bytes(site: SiteSpec, dtype: str, rows_per_block: int, chunk_rows: int) -> int:
    layout = ShardLayout(
        chunk_rows=chunk_rows,
        num_chunks=rows_per_block // chunk_rows,
        row_bytes=site.width * DTYPES[dtype].itemsize,
    )
    return layout.shard_bytes
