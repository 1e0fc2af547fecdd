"""What a plan says about bytes: sites, data types and sizes, and what no store holds.

    check_shape(shape)        # StoreCorrupt, before anything is allocated for it

A plan is read from wherever a store comes from, so names and sizes have limits that every writer of ours keeps.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import ml_dtypes
import numpy as np

from lrh_ray.errors import StoreCorrupt
from lrh_ray.records import Plain, SiteSpec

COMPRESSIONS = ("none", "zstd1", "lz4bit", "pcodec8")
SITE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
MAX_WIDTH = 1 << 20
MAX_BLOCKS = 1 << 24
MAX_SHARD_BYTES = 20 << 30
MAX_CHUNK_BYTES = 64 << 20
DTYPES = {
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
    "float32": np.dtype(np.float32),
}
SITE_DTYPES = {"float32": DTYPES["float32"], "int32": np.dtype(np.int32)}
"""Data types that a site may have in place of its store's: what derived stores hold."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """What a plan says about bytes."""

    sites: tuple[SiteSpec, ...]
    dtype: str
    rows_per_block: int
    chunk_rows: int
    num_blocks: int
    compression: str


def site_dtype(site: SiteSpec, dtype: str) -> np.dtype:
    """Data type of the rows of a site: its own, or that of the store."""
    found: np.dtype = DTYPES[dtype] if site.dtype is None else SITE_DTYPES[site.dtype]
    return found


def site_facts(sites: Sequence[SiteSpec]) -> list[Plain]:
    """Sites as the plan has them; a data type only where it is a site's own."""
    return [{name: value for name, value in asdict(site).items() if name != "dtype" or value} for site in sites]


def check_shape(shape: Shape) -> None:
    """Refuse what no writer of ours declares, before anything is allocated for it.

    Raises:
        StoreCorrupt: Names, data type, codec or sizes outside the format.
    """
    names = [site.name for site in shape.sites]
    known = shape.dtype in DTYPES and all(site.dtype in (None, *SITE_DTYPES) for site in shape.sites)
    row_bytes = max((site.width * site_dtype(site, shape.dtype).itemsize for site in shape.sites if known), default=0)
    reasons = {
        "site names": not names or len(set(names)) < len(names) or not all(map(SITE_NAME.fullmatch, names)),
        f"data type {shape.dtype!r}, or one of a site": not known,
        f"codec {shape.compression!r}": shape.compression not in COMPRESSIONS,
        "widths": any(not 0 < site.width <= MAX_WIDTH for site in shape.sites),
        f"{shape.num_blocks} blocks": not 0 <= shape.num_blocks <= MAX_BLOCKS,
        f"{shape.rows_per_block} rows per block of {row_bytes} bytes": not 0
        < shape.rows_per_block * max(row_bytes, 1)
        <= MAX_SHARD_BYTES,
        f"chunks of {shape.chunk_rows} rows of {row_bytes} bytes": not 0
        < shape.chunk_rows * max(row_bytes, 1)
        <= MAX_CHUNK_BYTES
        or shape.rows_per_block % max(shape.chunk_rows, 1) != 0,
    }
    wrong = [reason for reason, is_wrong in reasons.items() if is_wrong]
    if wrong:
        raise StoreCorrupt(f"The plan declares {', '.join(wrong)}, outside of what a store holds. It is not opened.")
