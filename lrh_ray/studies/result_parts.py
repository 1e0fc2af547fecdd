"""What results of every study share: which store was read, how sure its rows are, and what the run was made with."""

import platform
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Protocol, cast, runtime_checkable

from lrh_ray.records import Measure, Plain, Scalar, Table
from lrh_ray.store.reader import Store

PACKAGES = ("lrh-ray", "numpy", "scipy", "ray", "zarr", "torch", "transformers")


@runtime_checkable
class Bounded(Protocol):
    """A number with its interval, if it has one."""

    @property
    def value(self) -> float: ...

    @property
    def low(self) -> float | None: ...

    @property
    def high(self) -> float | None: ...


def with_interval(found: Bounded) -> str:
    """A number with its interval, as it stands in a sentence."""
    value, *ends = (
        None if end is None else f"{round(end, 3) + 0.0:.3f}" for end in (found.value, found.low, found.high)
    )
    return f"{value}" if None in ends else f"{value} [{', '.join(map(str, ends))}]"


def bounded_measure(
    name: str,
    found: Bounded,
    unit: str,
    keys: Mapping[str, str | int | float],
    controls: Mapping[str, float],
) -> Measure:
    """A measure of a number with its interval."""
    return Measure(
        name=name, value=found.value, unit=unit, keys=keys, low=found.low, high=found.high, controls=controls
    )


def store_table(store: Store) -> Table:
    """The activations that were read; the store is sealed."""
    plan, manifest = store.plan, store.manifest or {}
    model = cast(Mapping[str, Plain], plan.identity["model"])
    rows: list[tuple[Scalar, ...]] = [
        ("model", str(model["name"])),
        ("family", str(model["family"])),
        ("blocks of the model", cast(int, model["layers"])),
        ("rows (tokens)", plan.num_valid_rows),
        ("documents", len(set(store.document_ids))),
        ("sites", len(store.sites)),
        ("data type", plan.dtype),
        ("bytes", cast(int, manifest["bytes"])),
        ("blocks of the store", plan.num_blocks),
        ("root digest", store.root),
    ]
    return Table(
        name="store", description="The activations that were read.", columns=("fact", "value"), rows=tuple(rows)
    )


def parity_table(store: Store) -> Table:
    """The store's certificate."""
    parity = cast(Mapping[str, Plain], (store.manifest or {})["parity"])
    sites = cast(Sequence[Mapping[str, Scalar]], parity.get("sites", ()))
    return Table(
        name="parity",
        description="Relative error of stored rows against a plain float32 forward, per row.",
        columns=("site", "p50", "p99", "maximum", "rows", "passed"),
        rows=tuple(tuple(site[name] for name in ("site", "p50", "p99", "maximum", "rows", "passed")) for site in sites),
    )


def site_keys(store: Store, site: str) -> dict[str, str | int | float]:
    """Where a number was found: the site, and its layer if it has one."""
    layer = store.plan.site(site).layer
    return {"site": site} if layer is None else {"site": site, "layer": layer}


def provenance(store: Store, seconds: float) -> dict[str, Plain]:
    """Command, versions and identity of the store: enough to make the result again."""
    identity = {key: value for key, value in store.plan.identity.items() if key != "index_convention"}
    return {
        **software(seconds),
        "plan": store.plan.digest,
        "store": identity,
        "index_convention": store.plan.identity["index_convention"],
    }


def software(seconds: float) -> dict[str, Plain]:
    """Command and versions."""
    return {
        "seconds": seconds,
        "command": "lrh " + " ".join(sys.argv[1:]),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
