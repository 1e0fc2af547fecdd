"""Change how a store's bytes are named, without touching them.

`view_dtype(store, "uint16")` rewrites the metadata of every bfloat16 array so that tools without a bfloat16 type read
the raw bits; `view_dtype(store, "bfloat16")` restores it. Shards, digests and the manifest stay as they are.
"""

import json
from pathlib import Path
from typing import Any, Literal

from lrh_ray.durable import write_durably
from lrh_ray.errors import StoreConflict
from lrh_ray.store.plan import read_plan

Names = Literal["uint16", "bfloat16"]


def view_dtype(root: Path, name: Names) -> tuple[str, ...]:
    """Name the element type of every activation array; returns the sites changed.

    Raises:
        StoreMissing: No store there.
        StoreConflict: The store does not hold bfloat16.
    """
    plan = read_plan(root)
    if plan.dtype != "bfloat16":
        raise StoreConflict(
            f"{str(root)!r} holds {plan.dtype}, which every Zarr reader knows; only bfloat16 has two names."
        )
    changed = tuple(site.name for site in plan.sites if _rename_array(root, site.name, name))
    _rename_consolidated(root / "data.zarr" / "zarr.json", [f"acts/{site.name}" for site in plan.sites], name)
    return changed


def _rename_array(root: Path, site: str, name: Names) -> bool:
    path = root / "data.zarr" / "acts" / site / "zarr.json"
    metadata = json.loads(path.read_bytes())
    if metadata["data_type"] == name:
        return False
    _rename(metadata, name)
    _replace(path, metadata)
    return True


def _rename_consolidated(path: Path, arrays: list[str], name: Names) -> None:
    metadata = json.loads(path.read_bytes())
    entries = (metadata.get("consolidated_metadata") or {}).get("metadata", {})
    for array in arrays:
        if array in entries:
            _rename(entries[array], name)
    _replace(path, metadata)


def _rename(metadata: dict[str, Any], name: Names) -> None:
    metadata["data_type"] = name
    metadata["fill_value"] = 0 if name == "uint16" else 0.0


def _replace(path: Path, metadata: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    write_durably(temporary, json.dumps(metadata, indent=2).encode())
    temporary.replace(path)
