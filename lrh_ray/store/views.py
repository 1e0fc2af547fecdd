"""Change how a store's bytes are named, without touching them.

`view_dtype(store, "uint16")` rewrites the metadata of every bfloat16 array so that tools without a bfloat16 type read
the raw bits; `view_dtype(store, "bfloat16")` restores it. Shards, digests and the manifest stay as they are.
"""

import contextlib
import json
from typing import Any, Literal, get_args

from lrh_ray.digests import digest_bytes
from lrh_ray.errors import PathUnusable, StoreConflict, StoreCorrupt
from lrh_ray.store.objects import Location, Objects, open_objects
from lrh_ray.store.plan import Plan, read_plan
from lrh_ray.store.seal import put_latest
from lrh_ray.store.tree import MAX_METADATA_BYTES, TREE, metadata_bytes

Names = Literal["uint16", "bfloat16"]


def view_dtype(location: Location, name: Names) -> tuple[str, ...]:
    """Name the element type of every activation array; returns the sites changed.

    Raises:
        StoreMissing: No store there.
        StoreConflict: The store does not hold bfloat16.
    """
    objects = open_objects(location)
    plan = read_plan(objects)
    if plan.dtype != "bfloat16":
        raise StoreConflict(
            f"{objects.location!r} holds {plan.dtype}, which every Zarr reader knows; only bfloat16 has two names."
        )
    if plan.compression == "pcodec8":
        raise StoreConflict(
            f"{objects.location!r} is compressed by pcodec, which knows no bfloat16: it is declared uint16 for good. "
            f"View its bits as bfloat16 after reading."
        )
    keys = {site.name: f"{TREE}/acts/{site.name}/zarr.json" for site in plan.sites}
    changed = tuple(site for site, key in keys.items() if _rename(objects, key, name))
    _rename(objects, f"{TREE}/zarr.json", name)
    return changed


def _rename(objects: Objects, key: str, name: Names) -> bool:
    found = objects.get(key)
    if found is None:
        raise StoreCorrupt(f"{objects.location!r} has lost {key}. Restore it from a copy.")
    renamed = renamed_metadata(found.data, name)
    put_latest(objects, key, renamed)
    return renamed != found.data


def renamed_metadata(data: bytes, name: Names) -> bytes:
    """Metadata of an activation array, or of the root with all arrays consolidated, under the other name."""
    metadata = json.loads(data)
    consolidated = (metadata.get("consolidated_metadata") or {}).get("metadata", {})
    arrays = [entry for key, entry in consolidated.items() if key.startswith("acts/") and "data_type" in entry]
    for entry in [metadata, *arrays] if metadata.get("node_type") == "array" else arrays:
        _rename_type(entry, name)
    return metadata_bytes(metadata)


def _rename_type(metadata: dict[str, Any], name: Names) -> None:
    if metadata["data_type"] in get_args(Names):  # a site may have a type of its own
        metadata["data_type"] = name
        metadata["fill_value"] = 0 if name == "uint16" else 0.0


def is_view_of(objects: Objects, key: str, digest: object) -> bool:
    """Is this the metadata of this digest, byte for byte, with its elements named uint16 instead of bfloat16?"""
    found = objects.get(key, 0, MAX_METADATA_BYTES)
    data = b"" if found is None else found.data
    try:
        original = renamed_metadata(data, "bfloat16")
        return digest_bytes(original) == digest and renamed_metadata(original, "uint16") == data
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return False


def name_as_planned(objects: Objects, plan: Plan) -> None:
    """Give intact metadata the name that the plan writes, so that writing the plan again finds its own bytes."""
    if plan.dtype != "bfloat16" or plan.compression == "pcodec8":
        return
    for key in (*(f"{TREE}/acts/{site.name}/zarr.json" for site in plan.sites), f"{TREE}/zarr.json"):
        with contextlib.suppress(ValueError, TypeError, AttributeError, KeyError, RecursionError, PathUnusable):
            found = objects.get(key, 0, MAX_METADATA_BYTES)
            data = b"" if found is None else found.data
            original = renamed_metadata(data, "bfloat16")
            if renamed_metadata(original, "uint16") == data:
                put_latest(objects, key, original)
