"""What a commit says of a block, in a record that is held against its types, and the keys of a block's objects.

    decode_commit(unstamp(data, key), key)     # a Commit, or StoreCorrupt
    object_key("resid.15", 7)                  # data.zarr/acts/resid.15/c/7/0

`lrh_ray.store.commits` says how a record comes to stand.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import cast

from lrh_ray.errors import StoreCorrupt
from lrh_ray.records import Plain
from lrh_ray.store.fields import INTEGER_OR_NONE, NUMBER, Types, require_fields, require_values
from lrh_ray.store.stamps import stamped

FOLDER_SIZE = 1000
STATISTICS = "statistics"
STAGED_KEY = re.compile(r"staging/(\d{8})\.([0-9a-f]{1,32})\.(.+)")
ATTEMPT = re.compile(r"[0-9a-f]{1,32}")
COMMIT_FIELDS: Mapping[str, Types] = {
    "block": int,
    "attempt": str,
    "valid_rows": int,
    "objects": dict,
    "nonfinite": dict,
    "overflow": dict,
    "seconds": NUMBER,
    "worker": str,
    "software": dict,
}
OBJECT_FIELDS: Mapping[str, Types] = {"num_bytes": int, "digest": str, "index_crc32c": INTEGER_OR_NONE}


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredObject:
    """One published file of a block: a site's shard, or the block's statistics (which have no index)."""

    num_bytes: int
    digest: str
    index_crc32c: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Commit:
    """The record of one block. `objects` maps each site, and "statistics", to its file."""

    block: int
    attempt: str
    valid_rows: int
    objects: Mapping[str, StoredObject]
    nonfinite: Mapping[str, int]
    overflow: Mapping[str, int]
    seconds: float
    worker: str
    software: Mapping[str, str]


def record_key(block: int) -> str:
    return f"commits/{block // FOLDER_SIZE:05d}/{block:08d}.json"


def object_key(name: str, block: int) -> str:
    """Final key of a block's object: a site's shard, or the statistics."""
    if name == STATISTICS:
        return f"{STATISTICS}/{block // FOLDER_SIZE:05d}/{block:08d}.safetensors"
    return f"data.zarr/acts/{name}/c/{block}/0"


def staged_key(block: int, attempt: str, name: str) -> str:
    return f"staging/{block:08d}.{attempt}.{name}"


def encode_commit(commit: Commit) -> bytes:
    return stamped({**asdict(commit), "state": "committed"})


def decode_commit(record: Mapping[str, Plain], key: str) -> Commit:
    """A commit from its record.

    Raises:
        StoreCorrupt: The record lacks what a commit has.
    """
    facts = {name: value for name, value in record.items() if name != "state"}
    _require_types(facts, key)
    try:
        entries = cast(Mapping[str, Mapping[str, object]], facts["objects"])
        objects = {name: StoredObject(**entry) for name, entry in entries.items()}  # type: ignore[arg-type]
        return Commit(**{**facts, "objects": objects})  # type: ignore[arg-type]
    except (TypeError, KeyError, AttributeError) as error:
        raise StoreCorrupt(f"{key} is no commit record ({error}). `lrh verify STORE --repair` drops it.") from error


def _require_types(facts: Mapping[str, Plain], key: str) -> None:
    require_fields(facts, COMMIT_FIELDS, key)
    for name, kind in (("nonfinite", int), ("overflow", int), ("software", str), ("objects", dict)):
        require_values(facts[name], kind, f"{name} in {key}")
    for name, entry in cast(Mapping[str, object], facts["objects"]).items():
        require_fields(entry, OBJECT_FIELDS, f"{name!r} in {key}")
    if not ATTEMPT.fullmatch(str(facts["attempt"])):
        raise StoreCorrupt(f"{key} names an attempt {str(facts['attempt'])[:80]!r}, which is none.")
