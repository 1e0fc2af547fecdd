"""Which rows an object of a store stands for, from its key and the plan alone.

    touched_by(plan, "data.zarr/token_id/c/3")        # rows of the fourth chunk, every site
    touched_by(plan, "data.zarr/norms/resid.4/c/0")   # rows of the first chunk, one site
    touched_by(plan, "plan/documents.parquet")        # every row of every site

This is how damage is located: an object is found damaged, its key says where.
"""

import re
from dataclasses import dataclass

from lrh_ray.store.plan import Plan
from lrh_ray.store.tree import PLAN_ARRAYS, TREE, plan_chunk_rows

ROW_CHUNK = re.compile(rf"{TREE}/(?:({'|'.join(PLAN_ARRAYS)})|norms/([^/]+))/c/(\d+)")
SITE_OBJECT = re.compile(rf"{TREE}/(?:acts|norms|stats)/([^/]+)/.+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Touched:
    """Rows of a store: of one block or of all, of one site or of all."""

    block: int | None = None
    site: str | None = None
    rows: tuple[int, int] | None = None
    """First and last row."""


def all_rows(plan: Plan | None) -> Touched:
    return Touched(rows=None if plan is None else (0, plan.num_rows - 1))


def block_rows(plan: Plan, block: int, site: str | None = None) -> Touched:
    first = block * plan.rows_per_block
    return Touched(block=block, site=site, rows=(first, first + plan.rows_per_block - 1))


def shard_rows(plan: Plan, block: int, site: str, chunks: range) -> Touched:
    """Rows of some consecutive chunks of a shard."""
    first = block * plan.rows_per_block
    return Touched(
        block=block,
        site=site,
        rows=(first + chunks.start * plan.chunk_rows, first + chunks.stop * plan.chunk_rows - 1),
    )


def touched_by(plan: Plan, key: str) -> Touched:
    """What an object outside of the blocks stands for: a part of the plan, or what the seal wrote."""
    chunk = ROW_CHUNK.fullmatch(key)
    if chunk:
        size = plan_chunk_rows(plan)
        first = int(chunk[3]) * size
        return Touched(site=chunk[2], rows=(first, min(first + size, plan.num_rows) - 1))
    site = SITE_OBJECT.fullmatch(key)
    return Touched(site=site[1] if site else None, rows=(0, plan.num_rows - 1))
