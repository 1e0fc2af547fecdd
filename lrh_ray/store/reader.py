"""Open a store and read rows, with commit records as the only truth.

    store = open_store("runs/demo")
    store.sites                                     # ('resid.0', ..., 'final_norm')
    rows = store.rows("resid.15", sinks="drop")     # [rows, 576] float32
    for batch in store.batches("resid.15", batch_size=4096, seed=0):
        batch.rows, batch.index

Padding rows never appear. A missing block is an error that names its rows, unless `missing="skip"` is asked for. Every
chunk read is checked against its crc32c.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from lrh_ray.errors import SiteError, StoreCorrupt, StoreIncomplete
from lrh_ray.layouts import RowIndex, RowMask, Rows
from lrh_ray.records import Plain, TokenBatch
from lrh_ray.store.commits import Commit, read_commits, root_digest, staged_path
from lrh_ray.store.documents import Labels, open_labels, read_texts
from lrh_ray.store.plan import DTYPES, Plan, read_json, read_plan
from lrh_ray.store.seal import MANIFEST, describe_rows, is_sealed, sink_thresholds
from lrh_ray.store.shards import CRC_BYTES, checksum
from lrh_ray.store.tree import PLAN_ARRAYS, read_arrays, shard_path

if TYPE_CHECKING:
    import xarray

WINDOW_ROWS = 1 << 19


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


@dataclass(frozen=True, kw_only=True, slots=True)
class RowBatch:
    """Rows of one site with their positions in the store."""

    rows: Rows
    index: RowIndex


@dataclass(frozen=True, kw_only=True)
class Store:
    """A store opened for reading: a snapshot of its commit records."""

    path: Path
    plan: Plan
    commits: Mapping[int, Commit]
    manifest: Mapping[str, Plain] | None
    """None until the store is sealed."""

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(site.name for site in self.plan.sites)

    @property
    def sealed(self) -> bool:
        return self.manifest is not None

    @cached_property
    def root(self) -> str:
        """Digest of the content: of the manifest if sealed, otherwise of the blocks committed so far."""
        return str(self.manifest["root"]) if self.manifest is not None else root_digest(self.plan, self.commits)

    @property
    def missing_blocks(self) -> tuple[int, ...]:
        return tuple(block for block in range(self.plan.num_blocks) if block not in self.commits)

    @cached_property
    def document_ids(self) -> tuple[str, ...]:
        """Id of each stored sequence; a split document repeats."""
        (ids,) = read_arrays(self.path / "data.zarr", ("docs/id",))
        return tuple(map(str, ids))

    @cached_property
    def texts(self) -> list[str]:
        """Text of each stored sequence's document."""
        return read_texts(self.path / "plan" / "documents.parquet")

    def labels(self, name: str = "corpus") -> Labels:
        return open_labels(self.path, self.document_ids, name)

    def keys(self, block: int) -> RowKeys:
        """Keys of the valid rows of one block."""
        first = block * self.plan.rows_per_block
        rows = slice(first, first + int(self.plan.valid_rows[block]))
        columns = dict(zip(PLAN_ARRAYS, read_arrays(self.path / "data.zarr", PLAN_ARRAYS, rows), strict=True))
        return RowKeys(index=np.arange(rows.start, rows.stop), **columns)

    def row_arrays(self, names: tuple[str, ...], index: np.ndarray) -> list[np.ndarray]:
        """Columns such as `token_id` at ascending global rows."""
        span = slice(int(index[0]), int(index[-1]) + 1)
        return [column[index - span.start] for column in read_arrays(self.path / "data.zarr", names, span)]

    def block_tokens(self, block: int) -> TokenBatch:
        """The tokens of one block, as a backend takes them: sequence s fills rows starts[s]:starts[s + 1]."""
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

    def block_rows(self, site: str, block: int) -> Rows:
        """Valid rows of one block in the store's dtype, every chunk checked against its crc32c.

        Raises:
            SiteError: The store has no such site.
            StoreIncomplete: The block is not committed.
            StoreCorrupt: A chunk does not match its checksum.
        """
        self._check_site(site)
        if block not in self.commits:
            raise StoreIncomplete(f"{describe_rows(self.plan, [block])} is not committed. Repeat `lrh extract CONFIG`.")
        layout, width, valid = self.plan.shard(site), self.plan.site(site).width, int(self.plan.valid_rows[block])
        num_chunks = -(-valid // layout.chunk_rows)
        stride = layout.chunk_bytes + CRC_BYTES
        raw = _read_exactly(self._shard(site, block), num_chunks * stride)
        chunks = raw.reshape(num_chunks, stride)
        for chunk in range(num_chunks):
            if checksum(chunks[chunk, : layout.chunk_bytes]) != chunks[chunk, layout.chunk_bytes :].tobytes():
                raise StoreCorrupt(
                    f"Block {block}, site {site!r}, chunk {chunk} (from row {chunk * layout.chunk_rows} of the block): "
                    f"the bytes do not match their crc32c. Restore the file, or drop the block's commit record "
                    f"and repeat `lrh extract CONFIG`."
                )
        rows = np.ascontiguousarray(chunks[:, : layout.chunk_bytes]).reshape(-1).view(DTYPES[self.plan.dtype])
        return np.asarray(rows.reshape(-1, width)[:valid])

    def _shard(self, site: str, block: int) -> Path:
        """Where a committed shard stands: published, or still staged when its writer has just committed or died."""
        final = shard_path(self.path, site, block)
        return final if final.exists() else staged_path(self.path, block, self.commits[block].attempt, site)

    def sink_mask(self, block: int, sites: Sequence[str] | None = None) -> RowMask:
        """Valid rows of a block that are attention sinks at any of `sites` (default: at any site of the store)."""
        if self.manifest is None:
            raise StoreIncomplete(
                "Sinks are named by the seal, and this store is not sealed. Finish `lrh extract CONFIG`."
            )
        thresholds = sink_thresholds(self.manifest)
        first = block * self.plan.rows_per_block
        rows = slice(first, first + int(self.plan.valid_rows[block]))
        chosen = tuple(sites or self.sites)
        norms = read_arrays(self.path / "data.zarr", tuple(f"norms/{site}" for site in chosen), rows)
        over = [part > thresholds[site] for site, part in zip(chosen, norms, strict=True)]
        return np.asarray(np.logical_or.reduce(over))

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
            dtype: Data type returned; "float32" holds every bfloat16 and float16 exactly.
        """
        self._check_site(site)
        wanted = None if documents is None else np.isin(self.document_ids, list(documents))
        parts = []
        for block in self._blocks(missing):
            mask = self._mask(block, site, wanted, positions, sinks)
            parts.append(self.block_rows(site, block)[mask].astype(DTYPES[dtype]))
        return np.concatenate(parts) if parts else np.empty((0, self.plan.site(site).width), DTYPES[dtype])

    def _mask(self, block: int, site: str, wanted: np.ndarray | None, positions: range | None, sinks: str) -> RowMask:
        keys = self.keys(block)
        mask = np.ones(len(keys.index), dtype=bool)
        if wanted is not None:
            mask &= wanted[keys.doc]
        if positions is not None:
            mask &= np.isin(keys.position, np.asarray(positions))
        if sinks == "drop":
            mask &= ~self.sink_mask(block, [site])
        return mask

    def batches(
        self, site: str, batch_size: int, *, seed: int, epoch: int = 0, dtype: str = "float32"
    ) -> Iterator[RowBatch]:
        """One shuffled epoch over all rows of a site; the order is a pure function of (root, seed, epoch).

        Blocks are permuted, read in windows of about 2^19 rows, and rows permuted within the window.
        """
        rng = np.random.default_rng([int(self.root[:16], 16), seed, epoch])
        left: RowBatch | None = None
        for window in self._windows(site, rng):
            order = rng.permutation(len(window.index))
            shuffled = RowBatch(rows=window.rows[order].astype(DTYPES[dtype]), index=window.index[order])
            joined = shuffled if left is None else _join([left, shuffled])
            full = len(joined.index) // batch_size * batch_size
            for first in range(0, full, batch_size):
                here = slice(first, first + batch_size)
                yield RowBatch(rows=joined.rows[here], index=joined.index[here])
            left = RowBatch(rows=joined.rows[full:], index=joined.index[full:])
        if left is not None and len(left.index):
            yield left

    def _windows(self, site: str, rng: np.random.Generator) -> Iterator[RowBatch]:
        """Blocks in random order, joined into windows of at most `WINDOW_ROWS` rows, at least one block."""
        blocks = rng.permutation(self._blocks("error")).tolist()
        per_window = max(1, WINDOW_ROWS // self.plan.rows_per_block)
        for first in range(0, len(blocks), per_window):
            yield _join([self._block_batch(site, block) for block in blocks[first : first + per_window]])

    def _block_batch(self, site: str, block: int) -> RowBatch:
        rows = self.block_rows(site, block)
        return RowBatch(rows=rows, index=block * self.plan.rows_per_block + np.arange(len(rows)))

    def to_xarray(self, site: str) -> "xarray.DataArray":
        """The site as a labelled array (token x feature, float32), with token id, position and document."""
        import xarray as xr

        keys = [self.keys(block) for block in self._blocks("error")]
        doc = np.concatenate([part.doc for part in keys])
        coords = {
            "token_id": ("token", np.concatenate([part.token_id for part in keys])),
            "position": ("token", np.concatenate([part.position for part in keys])),
            "document": ("token", np.asarray(self.document_ids)[doc]),
        }
        return xr.DataArray(self.rows(site), dims=("token", "feature"), coords=coords, name=site)

    def _blocks(self, missing: Literal["error", "skip"]) -> list[int]:
        if missing == "error" and self.missing_blocks:
            raise StoreIncomplete(
                f"{len(self.missing_blocks)} of {self.plan.num_blocks} blocks are missing: "
                f"{describe_rows(self.plan, self.missing_blocks)}. Repeat `lrh extract CONFIG`, or pass missing='skip'."
            )
        return sorted(self.commits)

    def _check_site(self, site: str) -> None:
        if site not in self.sites:
            raise SiteError(f"This store has no site {site!r}. It has: {', '.join(self.sites)}.")


def _join(parts: Sequence[RowBatch]) -> RowBatch:
    return RowBatch(
        rows=np.concatenate([part.rows for part in parts]), index=np.concatenate([part.index for part in parts])
    )


def _read_exactly(path: Path, num_bytes: int) -> np.ndarray:
    buffer = np.empty(num_bytes, dtype=np.uint8)
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError as error:
        raise StoreCorrupt(f"{path} is committed and missing; restore it from a copy.") from error
    try:
        done = 0
        while done < num_bytes:
            count = os.preadv(descriptor, [buffer[done:]], done)  # type: ignore[list-item]  # ndarray is a buffer
            if not count:
                raise StoreCorrupt(f"{path} ends after {done} of {num_bytes} bytes. Restore it from a copy.")
            done += count
    finally:
        os.close(descriptor)
    return buffer


def open_store(path: str | Path) -> Store:
    """Open a store, or the store of a run folder.

    Raises:
        StoreMissing: No store there.
    """
    root = Path(path)
    if not (root / "dataset.json").exists() and (root / "store" / "dataset.json").exists():
        root = root / "store"
    plan = read_plan(root)
    manifest = read_json(root / MANIFEST) if is_sealed(root) else None
    return Store(path=root, plan=plan, commits=read_commits(root), manifest=manifest)
