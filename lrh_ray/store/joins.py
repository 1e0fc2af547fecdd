"""Several stores read as one: more sites beside the same rows, more documents after the others. Nothing is copied.

    open_store(["runs/base", "runs/more-sites"])        # one plan of rows, other sites
    open_store(["runs/base", "runs/more-documents"])    # the same sites, an epoch of blocks after the base's

Stores whose rows are the same stand side by side; stores with other rows follow in the order given. Every group of rows
must have the same sites in the end, so a base with added sites is followed by documents extracted at all of them.

What can go wrong: stores that differ in data type, block or chunk size, that share a site on the same rows, or whose
groups have different sites are `StoreConflict`.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from lrh_ray.errors import StoreConflict
from lrh_ray.records import SiteSpec
from lrh_ray.store.parts import Part
from lrh_ray.store.plan import Plan, assemble_plan
from lrh_ray.store.plan_shape import Shape

Group: TypeAlias = tuple[Part, ...]
"""Stores of the same rows; their sites are disjoint."""


def group_parts(parts: Sequence[Part]) -> tuple[Group, ...]:
    """Parts with equal rows, in the order in which their rows first appear.

    Raises:
        StoreConflict: The parts do not fit together.
    """
    groups: dict[str, list[Part]] = {}
    for part in parts:
        groups.setdefault(part.plan.rows_digest, []).append(part)
    found = tuple(map(tuple, groups.values()))
    _refuse_misfits(found)
    return found


def _refuse_misfits(groups: Sequence[Group]) -> None:
    first = groups[0][0]
    for group in groups:
        for part in group:
            wrong = [name for name in ("dtype", "rows_per_block", "chunk_rows") if _differ(first.plan, part.plan, name)]
            if wrong:
                raise StoreConflict(
                    f"{part.objects.location!r} cannot be joined with {first.objects.location!r}: they differ in "
                    f"{', '.join(wrong)}. Extract it with `store.base: {first.objects.location}`."
                )
        names = [site.name for site in _sites(group)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise StoreConflict(f"Stores of the same rows share the sites {', '.join(twice)}; leave one of them out.")
        if set(_sites(group)) != set(_sites(groups[0])):
            raise StoreConflict(
                f"{group[0].objects.location!r} has the sites {', '.join(names)}, and the stores before it have "
                f"{', '.join(site.name for site in _sites(groups[0]))}. All documents need the same sites."
            )


def _differ(one: Plan, other: Plan, name: str) -> bool:
    return bool(getattr(one, name) != getattr(other, name))


def _sites(group: Group) -> tuple[SiteSpec, ...]:
    return tuple(site for part in group for site in part.plan.sites)


def joined_plan(groups: Sequence[Group]) -> Plan:
    """One plan for all rows and sites; a single store keeps its own."""
    if len(groups) == 1 and len(groups[0]) == 1:
        return groups[0][0].plan
    plans = [group[0].plan for group in groups]
    blocks_before = np.cumsum([0, *(plan.num_blocks for plan in plans)])
    sequences_before = np.cumsum([0, *(len(plan.source) for plan in plans)])
    tables = [
        np.stack([plan.source + sequences, plan.starts + blocks * plan.rows_per_block, plan.lengths])
        for plan, sequences, blocks in zip(plans, sequences_before[:-1], blocks_before[:-1], strict=True)
    ]
    shape = Shape(
        sites=_sites(groups[0]),
        dtype=plans[0].dtype,
        rows_per_block=plans[0].rows_per_block,
        chunk_rows=plans[0].chunk_rows,
        num_blocks=int(blocks_before[-1]),
        compression=plans[0].compression,
    )
    digests = [[part.plan.digest for part in group] for group in groups]
    return assemble_plan({**plans[0].identity, "joined": digests}, shape, np.concatenate(tables, axis=1))
