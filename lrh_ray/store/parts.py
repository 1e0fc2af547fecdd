"""One store on disk, opened for reading: a snapshot of its plan, its commits and its manifest.

`lrh_ray.store.reader.Store` is what people hold: one part, or several joined. Everything here counts rows, blocks and
sequences within the part.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lrh_ray.errors import StoreIncomplete
from lrh_ray.layouts import RowMask
from lrh_ray.records import Plain, TokenBatch
from lrh_ray.store.commit_records import Commit
from lrh_ray.store.commits import read_commits, root_digest
from lrh_ray.store.context import BlockInput, read_block_input
from lrh_ray.store.documents import read_documents
from lrh_ray.store.objects import Location, Objects, child, open_objects
from lrh_ray.store.origin import writing_command
from lrh_ray.store.plan import IDENTITY, Plan, read_plan
from lrh_ray.store.seal import check_manifest, describe_rows, read_manifest, sink_thresholds
from lrh_ray.store.shard_reader import ShardSource, shard_source
from lrh_ray.store.stamps import read_record
from lrh_ray.store.tree import PLAN_ARRAYS, check_metadata, read_rows


@dataclass(frozen=True, kw_only=True, slots=True)
class RowKeys:
    """Who the rows are: arrays of one length, in stored order. `doc` indexes `Store.document_ids`."""

    index: np.ndarray
    token_id: np.ndarray
    position: np.ndarray
    doc: np.ndarray
    char_start: np.ndarray
    char_end: np.ndarray

    def select(self, mask: RowMask) -> "RowKeys":
        return RowKeys(**{name: getattr(self, name)[mask] for name in self.__slots__})

    def shifted(self, rows: int, sequences: int) -> "RowKeys":
        """The same rows, counted in a store where this many rows and sequences come before."""
        columns = {name: getattr(self, name) for name in self.__slots__}
        return RowKeys(**{**columns, "index": self.index + rows, "doc": self.doc + np.int32(sequences)})


@dataclass(frozen=True, kw_only=True)
class Part:
    """A store on disk."""

    objects: Objects
    plan: Plan
    commits: Mapping[int, Commit]
    manifest: Mapping[str, Plain] | None
    """None until the store is sealed."""

    @cached_property
    def root(self) -> str:
        """Digest of the content: of the manifest if sealed, otherwise of the blocks committed so far."""
        return str(self.manifest["root"]) if self.manifest is not None else root_digest(self.plan, self.commits)

    @property
    def writing_command(self) -> str:
        """What goes on with this store, and finishes it."""
        return writing_command(self.plan.identity, self.objects.location)

    @cached_property
    def document_ids(self) -> tuple[str, ...]:
        """Id of each stored sequence; a split document repeats."""
        return tuple(read_documents(self.objects, len(self.plan.starts), "id"))

    @property
    def texts(self) -> list[str]:
        """Text of each stored sequence's document."""
        return read_documents(self.objects, len(self.plan.starts), "text")

    def valid_range(self, block: int) -> slice:
        """Rows of a block that stand for a token."""
        first = block * self.plan.rows_per_block
        return slice(first, first + int(self.plan.valid_rows[block]))

    def keys(self, block: int) -> RowKeys:
        """Keys of the valid rows of one block."""
        rows = self.valid_range(block)
        columns = {name: read_rows(self.objects, self.plan, name, rows) for name in PLAN_ARRAYS}
        return RowKeys(index=np.arange(rows.start, rows.stop), **columns)

    def block_tokens(self, block: int) -> TokenBatch:
        """Who the rows of one block are, by sequence: sequence s fills rows starts[s]:starts[s + 1]."""
        keys = self.keys(block)
        sequences = self.plan.sequences_of_block(block)
        starts = self.plan.starts[sequences.start : sequences.stop] - block * self.plan.rows_per_block
        return TokenBatch(
            document_ids=tuple(self.document_ids[index] for index in sequences),
            token_ids=keys.token_id,
            positions=keys.position,
            char_start=keys.char_start,
            char_end=keys.char_end,
            starts=np.append(starts, len(keys.index)).astype(np.int64),
        )

    def block_input(self, block: int) -> BlockInput:
        """The whole sequences that a backend must see for a block, and which of their tokens are its rows."""
        return read_block_input(self.objects, self.plan, block, self.block_tokens(block))

    def shard(self, site: str, block: int) -> ShardSource:
        """The shard of a committed block.

        Raises:
            StoreIncomplete: The block is not committed.
        """
        if block not in self.commits:
            raise StoreIncomplete(
                f"{describe_rows(self.plan, [block])} is not committed. Repeat {self.writing_command}."
            )
        return shard_source(self.objects, self.plan, attempt=self.commits[block].attempt, block=block, site=site)

    def norms(self, site: str, block: int) -> np.ndarray:
        """[rows] float32 norms of the valid rows of a block; NaN in blocks that were missing at the seal."""
        return read_rows(self.objects, self.plan, f"norms/{site}", self.valid_range(block), "<f4")

    def sink_mask(self, block: int, sites: Sequence[str]) -> RowMask:
        """Valid rows of a block that are attention sinks at any of `sites`.

        Raises:
            StoreIncomplete: The seal, which names the thresholds, has not happened.
        """
        if self.manifest is None:
            raise StoreIncomplete(
                f"Sinks are named by the seal, and this store is not sealed. Finish {self.writing_command}."
            )
        thresholds = sink_thresholds(self.manifest)
        return np.asarray(np.logical_or.reduce([self.norms(site, block) > thresholds[site] for site in sites]))


def open_part(location: Location) -> Part:
    """Open one store, or the store of a run folder.

    Raises:
        StoreMissing: No store there.
        StoreCorrupt: Its plan or its metadata declare what no store holds.
    """
    objects = open_objects(location)
    if read_record(objects, IDENTITY) is None:
        inside = open_objects(child(location, "store"))
        objects = inside if read_record(inside, IDENTITY) is not None else objects
    plan = read_plan(objects)
    check_metadata(objects, plan)
    commits = read_commits(objects, plan.num_blocks)
    manifest = read_manifest(objects)
    check_manifest(manifest, plan)
    return Part(objects=objects, plan=plan, commits=commits, manifest=manifest)
