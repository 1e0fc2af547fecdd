"""Twins: the control store of a run, row for row the same tokens, from a model that was never trained.

A probe that reads a property from an untrained model of the same shape has found it in the text, not in what the model
learned. The comparison is fair only if nothing else differs: so the twin takes over the run's plan (documents, order,
blocks, rows, sites, number format) and replaces the weights alone. Row i of both stores is the same token.

    lrh extract run.yaml             # runs/demo/store
    lrh extract run.yaml --twin      # runs/demo-twin/store

The twin's identity names the plan it copies (`twin_of`); `rows_digest` of both plans is equal, their roots differ. The
twin can be written before its original or after it. It resumes as any extraction does.

What can go wrong: a run whose own weights are those of the twin has no twin; the twin of a store that grows another one
(`store.base`) is not supported, because it would have to grow that store's twin: extract a run of its own instead. Both
are `ConfigError`s. An original that was written by another plan than today's configuration is a `StoreConflict`.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from lrh_ray.errors import ConfigError, StoreConflict, StoreMissing
from lrh_ray.models.checkpoints import checkpoint_digest
from lrh_ray.records import ModelFacts, Plain
from lrh_ray.runtime.cluster import EMBEDDED
from lrh_ray.store.objects import open_objects
from lrh_ray.store.origin import TWIN_OF
from lrh_ray.store.plan import Plan, assemble_plan, read_plan
from lrh_ray.store.plan_shape import Shape
from lrh_ray.store.reader import Store, open_store
from lrh_ray.studies.extraction import Planned, extract_planned, plan_run
from lrh_ray.studies.progress import Progress, Silent
from lrh_ray.studies.run import RunConfig
from lrh_ray.studies.weights import find_checkpoint

SUFFIX = "-twin"


def extract_twin(
    config: RunConfig,
    *,
    folder: Path,
    address: str = EMBEDDED,
    allow_missing: bool = False,
    progress: Progress | None = None,
) -> dict[str, Plain]:
    """Write the control store of the run `config` beside it, or finish it; returns facts about it.

    Raises:
        ConfigError: The run has no twin.
        StoreConflict: The run's own store, or what stands at the twin's place, is of another plan.
        Everything that `extract` raises.
    """
    twin, progress = twin_config(config), progress or Silent()
    planned = plan_twin(config, plan_run(config, folder=folder, progress=progress))
    return extract_planned(twin, planned, address=address, allow_missing=allow_missing, progress=progress)


def standing_twin(config: RunConfig, store: Store) -> Store | None:
    """The run's control store, if there is a sealed one with these weights and the same documents."""
    if config.model.weights == config.twin.weights or config.store.base is not None:
        return None
    try:
        twin = open_store(twin_config(config).store_location)
    except StoreMissing:
        return None
    model = cast(Mapping[str, str], twin.plan.identity["model"])
    same = model["name"].endswith(config.twin.weights) and twin.document_ids == store.document_ids
    return twin if twin.sealed and same else None


def twin_config(config: RunConfig) -> RunConfig:
    """The configuration of the twin, as it is saved in its store.

    Raises:
        ConfigError: The run has no twin.
    """
    if config.model.weights == config.twin.weights:
        raise ConfigError(
            f"The run {config.name!r} has the weights {config.model.weights!r}, the very ones of its twin; set "
            "twin.weights to another seed."
        )
    if config.store.base is not None:
        raise ConfigError(
            f"The run {config.name!r} grows the store {config.store.base!r}; twins of such stores are not supported. "
            "Extract the whole corpus into a run of its own, and its twin."
        )
    location = config.store.location
    return replace(
        config,
        name=config.name + SUFFIX,
        model=replace(config.model, weights=config.twin.weights),
        store=replace(config.store, location=None if location is None else location.rstrip("/") + SUFFIX),
    )


def plan_twin(config: RunConfig, original: Planned) -> Planned:
    """The original's plan with other weights; the original's store, where one stands, must be of its plan."""
    _refuse_other_original(config, original.plan)
    checkpoint = find_checkpoint(replace(config.model, weights=config.twin.weights))
    facts = replace(original.model, name=checkpoint.name, digest=checkpoint_digest(checkpoint))
    return replace(original, plan=_same_rows(original.plan, facts), model=facts, checkpoint=checkpoint)


def _same_rows(original: Plan, model: ModelFacts) -> Plan:
    identity: dict[str, Plain] = {
        **original.identity,
        "model": {"name": model.name, "digest": model.digest, "family": model.family, "layers": model.num_layers},
        TWIN_OF: original.digest,
    }
    shape = Shape(**{name: getattr(original, name) for name in Shape.__slots__})
    return assemble_plan(identity, shape, np.stack([original.source, original.starts, original.lengths]))


def _refuse_other_original(config: RunConfig, plan: Plan) -> None:
    try:
        standing = read_plan(open_objects(config.store_location)).digest
    except StoreMissing:
        return
    if standing != plan.digest:
        raise StoreConflict(
            f"The store {str(config.store_location)!r} was written by plan {standing}; this configuration plans "
            f"{plan.digest}, so its twin would have other rows. Give the configuration that wrote the store."
        )
