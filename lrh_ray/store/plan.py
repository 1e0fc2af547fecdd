"""The plan: which documents, in which order, in which blocks, at which sites. Sealed before any model runs.

Same configuration, same corpus, same model: same plan digest, on every machine. The plan is claimed, written, sealed:
`dataset.json` (put-if-absent) claims the folder for one plan digest; the plan's files are deterministic, so any number
of drivers of the same plan write the same bytes; `plan/sealed.json` says that all of them are there. A store claimed
by another plan is a `StoreConflict`.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import ml_dtypes
import numpy as np

from lrh_ray.digests import canonical_json, digest_bytes, digest_json
from lrh_ray.errors import CorpusError, StoreConflict, StoreCorrupt, StoreMissing
from lrh_ray.records import ModelFacts, Plain, SiteSpec, TokenBatch
from lrh_ray.store.config import StoreConfig
from lrh_ray.store.objects import put_if_absent, put_same
from lrh_ray.store.packing import Packing, pack, size_blocks
from lrh_ray.store.shards import ShardLayout

FORMAT = "lrh_ray.activations"
FORMAT_VERSION = 1
INDEX_CONVENTION = (
    "resid.k is the residual stream after k blocks; resid.0 is the input of the first block; resid.L is after the "
    "last block and before the final norm; final_norm is after it"
)
DTYPES = {
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
    "float32": np.dtype(np.float32),
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A sealed plan. Arrays are in stored order; `source` tells which input sequence stands there."""

    identity: Mapping[str, Plain]
    sites: tuple[SiteSpec, ...]
    dtype: str
    rows_per_block: int
    chunk_rows: int
    num_blocks: int
    source: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    digest: str

    @property
    def num_rows(self) -> int:
        """Rows on disk, padding included."""
        return self.num_blocks * self.rows_per_block

    @property
    def num_valid_rows(self) -> int:
        """Rows that stand for a token."""
        return int(self.lengths.sum())

    @property
    def itemsize(self) -> int:
        return int(DTYPES[self.dtype].itemsize)

    @property
    def activation_bytes(self) -> int:
        return sum(self.shard(site.name).shard_bytes for site in self.sites) * self.num_blocks

    @property
    def num_files(self) -> int:
        """Shards, statistics and commit records."""
        return self.num_blocks * (len(self.sites) + 2)

    @cached_property
    def block_of_sequence(self) -> np.ndarray:
        return self.starts // self.rows_per_block

    @cached_property
    def valid_rows(self) -> np.ndarray:
        """[blocks] int64: rows of each block that stand for a token; they come first in the block."""
        return np.bincount(self.block_of_sequence, weights=self.lengths, minlength=self.num_blocks).astype(np.int64)

    def sequences_of_block(self, block: int) -> range:
        first, last = np.searchsorted(self.block_of_sequence, [block, block + 1])
        return range(int(first), int(last))

    def site(self, name: str) -> SiteSpec:
        return next(site for site in self.sites if site.name == name)

    def shard(self, site: str) -> ShardLayout:
        return ShardLayout(
            chunk_rows=self.chunk_rows,
            num_chunks=self.rows_per_block // self.chunk_rows,
            row_bytes=self.site(site).width * self.itemsize,
        )


def make_plan(tokens: TokenBatch, model: ModelFacts, config: StoreConfig, identity: Mapping[str, Plain]) -> Plan:
    """Plan the store of `tokens`. `identity` holds the digests of corpus and rendering that belong to the plan.

    Raises:
        CorpusError: No tokens.
        DocumentTooLong: A sequence does not fit the block size asked for.
    """
    if not len(tokens.lengths):
        raise CorpusError("The corpus has no documents, so there is nothing to plan. Check text.sources.")
    dtype = model.dtype if config.dtype == "model" else config.dtype
    size = size_blocks(
        tokens.lengths,
        row_bytes=max(site.width for site in model.sites) * DTYPES[dtype].itemsize,
        num_sites=len(model.sites),
        min_blocks=config.min_blocks,
        asked=config.rows_per_block,
    )
    packing = pack(tokens.lengths, size.rows_per_block, config.seed)
    full_identity: dict[str, Plain] = {
        **identity,
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "index_convention": INDEX_CONVENTION,
        "model": {"name": model.name, "digest": model.digest, "family": model.family, "layers": model.num_layers},
        "model_dtype": model.dtype,
        "tokenizer": model.tokenizer_digest,
        "tokens": _token_digest(tokens),
        "seed": config.seed,
    }
    return _plan(full_identity, model.sites, dtype, size.rows_per_block, size.chunk_rows, packing, tokens.lengths)


def _plan(
    identity: Mapping[str, Plain],
    sites: tuple[SiteSpec, ...],
    dtype: str,
    rows_per_block: int,
    chunk_rows: int,
    packing: Packing,
    lengths: np.ndarray,
) -> Plan:
    shape: dict[str, Plain] = {
        "sites": [asdict(site) for site in sites],
        "dtype": dtype,
        "rows_per_block": rows_per_block,
        "chunk_rows": chunk_rows,
        "num_blocks": packing.num_blocks,
    }
    table = digest_bytes(np.stack([packing.order, packing.starts]).astype("<i8").tobytes())
    return Plan(
        identity=identity,
        sites=sites,
        dtype=dtype,
        rows_per_block=rows_per_block,
        chunk_rows=chunk_rows,
        num_blocks=packing.num_blocks,
        source=packing.order,
        starts=packing.starts,
        lengths=np.asarray(lengths, dtype=np.int64)[packing.order],
        digest=digest_json({"identity": identity, "shape": shape, "table": table}),
    )


def _token_digest(tokens: TokenBatch) -> str:
    return digest_json(
        {
            "ids": digest_bytes(tokens.token_ids.astype("<i4").tobytes()),
            "starts": digest_bytes(tokens.starts.astype("<i8").tobytes()),
            "documents": digest_json(list(tokens.document_ids)),
            "characters": digest_bytes(np.stack([tokens.char_start, tokens.char_end]).astype("<i4").tobytes()),
        }
    )


def claim_folder(root: Path, plan: Plan) -> None:
    """Make `root` the store of this plan, or find that it is.

    Raises:
        StoreConflict: The folder holds the store of another plan, or something that is no store.
    """
    foreign = [path for path in root.iterdir() if not path.name.startswith(".dataset.json.")] if root.is_dir() else []
    if foreign and not (root / "dataset.json").exists():
        raise StoreConflict(f"{str(root)!r} holds files and is not a store. Choose another `name`, or move it aside.")
    claim: dict[str, Plain] = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "plan": plan.digest,
        "identity": plan.identity,
    }
    if put_if_absent(root / "dataset.json", canonical_json(claim)):
        return
    standing = read_json(root / "dataset.json")
    if standing.get("plan") != plan.digest:
        raise StoreConflict(
            f"The store {str(root)!r} was written by another plan ({standing.get('plan')}; this one is {plan.digest}): "
            f"{_differences(standing.get('identity'), plan.identity)}. Choose another `name`, or move that store aside."
        )


def _differences(standing: object, ours: Mapping[str, Plain]) -> str:
    if not isinstance(standing, dict):
        return "it has no identity"
    different = sorted(key for key in {*standing, *ours} if standing.get(key) != ours.get(key))
    return "they differ in " + ", ".join(different) if different else "they differ in sites, data type or block size"


def write_table(root: Path, plan: Plan) -> None:
    """Write `plan/plan.json` and `plan/table.npy` (rows source, start, length), which together restore the plan."""
    shape: dict[str, Plain] = {
        "digest": plan.digest,
        "identity": plan.identity,
        "sites": [asdict(site) for site in plan.sites],
        "dtype": plan.dtype,
        "rows_per_block": plan.rows_per_block,
        "chunk_rows": plan.chunk_rows,
        "num_blocks": plan.num_blocks,
    }
    table = np.stack([plan.source, plan.starts, plan.lengths]).astype("<i8")
    put_same(root / "plan" / "table.npy", _npy(table))
    put_same(root / "plan" / "plan.json", canonical_json(shape))


def read_plan(root: Path) -> Plan:
    """The sealed plan of a store.

    Raises:
        StoreMissing: No store here, or one whose plan was never sealed.
    """
    if not (root / "dataset.json").exists():
        raise StoreMissing(f"No store at {str(root)!r}. `lrh extract CONFIG` writes one at <runs>/<name>/store.")
    if not is_planned(root):
        raise StoreMissing(f"The store {str(root)!r} has no sealed plan yet. Repeat `lrh extract CONFIG` to finish it.")
    claim = read_json(root / "dataset.json")
    if (claim.get("format"), claim.get("version")) != (FORMAT, FORMAT_VERSION):
        raise StoreConflict(
            f"{str(root)!r} has format {claim.get('format')!r} version {claim.get('version')!r}; this release reads "
            f"{FORMAT!r} version {FORMAT_VERSION}. Install the release that wrote it."
        )
    shape = read_json(root / "plan" / "plan.json")
    source, starts, lengths = np.load(root / "plan" / "table.npy", allow_pickle=False)
    sites = tuple(SiteSpec(**site) for site in cast(list[dict[str, object]], shape["sites"]))  # type: ignore[arg-type]
    return Plan(
        identity=cast(Mapping[str, Plain], shape["identity"]),
        sites=sites,
        dtype=str(shape["dtype"]),
        rows_per_block=cast(int, shape["rows_per_block"]),
        chunk_rows=cast(int, shape["chunk_rows"]),
        num_blocks=cast(int, shape["num_blocks"]),
        source=source,
        starts=starts,
        lengths=lengths,
        digest=str(shape["digest"]),
    )


def seal_plan(root: Path, plan: Plan) -> None:
    """Say that every file of the plan is there."""
    put_if_absent(root / "plan" / "sealed.json", canonical_json({"plan": plan.digest}))


def is_planned(root: Path) -> bool:
    return (root / "plan" / "sealed.json").exists()


def read_json(path: Path) -> dict[str, Plain]:
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise StoreCorrupt(f"{str(path)!r} is not JSON ({error}). Restore it from a copy.") from error
    if not isinstance(value, dict):
        raise StoreCorrupt(f"{str(path)!r} is not the JSON object a store keeps there. Restore it from a copy.")
    return value


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
