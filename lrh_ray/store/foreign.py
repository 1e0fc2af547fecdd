"""Import foreign activations: `.npy`, `.safetensors`, or SAELens' cached activations become an ordinary sealed store.

    import_activations("runs/theirs/store", "acts.npy", site="resid.6")
    import_activations("runs/cache/store", "saelens-cache/", rename={"blocks.5.hook_resid_post": "resid.6"})

The model is unknown, so the store says so: its model is "foreign", identified by a digest of the source's files; its
documents are pseudo-documents without text; its parity certificate is {"passed": null, "kind": "none"}. Everything else
holds: a sealed plan, exactly-once blocks, checksums, statistics, the shuffled loader, every load.

Constant memory: rows are mapped and copied document by document into the block that is written (token ids and
positions, 16 bytes a row, are held as for any plan). A killed import is finished by the same call; a finished one
changes nothing. A source whose bytes changed meanwhile is a `StoreConflict`.

What can go wrong: `SourceUnusable`, for what a store cannot hold (see `foreign_source`), and for values that are not
finite, named by file and row.
"""

import platform
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, cast

import numpy as np

from lrh_ray.digests import canonical_json, digest_files
from lrh_ray.errors import SourceUnusable
from lrh_ray.records import Corpus, Document, ModelFacts, Plain, Receipt, SiteSpec, TokenBatch
from lrh_ray.store.config import StoreConfig
from lrh_ray.store.foreign_arrow import is_cache, open_cache
from lrh_ray.store.foreign_npy import open_npy
from lrh_ray.store.foreign_safetensors import open_safetensors
from lrh_ray.store.foreign_source import ROWS_PER_DOCUMENT, UNKNOWN_TOKEN, ForeignSource, Part
from lrh_ray.store.objects import Location
from lrh_ray.store.origin import SOURCE
from lrh_ray.store.plan import Plan, make_plan
from lrh_ray.store.plan_shape import SITE_NAME
from lrh_ray.store.reader import open_store
from lrh_ray.store.seal import create_store, seal
from lrh_ray.store.writer import BlockWriter

NO_PARITY: Mapping[str, Plain] = {
    "passed": None,
    "kind": "none",
    "reason": "imported rows; no model was at hand to compare them with",
}
RESERVED = {"statistics"}


def import_activations(
    location: Location,
    source: str | Path,
    *,
    site: str | None = None,
    rename: Mapping[str, str] | None = None,
    rows_per_document: int = ROWS_PER_DOCUMENT,
    bits: Literal["bfloat16"] | None = None,
    rows_per_block: int | None = None,
    seed: int = 0,
    on_block: Callable[[Receipt], None] = lambda _: None,
) -> dict[str, Plain]:
    """Write `source` as a sealed store at `location`; repeat the call to finish a killed import.

    Args:
        location: Folder or URL of the store.
        source: A `.npy` or `.safetensors` file, a folder of either, or a folder of SAELens' cached activations.
        site: Name of the site, if the source holds one array.
        rename: Site names by the names found in the source; others keep theirs.
        rows_per_document: Rows of a pseudo-document where the source names no documents.
        bits: "bfloat16" reads `.npy` files of 16-bit integers as the bits of bfloat16.
        rows_per_block: Rows of a block; None lets the plan choose.
        seed: Seed of the document order.
        on_block: Told about every block written.

    Returns:
        Facts: place, kind, files, digest of the files, sites, rows, documents, blocks, dtype, root, parity.

    Raises:
        SourceUnusable: The source cannot become a store.
        StoreConflict: The place holds another store, or the source changed since the import began.
        StoreFull: No space.
    """
    opened = open_source(source, rows_per_document=rows_per_document, bits=bits)
    names = site_names(opened, site, rename or {})
    digest = digest_files(opened.files)
    tokens = _tokens(opened)
    config = StoreConfig(sites=tuple(names.values()), seed=seed, rows_per_block=rows_per_block)
    identity: dict[str, Plain] = {"corpus": digest, SOURCE: {"kind": opened.kind, "files": sorted(opened.files)}}
    plan = make_plan(tokens, _model(opened, names, digest, tokens), config, identity)
    asked: dict[str, Plain] = {"source": opened.kind, "sites": names, "rows_per_document": rows_per_document}
    create_store(
        location,
        plan,
        tokens,
        _corpus(tokens, digest),
        config_yaml=canonical_json({"import": asked, "seed": seed}).decode() + "\n",
        provenance={"made_by": "lrh import", "digest": digest, "told_by_source": dict(opened.facts), **asked},
    )
    pending = open_store(location).missing_blocks
    places = _places(opened)
    for block in pending:
        with BlockWriter(location, plan, block=block, attempt=uuid.uuid4().hex, worker=platform.node()) as writer:
            _copy_block(writer, plan, places, names, block)
            on_block(writer.commit())
    manifest = seal(location, plan, parity=NO_PARITY)
    return {
        "store": str(location),
        "kind": opened.kind,
        "files": len(opened.files),
        "digest": digest,
        "sites": list(names.values()),
        "rows": plan.num_valid_rows,
        "documents": len(tokens.document_ids),
        "blocks": plan.num_blocks,
        "blocks_written": len(pending),
        "dtype": plan.dtype,
        "root": manifest["root"],
        "parity": "none",
    }


def open_source(source: str | Path, *, rows_per_document: int, bits: str | None) -> ForeignSource:
    """Tell what the source is, and map it.

    Raises:
        SourceUnusable: Nothing there, or nothing of a known kind.
    """
    path = Path(source)
    if path.is_dir() and is_cache(path):
        return open_cache(path)
    files = [path] if path.is_file() else sorted(path.glob("*.npy")) or sorted(path.glob("*.safetensors"))
    if files and files[0].suffix == ".npy":
        return open_npy(files, rows_per_document=rows_per_document, bits=bits)
    if files and files[0].suffix == ".safetensors":
        return open_safetensors(files, rows_per_document=rows_per_document)
    raise SourceUnusable(
        f"{str(path)!r} is neither a .npy or .safetensors file, nor a folder of them, nor SAELens' cached activations "
        f"(a folder with state.json; of a data set with splits, name the folder of one split)."
    )


def site_names(source: ForeignSource, site: str | None, rename: Mapping[str, str]) -> dict[str, str]:
    """Site name of every array of the source.

    Raises:
        SourceUnusable: A name no site can have, one twice, or one for an array that is not there.
    """
    found = sorted(source.widths, key=_natural)
    if site is not None and len(found) > 1:
        raise SourceUnusable(f"The source holds {len(found)} arrays ({', '.join(found)}); name them by `rename`.")
    if unknown := sorted(set(rename) - set(found)):
        raise SourceUnusable(f"The source holds no array {unknown[0]!r} to rename. It has: {', '.join(found)}.")
    names = {name: site or rename.get(name, name) for name in found}
    for name, chosen in names.items():
        if not SITE_NAME.fullmatch(chosen) or chosen in RESERVED:
            raise SourceUnusable(
                f"{chosen!r} cannot be the name of a site: letters, digits, '.', '-', '_' only, and not "
                f"{', '.join(sorted(RESERVED))}. Rename {name!r}, for example to 'resid.6'."
            )
    if len(set(names.values())) < len(names):
        raise SourceUnusable(f"Two arrays would become one site: {names}. Give each its own name.")
    return names


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key in which layer 10 comes after layer 9."""
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in name.replace("_", ".").split(".")]


def _tokens(source: ForeignSource) -> TokenBatch:
    lengths = np.concatenate([part.lengths for part in source.parts])
    starts = np.append(0, np.cumsum(lengths)).astype(np.int64)
    counted = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
    tokens, positions, first = [], counted.astype(np.int32), 0
    for part in source.parts:
        here = slice(first, first := first + part.num_rows)
        tokens.append(np.full(part.num_rows, UNKNOWN_TOKEN, np.int32) if part.token_id is None else part.token_id)
        if part.position is not None:
            positions[here] = part.position
    nothing = np.zeros(len(positions), dtype=np.int32)
    return TokenBatch(
        document_ids=tuple(name for part in source.parts for name in part.documents),
        token_ids=np.concatenate(tokens),
        positions=positions,
        char_start=nothing,
        char_end=nothing,
        starts=starts,
    )


def _corpus(tokens: TokenBatch, digest: str) -> Corpus:
    documents = tuple(Document(id=name, text="") for name in tokens.document_ids)
    return Corpus(documents=documents, concepts=(), skipped=0, digest=digest)


def _model(source: ForeignSource, names: Mapping[str, str], digest: str, tokens: TokenBatch) -> ModelFacts:
    sites = tuple(SiteSpec(name=names[name], width=source.widths[name], layer=_layer(names[name])) for name in names)
    return ModelFacts(
        name="foreign",
        digest=digest,
        tokenizer_digest="none",
        family="foreign",
        num_layers=max((site.layer for site in sites if site.layer is not None), default=0),
        hidden_size=max(site.width for site in sites),
        window=int(tokens.lengths.max()),
        dtype=cast(Literal["bfloat16", "float16", "float32"], source.dtype),
        sites=sites,
    )


def _layer(site: str) -> int | None:
    """Layer of a site that keeps the store's own convention `resid.k`; other names are not interpreted."""
    kind, _, number = site.partition(".")
    return int(number) if kind == "resid" and number.isdecimal() else None


def _places(source: ForeignSource) -> list[tuple[Part, int]]:
    """Part and first row of every document."""
    return [(part, first) for part in source.parts for first in (np.cumsum(part.lengths) - part.lengths).tolist()]


def _copy_block(
    writer: BlockWriter, plan: Plan, places: Sequence[tuple[Part, int]], names: Mapping[str, str], block: int
) -> None:
    for sequence in plan.sequences_of_block(block):
        part, first = places[plan.source[sequence]]
        last, offset = first + int(plan.lengths[sequence]), int(plan.starts[sequence]) - block * plan.rows_per_block
        for name, site in names.items():
            writer.write(site, offset, _finite(np.array(part.arrays[name][first:last]), part.name, name, first))


def _finite(rows: np.ndarray, part: str, name: str, first: int) -> np.ndarray:
    """The rows, if a store can hold them.

    Raises:
        SourceUnusable: NaN or infinity, named by the first row that has one.
    """
    broken = ~np.isfinite(rows.astype(np.float32)).all(axis=1)
    if broken.any():
        raise SourceUnusable(
            f"{part}: {name!r} has values that are not finite in {int(broken.sum())} rows, the first is row "
            f"{first + int(np.flatnonzero(broken)[0])}. A store holds finite numbers only; leave those rows out."
        )
    return rows


def as_pairs(settings: Sequence[str]) -> dict[str, str]:
    """`FOUND=SITE` pairs of a command line as the mapping `rename` takes.

    Raises:
        SourceUnusable: A pair without "=".
    """
    pairs = [pair.partition("=") for pair in settings]
    if wrong := ["".join(pair) for pair in pairs if not all(pair)]:
        raise SourceUnusable(f"{wrong[0]!r} is no pair FOUND=SITE, for example blocks.5.hook_resid_post=resid.6.")
    return {name: site for name, _, site in pairs}
