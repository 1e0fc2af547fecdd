"""Sparse autoencoders of a store: trained on shuffled rows of all its documents but some, and measured on those.

    lrh extract CONFIG
    lrh sae CONFIG

Statistics come first: one pass gives the exact mean and scale of each site over the training documents. Training then
reads shuffled rows once for all kinds of all sites, transcoders and crosscoders among them (`sae_map_config`). At last
BatchTopK kinds get the threshold that is exact for the training rows, and every autoencoder is measured on the held-out
documents, beside its own first weights and beside as many principal components as it has codes a row; with sinks left
out, and with all rows beside it. Of each some latents are shown with what they fire on.

What can go wrong: a store that is not sealed, a site that it does not have, fewer held-out documents than groups.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar, cast

import numpy as np

from lrh_ray.artifacts import save_result, standing_result
from lrh_ray.config import as_plain
from lrh_ray.errors import NotEnoughData, SiteError
from lrh_ray.records import Plain, Result
from lrh_ray.runtime.cluster import EMBEDDED, connected
from lrh_ray.runtime.reduce import reduce_blocks, sample
from lrh_ray.runtime.sizing import require_room
from lrh_ray.store.objects import absolute
from lrh_ray.store.reader import Store, open_sealed
from lrh_ray.studies.progress import Progress, Silent
from lrh_ray.studies.run import RunConfig
from lrh_ray.studies.sae_config import SaeConfig
from lrh_ray.studies.sae_latent_table import SiteLatents
from lrh_ray.studies.sae_latents import find_passages, shown_latents
from lrh_ray.studies.sae_map_config import SiteMap, site_maps
from lrh_ray.studies.sae_map_rows import left_by_components, map_rows
from lrh_ray.studies.sae_maps import SiteUnit
from lrh_ray.studies.sae_measuring import MapMeasurement
from lrh_ray.studies.sae_passes import (
    TRAINING,
    LeftOutPass,
    SaeRows,
    UnitPass,
)
from lrh_ray.studies.sae_records import MapRows, Measured, SiteRows
from lrh_ray.studies.sae_result import make_sae_result
from lrh_ray.studies.sae_sharing import latent_parts
from lrh_ray.studies.sae_splicing import SpliceTask, held_out_documents
from lrh_ray.studies.sae_training import SaeTask, load_curves, load_recall, train_autoencoders
from lrh_ray.studies.weights import find_checkpoint

T = TypeVar("T")


def autoencoders(config: RunConfig, *, address: str = EMBEDDED, progress: Progress | None = None) -> Path:
    """Train, measure, and save the result; returns its folder, at once if the question was answered before.

    Raises:
        StoreIncomplete: The store is not sealed.
        SiteError: A site that the store does not have.
        ClusterError: The cluster cannot hold the workers, and they shall not wait.
        NotEnoughData: Too few documents or rows, or rows that are not finite.
    """
    progress, started = progress or Silent(), time.monotonic()
    store = open_sealed(config.store_location)
    question = _question(store, config)
    if standing := standing_result(question, config.results_path):
        return standing
    rows = dealt_rows(config.sae, store)
    maps = store_maps(config.sae, store)
    sites = tuple(dict.fromkeys(site for one in maps for site in one.sites))
    with connected(address) as cluster:
        require_room(config.sae.workers, cluster.nodes)
        left_out = reduce_blocks(range(store.plan.num_blocks), LeftOutPass(rows=rows))
        found = {site: _site_rows(rows, site) for site in _watched(sites, progress, "sums of rows")}
        _require_batch(found, config.sae)
        ends = {one.name: map_rows(rows, one, found) for one in _watched(maps, progress, "linear maps of rows")}
        task = SaeTask(
            location=rows.location,
            root=rows.root,
            config=config.sae,
            units={site: one.unit for site, one in found.items()},
            documents=training_documents(store, rows),
            parts=latent_parts(config.sae, maps, {site: len(one.unit.centre) for site, one in found.items()}),
        )
        checkpoints = train_autoencoders(task, folder=config.folder / "training", progress=progress)
        progress.begin("measuring autoencoders", len(maps), "maps")
        measured: list[Measured] = []
        for one in ends.values():
            measured += MapMeasurement(config=config.sae, rows=rows, found=one).measured(checkpoints)
            progress.advance(1)
        losses = _spliced(config, store, rows, measured, ends, progress)
        latents = _latents(config.sae, rows, measured, ends, progress)
    last = checkpoints[config.sae.steps]
    curves, recall = load_curves(last), load_recall(last)
    seconds = round(time.monotonic() - started, 1)
    return save_result(
        make_sae_result(
            question, store, task, found, left_out, ends, measured, losses, curves, recall, latents, seconds
        ),
        config.results_path,
    )


def _spliced(
    config: RunConfig,
    store: Store,
    rows: SaeRows,
    measured: Sequence[Measured],
    found: Mapping[str, MapRows],
    progress: Progress,
) -> Mapping[str, np.ndarray]:
    """Losses with reconstructions in place of rows, by map, of the trained and then of their first weights; of none
    where none are asked for.
    """
    if not config.sae.splice_documents:
        return {}
    of_map = {name: [one for one in measured if one.site == name] for name in found}
    readers = {
        name: (*(one.reader for one in own), *(one.untrained_reader for one in own)) for name, own in of_map.items()
    }
    task = SpliceTask(
        checkpoint=find_checkpoint(config.model, progress),
        model=config.model,
        digest=str(cast(Mapping[str, Plain], store.plan.identity["model"])["digest"]),
        rows=rows,
        documents=held_out_documents(
            rows, store.document_ids, store.plan.lengths, config.sae.splice_documents, seed=config.sae.seed
        ),
        readers=readers,
        centres={name: one.unit.written_centre for name, one in found.items()},
        maps={name: one.ends for name, one in found.items()},
    )
    progress.begin("splicing reconstructions into the model", len(readers), "maps")
    losses = dict(zip(readers, sample(tuple(readers), task), strict=True))
    progress.advance(len(readers))
    return losses


def _latents(
    config: SaeConfig,
    rows: SaeRows,
    measured: Sequence[Measured],
    ends: Mapping[str, MapRows],
    progress: Progress,
) -> list[SiteLatents]:
    """What some latents of every autoencoder fire on, by map; of none where none are asked for."""
    found: list[SiteLatents] = []
    for one in _watched(list(ends.values()) if config.shown_latents else [], progress, "reading what latents fire on"):
        own = [each for each in measured if each.site == one.name]
        chosen = (shown_latents(each.name, each.reader, each.held_out, num=config.shown_latents) for each in own)
        shown = tuple(each for each in chosen if len(each.latents))
        passages = find_passages(rows, one.ends.reads, shown, seed=config.seed) if shown else ()
        found.append(SiteLatents(site=one.name, shown=shown, passages=passages))
    return found


def _require_batch(found: Mapping[str, SiteRows], config: SaeConfig) -> None:
    num = min(one.training_rows for one in found.values())
    if num < config.batch_rows:
        raise NotEnoughData(
            f"{num} rows of training documents do not fill a batch of {config.batch_rows}. Lower sae.batch_rows, or "
            f"add documents."
        )


def _watched(each: Sequence[T], progress: Progress, what: str) -> Iterator[T]:
    progress.begin(what, len(each), "passes")
    for one in each:
        yield one
        progress.advance(1)


def _question(store: Store, config: RunConfig) -> Result:
    maps = store_maps(config.sae, store)
    resolved: dict[str, Plain] = {
        **as_plain(config.sae),
        "kinds": [as_plain(kind) for kind in config.sae.settled],
        "sites": [one.name for one in maps if one.alone],
        "maps": [one.described() for one in maps if not one.alone],
        "rows": "of text, in statistics, training and evaluation alike",
        "interval": "95 %, jackknife over groups of held-out documents",
    }
    del resolved["workers"], resolved["latent_parts"]
    return Result(
        kind="sae",
        title=f"Sparse autoencoders of {config.name}",
        summary=(),
        asked=as_plain(config),
        resolved=resolved,
        inputs={"store": store.root},
        measures=(),
    )


def store_maps(config: SaeConfig, store: Store) -> tuple[SiteMap, ...]:
    """What is trained on, with every site known to the store.

    Raises:
        SiteError: A site that the store does not have.
    """
    maps = site_maps(config.sites, config.maps, store.sites)
    for one in maps:
        for site in one.sites:
            if site not in store.sites:
                setting = "sae.sites" if site in config.sites else "sae.maps"
                raise SiteError(f"{setting} names {site!r}; the store has {', '.join(store.sites)}.")
    return maps


def dealt_rows(config: SaeConfig, store: Store) -> SaeRows:
    """Whole documents are held out, dealt to groups in a random order.

    Raises:
        NotEnoughData: Too few documents.
    """
    group = dealt_groups(config, store)
    return SaeRows(location=absolute(store.location), root=store.root, group=group, sinks=config.sinks)


def dealt_groups(config: SaeConfig, store: Store) -> np.ndarray:
    """`TRAINING` or a group of held-out documents [sequences].

    Raises:
        NotEnoughData: Too few documents.
    """
    ids, document = np.unique(np.array(store.document_ids), return_inverse=True)
    num = round(config.held_out * len(ids))
    if num < config.groups or num == len(ids):
        raise NotEnoughData(
            f"Of {len(ids)} documents {num} are held out, for {config.groups} groups, and the others train. Raise "
            f"sae.held_out, lower sae.groups, or add documents."
        )
    order = np.random.default_rng([config.seed, 0]).permutation(len(ids))
    group = np.full(len(ids), TRAINING)
    group[order[:num]] = np.arange(num) % config.groups
    return np.asarray(group[document])


def training_documents(store: Store, rows: SaeRows) -> tuple[str, ...]:
    training = np.flatnonzero(rows.group == TRAINING)
    return tuple(sorted({store.document_ids[sequence] for sequence in training.tolist()}))


def _site_rows(rows: SaeRows, site: str) -> SiteRows:
    """Mean, scale and directions of the training rows; variance of the held-out rows along these."""
    store = rows.store()
    shift = store.block_rows(site, 0).astype(np.float64).mean(axis=0)
    moments = reduce_blocks(range(store.plan.num_blocks), UnitPass(rows=rows, site=site, shift=shift))
    try:
        training, held_out = moments.only(0), moments.only(1)
    except NotEnoughData as error:
        raise NotEnoughData(f"Site {site!r}: {error}") from error
    scale = float(np.sqrt(np.trace(training.xx)))
    if not scale > 0:
        raise NotEnoughData(f"All training rows at {site!r} are the same; leave the site out of sae.sites.")
    return SiteRows(
        unit=SiteUnit(centre=training.mean_x / scale, scale=scale),
        training_rows=int(training.count),
        held_out_rows=int(held_out.count),
        explained=left_by_components(training, held_out),
        covariance=training.xx / scale**2,
    )
