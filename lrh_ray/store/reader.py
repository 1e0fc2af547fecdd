"""Open a store, or several as one, and read rows, with commit records as the only truth.

    store = open_store("runs/demo")
    store.sites                                     # ('resid.0', ..., 'final_norm')
    rows = store.rows("resid.15", sinks="drop")     # [rows, 576] float32
    for batch in Loader(store, "resid.15", batch_size=4096, seed=0): ...

Padding rows never appear. A missing block is an error that names its rows, unless `missing="skip"` is asked for. Every
chunk read is checked against its crc32c.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from lrh_ray.digests import digest_json
from lrh_ray.errors import SiteError, StoreIncomplete
from lrh_ray.layouts import RowIndex, RowMask, Rows
from lrh_ray.records import Plain, TokenBatch
from lrh_ray.store.commit_records import Commit
from lrh_ray.store.documents import Labels, join_labels, open_labels
from lrh_ray.store.joins import Group, group_parts, joined_plan
from lrh_ray.store.objects import Location
from lrh_ray.store.origin import DERIVED
from lrh_ray.store.parts import Part, RowKeys, open_part
from lrh_ray.store.plan import Plan
from lrh_ray.store.plan_shape import DTYPES, SITE_DTYPES
from lrh_ray.store.seal import describe_rows
from lrh_ray.store.shard_reader import ShardSource, read_rows
from lrh_ray.store.tree import read_columns

__all__ = ["Part", "RowKeys", "Store", "open_store"]


@dataclass(frozen=True, kw_only=True)
class Store:
    """Rows of one store, or of several joined: sites side by side, documents one after another."""

    groups: tuple[Group, ...]
    plan: Plan
    """Of all rows and sites; of a single store, its own."""

    @property
    def parts(self) -> tuple[Part, ...]:
        return tuple(part for group in self.groups for part in group)

    @property
    def location(self) -> str:
        """Where the store stands; of a joined store, where its first part does."""
        return self.parts[0].objects.location

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(site.name for site in self.plan.sites)

    @cached_property
    def model_sites(self) -> tuple[str, ...]:
        """Sites whose rows a model made; norms of what derived stores hold say nothing of attention sinks."""
        made = [part.plan.sites for part in self.groups[0] if DERIVED not in part.plan.identity]
        return tuple(site.name for sites in made for site in sites)

    @property
    def sealed(self) -> bool:
        return all(part.manifest is not None for part in self.parts)

    @cached_property
    def root(self) -> str:
        """Digest of the content: of the manifest if sealed, otherwise of the blocks committed so far."""
        roots = [[part.root for part in group] for group in self.groups]
        return self.parts[0].root if len(self.parts) == 1 else digest_json({"joined": roots})

    @property
    def manifest(self) -> Mapping[str, Plain] | None:
        """The manifest of a sealed store; of a joined one, what holds for all of its parts. None before the seal."""
        if not self.sealed:
            return None
        manifests = [part.manifest or {} for part in self.parts]
        return manifests[0] if len(manifests) == 1 else {"root": self.root, "joined": manifests}

    @cached_property
    def commits(self) -> dict[int, tuple[Commit, ...]]:
        """Commit records of every block that all parts of its rows have."""
        found = {}
        for block in range(self.plan.num_blocks):
            group, local = self._group(block)
            if all(local in part.commits for part in group):
                found[block] = tuple(part.commits[local] for part in group)
        return found

    @property
    def missing_blocks(self) -> tuple[int, ...]:
        return tuple(block for block in range(self.plan.num_blocks) if block not in self.commits)

    @property
    def writing_command(self) -> str:
        """What computes missing blocks; of several stores, of the first that lacks some."""
        lacking = [part for part in self.parts if len(part.commits) < part.plan.num_blocks]
        return (*lacking, *self.parts)[0].writing_command

    @cached_property
    def _blocks_before(self) -> np.ndarray:
        return np.cumsum([0, *(group[0].plan.num_blocks for group in self.groups)])

    @cached_property
    def _sequences_before(self) -> np.ndarray:
        return np.cumsum([0, *(len(group[0].plan.starts) for group in self.groups)])

    def _group_number(self, block: int) -> int:
        return int(np.searchsorted(self._blocks_before, block, side="right")) - 1

    def _group(self, block: int) -> tuple[Group, int]:
        """The parts that hold a block, and its number there."""
        number = self._group_number(block)
        return self.groups[number], block - int(self._blocks_before[number])

    def _part(self, site: str, block: int) -> tuple[Part, int]:
        group, local = self._group(block)
        for part in group:
            if any(spec.name == site for spec in part.plan.sites):
                return part, local
        raise SiteError(f"This store has no site {site!r}. It has: {', '.join(self.sites)}.")

    @cached_property
    def document_ids(self) -> tuple[str, ...]:
        """Id of each stored sequence; a split document repeats."""
        return tuple(name for group in self.groups for name in group[0].document_ids)

    @cached_property
    def texts(self) -> list[str]:
        """Text of each stored sequence's document."""
        return [text for group in self.groups for text in group[0].texts]

    def labels(self, name: str = "corpus") -> Labels:
        """A sidecar by name, of the first part of each group of rows.

        Raises:
            StoreMissing: No labels of this name.
        """
        opened = [open_labels(group[0].objects, group[0].document_ids, name) for group in self.groups]
        return opened[0] if len(opened) == 1 else join_labels(opened)

    def keys(self, block: int) -> RowKeys:
        """Keys of the valid rows of one block."""
        number = self._group_number(block)
        group, local = self._group(block)
        rows_before = int(self._blocks_before[number]) * self.plan.rows_per_block
        keys = group[0].keys(local)
        return keys.shifted(rows_before, int(self._sequences_before[number])) if number else keys

    def row_arrays(self, names: tuple[str, ...], index: RowIndex) -> list[np.ndarray]:
        """Columns such as `token_id` at ascending global rows."""
        size = self.plan.rows_per_block
        cuts = np.searchsorted(index, self._blocks_before[1:-1] * size)
        parts = []
        for number, (group, rows) in enumerate(zip(self.groups, np.split(index, cuts), strict=True)):
            local = rows - int(self._blocks_before[number]) * size
            parts.append(read_columns(group[0].objects, group[0].plan, names, local))
        return [np.concatenate(columns) for columns in zip(*parts, strict=True)]

    def block_tokens(self, block: int) -> TokenBatch:
        """Who the rows of one block are, by sequence: sequence s fills rows starts[s]:starts[s + 1]."""
        group, local = self._group(block)
        return group[0].block_tokens(local)

    def shard(self, site: str, block: int) -> ShardSource:
        """Where the rows of a block stand at one site.

        Raises:
            SiteError: The store has no such site.
            StoreIncomplete: The block is not committed.
        """
        part, local = self._part(site, block)
        return part.shard(site, local)

    def block_rows(self, site: str, block: int) -> Rows:
        """Valid rows of one block in the site's dtype, every chunk checked against its crc32c.

        Raises:
            SiteError: The store has no such site.
            StoreIncomplete: The block is not committed.
            StoreCorrupt: A chunk does not match its checksum.
        """
        source = self.shard(site, block)
        rows = np.empty((int(self.plan.valid_rows[block]), self.plan.site(site).width), self.plan.dtype_of(site))
        read_rows(source, rows)
        return rows

    def norms(self, site: str, block: int) -> np.ndarray:
        """[rows] float32 norms of the valid rows of a block; NaN before the seal."""
        part, local = self._part(site, block)
        return part.norms(site, local)

    def sink_mask(self, block: int, sites: Sequence[str] | None = None) -> RowMask:
        """Valid rows of a block that are attention sinks at any of `sites` (default: at any that a model made).

        Raises:
            SiteError: The store has no such site.
            StoreIncomplete: The store is not sealed.
        """
        mask = np.zeros(int(self.plan.valid_rows[block]), dtype=bool)
        for site in sites or self.model_sites:
            part, local = self._part(site, block)
            mask |= part.sink_mask(local, [site])
        return mask

    def rows(
        self,
        site: str,
        *,
        documents: Sequence[str] | None = None,
        positions: range | None = None,
        sinks: Literal["keep", "drop"] = "keep",
        missing: Literal["error", "skip"] = "error",
        dtype: str = "float32",
    ) -> Rows:
        """All rows of a site that pass the filters, in stored order, in memory.

        Args:
            site: Name of a site of this store.
            documents: Keep only rows of these document ids.
            positions: Keep only these token positions.
            sinks: `drop` leaves out rows that are attention sinks at this site.
            missing: `skip` passes over blocks that are not committed.
            dtype: Data type returned; "float32" holds every bfloat16 and float16 exactly, "int32" what is an int32.
        """
        width = self.plan.site(self._known(site)).width
        wanted = None if documents is None else np.isin(self.document_ids, list(documents))
        target = (DTYPES | SITE_DTYPES)[dtype]
        parts = [
            self.block_rows(site, block)[self.row_mask(block, site, wanted, positions, sinks)].astype(target)
            for block in self._blocks(missing)
        ]
        return np.concatenate(parts) if parts else np.empty((0, width), target)

    def row_mask(
        self, block: int, site: str, wanted: np.ndarray | None, positions: range | None, sinks: str
    ) -> RowMask:
        """Valid rows of a block that pass; `wanted` is [sequences] bool, None takes all."""
        keys = self.keys(block)
        mask = np.ones(len(keys.index), dtype=bool)
        if wanted is not None:
            mask &= wanted[keys.doc]
        if positions is not None:
            mask &= np.isin(keys.position, np.asarray(positions))
        if sinks == "drop":
            mask &= ~self.sink_mask(block, [site])
        return mask

    def _blocks(self, missing: Literal["error", "skip"]) -> list[int]:
        if missing == "error" and self.missing_blocks:
            raise StoreIncomplete(
                f"{len(self.missing_blocks)} of {self.plan.num_blocks} blocks are missing: "
                f"{describe_rows(self.plan, self.missing_blocks)}. Repeat {self.writing_command}, or pass "
                f"missing='skip'."
            )
        return sorted(self.commits)

    def _known(self, site: str) -> str:
        if site not in self.sites:
            raise SiteError(f"This store has no site {site!r}. It has: {', '.join(self.sites)}.")
        return site


def open_store(location: Location | Sequence[Location]) -> Store:
    """Open a store, the store of a run folder, or several of them as one.

    Args:
        location: A folder or a URL; or several, whose rows are the same (sites are joined) or follow one another.

    Raises:
        StoreMissing: No store there.
        StoreCorrupt: Its plan or its metadata declare what no store holds.
        StoreConflict: Stores that do not fit together.
    """
    places = [location] if isinstance(location, str | Path) else list(location)
    groups = group_parts([open_part(place) for place in places])
    return Store(groups=groups, plan=joined_plan(groups))


def open_sealed(location: Location) -> Store:
    """A store whose rows are all there and certified: what a study reads.

    Raises:
        StoreIncomplete: It is not sealed yet.
        Everything that `open_store` raises.
    """
    store = open_store(location)
    if not store.sealed:
        raise StoreIncomplete(f"The store {store.location!r} is not sealed. Finish it with {store.writing_command}.")
    return store
