"""The plan: which documents, in which order, in which blocks, at which sites. Sealed before any model runs.

Same configuration, same corpus, same model: same plan digest, on every machine. The plan is claimed, written, sealed:
`dataset.json` (put-if-absent) claims the folder for one plan digest; the plan's files are deterministic, so any number
of drivers of the same plan write the same bytes; `plan/sealed.json` says that all of them are there. A store claimed
by another plan is a `StoreConflict`.
"""

import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import cast

import numpy as np

from lrh_ray.digests import digest_bytes, digest_json
from lrh_ray.errors import CorpusError, StoreConflict, StoreCorrupt, StoreMissing
from lrh_ray.records import ModelFacts, Plain, SiteSpec, TokenBatch
from lrh_ray.store.config import StoreConfig
from lrh_ray.store.objects import Objects, put_same
from lrh_ray.store.origin import writing_command
from lrh_ray.store.packing import pack, size_blocks
from lrh_ray.store.plan_shape import DTYPES, Shape, check_shape, site_dtype, site_facts
from lrh_ray.store.shards import ShardLayout
from lrh_ray.store.stamps import read_record, stamped

FORMAT = "lrh_ray.activations"
FORMAT_VERSION = 2
INDEX_CONVENTION = (
    "resid.k is the residual stream after k blocks; resid.0 is the input of the first block; resid.L is after the "
    "last block and before the final norm; final_norm is after it"
)
IDENTITY = "dataset.json"
SHAPE = "plan/plan.json"
TABLE = "plan/table.npy"
SEALED = "plan/sealed.json"
TABLE_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '<i8', 'fortran_order': False, 'shape': \(3, (\d{1,15})\), \} *\n", re.DOTALL
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A sealed plan. Arrays are in stored order; `source` tells which input sequence stands there."""

    identity: Mapping[str, Plain]
    sites: tuple[SiteSpec, ...]
    dtype: str
    rows_per_block: int
    chunk_rows: int
    num_blocks: int
    compression: str
    source: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    digest: str

    @cached_property
    def rows_digest(self) -> str:
        """Digest of which token stands in which row; stores that share it have the same rows."""
        table = np.stack([self.source, self.starts, self.lengths]).astype("<i8")
        return digest_json([self.identity.get("tokens"), self.rows_per_block, digest_bytes(table.tobytes())])

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
        """Shards and statistics of a sealed store, and the pack of its commit records."""
        return self.num_blocks * (len(self.sites) + 1) + 1

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

    def dtype_of(self, site: str) -> np.dtype:
        """Data type of the rows of a site: its own, or the store's."""
        return site_dtype(self.site(site), self.dtype)

    def shard(self, site: str) -> ShardLayout:
        return ShardLayout(
            chunk_rows=self.chunk_rows,
            num_chunks=self.rows_per_block // self.chunk_rows,
            row_bytes=self.site(site).width * self.dtype_of(site).itemsize,
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
    shape = Shape(
        sites=model.sites,
        dtype=dtype,
        rows_per_block=size.rows_per_block,
        chunk_rows=size.chunk_rows,
        num_blocks=packing.num_blocks,
        compression=config.compression,
    )
    table = np.stack([packing.order, packing.starts, np.asarray(tokens.lengths, dtype=np.int64)[packing.order]])
    return assemble_plan(full_identity(tokens, model, config, identity), shape, table)


def full_identity(
    tokens: TokenBatch, model: ModelFacts, config: StoreConfig, identity: Mapping[str, Plain]
) -> dict[str, Plain]:
    """Everything that makes the rows of a store these rows and no others."""
    return {
        **identity,
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "index_convention": INDEX_CONVENTION,
        "model": {"name": model.name, "digest": model.digest, "family": model.family, "layers": model.num_layers},
        "model_dtype": model.dtype,
        "tokenizer": model.tokenizer_digest,
        "tokens": _token_digest(tokens),
        "seed": config.seed,
        **({} if (config.rows, config.pool) == ("all", "none") else {"rows": config.rows, "pool": config.pool}),
    }


def assemble_plan(identity: Mapping[str, Plain], shape: Shape, table: np.ndarray) -> Plan:
    """A plan from its parts; `table` is int64 [3, sequences]: source, first row, length, in stored order."""
    parts = {
        "identity": identity,
        "shape": {**asdict(shape), "sites": site_facts(shape.sites)},
        "table": digest_bytes(np.ascontiguousarray(table, dtype="<i8").tobytes()),
    }
    source, starts, lengths = table
    facts = {name: getattr(shape, name) for name in Shape.__slots__}
    return Plan(identity=identity, **facts, source=source, starts=starts, lengths=lengths, digest=digest_json(parts))


def _token_digest(tokens: TokenBatch) -> str:
    return digest_json(
        {
            "ids": digest_bytes(tokens.token_ids.astype("<i4").tobytes()),
            "starts": digest_bytes(tokens.starts.astype("<i8").tobytes()),
            "documents": digest_json(list(tokens.document_ids)),
            "characters": digest_bytes(np.stack([tokens.char_start, tokens.char_end]).astype("<i4").tobytes()),
        }
    )


def claim_folder(objects: Objects, plan: Plan) -> None:
    """Make this place the store of this plan, or find that it is.

    Raises:
        StoreConflict: It holds the store of another plan, or something that is no store.
    """
    standing = read_record(objects, IDENTITY)
    if standing is None and (foreign := next(_foreign(objects), None)) is not None:
        raise StoreConflict(
            f"{objects.location!r} holds files ({foreign}) and is not a store. Choose another `name`, or move it aside."
        )
    claim = claim_of(plan)
    if standing is None and objects.put(IDENTITY, stamped(claim)) is not None:
        return
    standing = read_record(objects, IDENTITY) or {}
    if standing.get("plan") != plan.digest:
        raise StoreConflict(
            f"The store {objects.location!r} was written by another plan ({standing.get('plan')}; this one is "
            f"{plan.digest}): {_differences(standing.get('identity'), plan.identity)}. Choose another `name`, or move "
            f"that store aside."
        )


def claim_of(plan: Plan) -> dict[str, Plain]:
    """The record that claims a place for a plan: what `dataset.json` holds."""
    return {"format": FORMAT, "version": FORMAT_VERSION, "plan": plan.digest, "identity": plan.identity}


def _foreign(objects: Objects) -> Iterator[str]:
    for entry in objects.list(""):
        if not entry.key.startswith((".dataset.json.", "dataset.json", "staging/probe-")):
            yield entry.key


def _differences(standing: object, ours: Mapping[str, Plain]) -> str:
    if not isinstance(standing, dict):
        return "it has no identity"
    different = sorted(key for key in {*standing, *ours} if standing.get(key) != ours.get(key))
    return "they differ in " + ", ".join(different) if different else "they differ in sites, data type or block size"


def write_table(objects: Objects, plan: Plan) -> None:
    """Write `plan/plan.json` and `plan/table.npy` (rows source, start, length), which together restore the plan."""
    shape: dict[str, Plain] = {
        "digest": plan.digest,
        "identity": plan.identity,
        "sites": site_facts(plan.sites),
        "dtype": plan.dtype,
        "rows_per_block": plan.rows_per_block,
        "chunk_rows": plan.chunk_rows,
        "num_blocks": plan.num_blocks,
        "compression": plan.compression,
    }
    put_same(objects, TABLE, _npy(np.stack([plan.source, plan.starts, plan.lengths]).astype("<i8")))
    put_same(objects, SHAPE, stamped(shape))


def read_plan(objects: Objects) -> Plan:
    """The sealed plan of a store, checked: its parts must give the digest that claimed the folder.

    Raises:
        StoreMissing: No store here, or one whose plan was never sealed.
        StoreConflict: A store of another format version.
        StoreCorrupt: Parts that contradict one another, or declare what no store holds.
    """
    claim = read_record(objects, IDENTITY)
    if claim is None:
        raise StoreMissing(f"No store at {objects.location!r}. `lrh extract CONFIG` writes one at <runs>/<name>/store.")
    if (claim.get("format"), claim.get("version")) != (FORMAT, FORMAT_VERSION):
        raise StoreConflict(
            f"{objects.location!r} has format {claim.get('format')!r} version {claim.get('version')!r}; this release "
            f"reads {FORMAT!r} version {FORMAT_VERSION}. Install the release that wrote it."
        )
    if read_record(objects, SEALED) is None:
        raise StoreMissing(
            f"The store {objects.location!r} has no sealed plan yet. Repeat "
            f"{writing_command(claim.get('identity'), objects.location)} to finish it."
        )
    plan = restore_plan(objects)
    if plan.digest != claim.get("plan"):
        raise StoreCorrupt(
            f"The plan of {objects.location!r} gives digest {plan.digest}; {IDENTITY} says {claim.get('plan')}. "
            f"Restore the folder plan/ from a copy."
        )
    return plan


def restore_plan(objects: Objects, record: Mapping[str, Plain] | None = None) -> Plan:
    """The plan that the files under `plan/` give, whoever claimed the store; its digest is computed and compared.

    `record` is the content of `plan/plan.json`, read here if it is not given.

    Raises:
        StoreCorrupt: Parts that are missing, contradict one another, or declare what no store holds.
    """
    record = read_record(objects, SHAPE) if record is None else record
    if record is None:
        raise StoreCorrupt(f"{objects.location!r} has lost {SHAPE}. Restore it from a copy.")
    plan = _restore(objects, record)
    if plan.digest != record.get("digest"):
        raise StoreCorrupt(
            f"The plan of {objects.location!r} gives digest {plan.digest}; {SHAPE} says {record.get('digest')}. "
            f"`lrh verify STORE` tells which file is damaged."
        )
    return plan


def _restore(objects: Objects, record: Mapping[str, Plain]) -> Plan:
    try:
        sites = tuple(SiteSpec(**site) for site in cast(list[dict[str, object]], record["sites"]))  # type: ignore[arg-type]
        shape = Shape(
            sites=sites,
            dtype=str(record["dtype"]),
            rows_per_block=int(cast(int, record["rows_per_block"])),
            chunk_rows=int(cast(int, record["chunk_rows"])),
            num_blocks=int(cast(int, record["num_blocks"])),
            compression=str(record["compression"]),
        )
        check_shape(shape)
        return assemble_plan(cast(Mapping[str, Plain], record["identity"]), shape, _read_table(objects, shape))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, StoreCorrupt):
            raise
        raise StoreCorrupt(f"{SHAPE} in {objects.location!r} is no plan ({error}). Restore it from a copy.") from error


def _read_table(objects: Objects, shape: Shape) -> np.ndarray:
    """The table of sequences, its header held against its size before anything is allocated."""
    found = objects.get(TABLE, 0, 4096)
    if found is None:
        raise StoreCorrupt(f"{objects.location!r} has lost {TABLE}. Restore it from a copy.")
    header = TABLE_HEADER.match(found.data)  # NumPy's own parser evaluates the header as Python
    count = -1 if header is None else int(header[1])
    if header is None or header.end() % 64 or header.end() + 24 * count != found.num_bytes:
        raise StoreCorrupt(f"{TABLE} is not the int64 [3, sequences] table of a store. Restore it from a copy.")
    if not shape.num_blocks <= count <= shape.num_blocks * shape.rows_per_block:
        raise StoreCorrupt(f"{TABLE} names {count} sequences for {shape.num_blocks} blocks. Restore it from a copy.")
    whole = objects.get(TABLE, header.end())
    if whole is None or len(whole.data) != 24 * count:
        raise StoreCorrupt(f"{TABLE} became shorter while it was read. Repeat the command.")
    table = np.frombuffer(whole.data, dtype="<i8").reshape(3, count)
    _check_table(table, shape)
    return table


def _check_table(table: np.ndarray, shape: Shape) -> None:
    """Sequences must lie inside blocks, one after the other."""
    _, starts, lengths = table
    ends = starts + lengths
    inside = (starts >= 0) & (lengths > 0) & (starts // shape.rows_per_block == (ends - 1) // shape.rows_per_block)
    ordered = (starts[1:] >= ends[:-1]).all()
    if not (inside.all() and ordered and (not len(ends) or ends[-1] <= shape.num_blocks * shape.rows_per_block)):
        raise StoreCorrupt(f"{TABLE} places sequences outside of their blocks. Restore it from a copy.")


def seal_plan(objects: Objects, plan: Plan, files: Mapping[str, Mapping[str, Plain]]) -> None:
    """Say that every file of the plan is there, with size and digest of each."""
    objects.put(SEALED, stamped({"plan": plan.digest, "files": files}))


def is_planned(objects: Objects) -> bool:
    return read_record(objects, SEALED) is not None


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
