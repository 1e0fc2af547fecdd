"""Settings of a store: what is kept, in which order, in which pieces."""

from typing import Literal

from lrh_ray.config import settings


@settings
class StoreConfig:
    """What a store keeps and how its plan cuts it."""

    sites: tuple[str, ...]
    """Named points in the model, for example `resid.0`, `resid.*`, `final_norm`."""

    rows: str = "all"
    """Tokens that become rows: `all`, `last`, `every:N`, `spans:CONCEPT`, `span_last:CONCEPT`."""

    pool: Literal["none", "mean"] = "none"
    """`mean`: one row for each span (`rows: spans:CONCEPT`) or each sequence (`rows: all`), the mean of its tokens."""

    seed: int = 0
    """Seed of the document order."""

    dtype: Literal["model", "bfloat16", "float16", "float32"] = "model"
    """Data type on disk; `model` keeps the model's own."""

    compression: Literal["none", "zstd1", "lz4bit", "pcodec8"] = "none"
    """Lossless codec of each chunk. `none` reads fastest; the others save a third of the disk at most."""

    rows_per_block: int | None = None
    """Rows of one block (one shard per site). None: sized for at least `min_blocks` blocks of at most 96 MiB a site."""

    min_blocks: int = 16
    """Blocks to aim for when `rows_per_block` is None; 4 per model replica keep every replica busy to the end."""

    location: str | None = None
    """Folder or URL (`s3://bucket/prefix`) of the store. None: the run's own folder."""

    base: str | None = None
    """A sealed store to grow: its documents at new sites, or new documents at its sites. None: a store of its own."""

    def __post_init__(self) -> None:
        if not self.sites:
            raise ValueError("name at least one site, for example [resid.0, final_norm]")
        if self.base is not None and (self.rows, self.pool) != ("all", "none"):
            raise ValueError("a store that grows from a base keeps all rows; leave rows and pool as they are")
        if self.rows_per_block is not None and self.rows_per_block < 1:
            raise ValueError("must be at least 1 row")
        if self.seed < 0:
            raise ValueError("seed must be 0 or more")
        if self.min_blocks < 1:
            raise ValueError("must be at least 1 block")
