"""JSON records that know their own digest, so that a changed byte is found without a second copy.

Every JSON object of a store is canonical JSON with a last entry of its own: `stamp`, the digest of the record without
it. A stamp finds damage, not forgery: whoever rewrites a record can rewrite its stamp. What binds records to one
another is the digests they quote (plan, files, root).
"""

import json
from collections.abc import Mapping

from lrh_ray.digests import canonical_json, digest_json
from lrh_ray.errors import StoreCorrupt
from lrh_ray.records import Plain
from lrh_ray.store.objects import Objects

STAMP = "stamp"
MAX_BYTES = 16 << 20


def stamped(record: Mapping[str, object]) -> bytes:
    """The bytes of a record with its stamp."""
    return canonical_json({**record, STAMP: digest_json(record)})


def unstamp(data: bytes, key: str) -> dict[str, Plain]:
    """The record in `data`, its stamp checked and removed.

    Raises:
        StoreCorrupt: Not JSON, no object, or another digest than its stamp.
    """
    try:
        record = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise StoreCorrupt(f"{key} is not JSON ({error}). `lrh verify STORE` tells what else is damaged.") from error
    stamp = record.pop(STAMP, None) if isinstance(record, dict) else None
    if stamp is None or stamp != digest_json(record) or canonical_json({**record, STAMP: stamp}) != data:
        raise StoreCorrupt(f"{key} does not match its stamp: it was damaged or edited. `lrh verify STORE` tells more.")
    return dict(record)


def read_record(objects: Objects, key: str) -> dict[str, Plain] | None:
    """A stamped record by key, or None.

    Raises:
        StoreCorrupt: It is damaged, or larger than any record of a store.
    """
    found = objects.get(key, 0, MAX_BYTES + 1)
    if found is None:
        return None
    if found.num_bytes > MAX_BYTES:
        raise StoreCorrupt(f"{key} has {found.num_bytes} bytes; records of a store have at most {MAX_BYTES}.")
    return unstamp(found.data, key)
