"""The rows that are written and read, and the small store around them that needs no model.

Rows are normal deviates in bfloat16, in documents of 512 tokens; blocks are as large as a power of two of rows allows
within 80 MB, the middle of what the design asks for, and at least two.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import ml_dtypes
import numpy as np

from lrh_ray.records import Corpus, SiteSpec, TokenBatch
from lrh_ray.store.aligned import aligned_empty
from lrh_ray.store.config import StoreConfig
from lrh_ray.store.plan import Plan, make_plan
from lrh_ray.store.seal import create_store, seal
from lrh_ray.store.writer import BlockWriter
from lrh_ray.testing.stores import make_corpus, make_model, make_tokens

SITE = "resid.0"
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
ITEM_BYTES = 2
DOCUMENT_ROWS = 512
SHARD_BYTES = 80_000_000


@dataclass(frozen=True)
class Data:
    """Rows of one size in memory, and the plan of their store."""

    rows: int
    dim: int

    @property
    def name(self) -> str:
        return f"{self.rows} × {self.dim}"

    @property
    def num_bytes(self) -> int:
        return self.rows * self.dim * ITEM_BYTES

    @property
    def rows_per_block(self) -> int:
        fitting = SHARD_BYTES // (self.dim * ITEM_BYTES)
        return min(self.rows // 2, 1 << (fitting.bit_length() - 1))

    @property
    def num_blocks(self) -> int:
        return self.rows // self.rows_per_block

    @cached_property
    def source(self) -> np.ndarray:
        """[rows, dim] bfloat16."""
        rng = np.random.default_rng(0)
        source = aligned_empty((self.rows, self.dim), BFLOAT16)
        for first in range(0, self.rows, 4096):
            here = source[first : first + 4096]
            here[...] = rng.standard_normal(here.shape, dtype=np.float32)
        return source

    @cached_property
    def tokens(self) -> TokenBatch:
        return make_tokens([DOCUMENT_ROWS] * (self.rows // DOCUMENT_ROWS))

    @cached_property
    def corpus(self) -> Corpus:
        return make_corpus(self.tokens)

    @cached_property
    def plan(self) -> Plan:
        site = SiteSpec(name=SITE, width=self.dim, layer=0)
        model = replace(make_model("bfloat16"), hidden_size=self.dim, sites=(site,))
        config = StoreConfig(sites=(SITE,), rows_per_block=self.rows_per_block)
        plan = make_plan(self.tokens, model, config, {"corpus": self.corpus.digest})
        if plan.num_rows != self.rows or plan.num_valid_rows != self.rows:
            raise ValueError(f"{self.rows} rows do not fill blocks of {self.rows_per_block}; ask for 2^k >= 4096")
        return plan

    def block(self, number: int) -> np.ndarray:
        return self.source[number * self.rows_per_block : (number + 1) * self.rows_per_block]

    def create(self, location: Path) -> None:
        """A planned store without rows."""
        create_store(
            location, self.plan, self.tokens, self.corpus, config_yaml="name: bench\n", provenance={"made_by": "bench"}
        )

    def commit_blocks(self, location: Path) -> None:
        """Every block through the whole protocol, a document at a time, as a backend brings them."""
        for block in range(self.num_blocks):
            with BlockWriter(location, self.plan, block=block, attempt=f"a{block}", worker="bench") as writer:
                rows = self.block(block)
                for first in range(0, len(rows), DOCUMENT_ROWS):
                    writer.write(SITE, first, rows[first : first + DOCUMENT_ROWS])
                if not writer.commit().committed:
                    raise RuntimeError(f"block {block} was there before; the folder {location} is not fresh")

    def make_store(self, location: Path) -> None:
        """A sealed store of the rows."""
        self.create(location)
        self.commit_blocks(location)
        seal(location, self.plan, parity={})

    def write_flat(self, path: Path) -> None:
        """The bare bytes, in the store's order, for a memory map."""
        self.source.view(np.uint16).tofile(path)


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """A fresh folder that is gone afterwards."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(mkdtemp(prefix="lrh-bench-", dir=parent))
    try:
        yield folder
    finally:
        rmtree(folder, ignore_errors=True)
