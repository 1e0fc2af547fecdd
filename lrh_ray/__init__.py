"""lrh_ray: find out what large language models represent.

Text becomes tokens, tokens become activations, activations become rows of a Zarr store, and every question about a
model is one distributed pass, or one training run, over those rows.

    import lrh_ray
    store = lrh_ray.open_store("runs/demo")
    rows = store.rows("resid.15", sinks="drop")
    result = lrh_ray.load_result("runs/demo/results/...")
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lrh_ray.artifacts import load_result as load_result
    from lrh_ray.errors import LrhError as LrhError
    from lrh_ray.records import Result as Result
    from lrh_ray.store.loader import Loader as Loader
    from lrh_ray.store.reader import Store as Store
    from lrh_ray.store.reader import open_store as open_store

_HOMES = {
    "open_store": "lrh_ray.store.reader",
    "Store": "lrh_ray.store.reader",
    "Loader": "lrh_ray.store.loader",
    "load_result": "lrh_ray.artifacts",
    "Result": "lrh_ray.records",
    "LrhError": "lrh_ray.errors",
}
__all__ = ["Loader", "LrhError", "Result", "Store", "load_result", "open_store"]


def __getattr__(name: str) -> Any:
    """Public names, imported when first used: `import lrh_ray` loads neither torch nor Ray."""
    if name not in _HOMES:
        raise AttributeError(f"module 'lrh_ray' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
