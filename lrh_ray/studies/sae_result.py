"""From sums to a `Result`: how well each autoencoder explains its site, beside what it must be read against."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from lrh_ray.analyses.jackknife import Estimate
from lrh_ray.analyses.row_counts import RowCounts
from lrh_ray.analyses.sae.architectures.architecture import Architecture
from lrh_ray.analyses.sae.evaluation import Reconstruction
from lrh_ray.analyses.sae.reader import ThresholdReader, TopKReader
from lrh_ray.records import Measure, Result, Scalar, Table
from lrh_ray.store.reader import Store
from lrh_ray.studies.result_parts import (
    bounded_measure,
    parity_table,
    provenance,
    site_keys,
    store_table,
    with_interval,
)
from lrh_ray.studies.sae_config import SaeConfig
from lrh_ray.studies.sae_latent_table import SiteLatents, latents_arrays, latents_table
from lrh_ray.studies.sae_map_result import measures_of_sites, summary_of_sites, tables_of_maps
from lrh_ray.studies.sae_recall_result import recall_measures, recall_table
from lrh_ray.studies.sae_records import MapRows, Measured, SiteRows
from lrh_ray.studies.sae_splice_result import splice_measures
from lrh_ray.studies.sae_training import CURVE_POINTS, FACTS, SaeTask

DENSE = "every latent says something of every row: codes and dead latents mean nothing here"


def make_sae_result(
    question: Result,
    store: Store,
    task: SaeTask,
    sites: Mapping[str, SiteRows],
    left_out: RowCounts,
    maps: Mapping[str, MapRows],
    measured: Sequence[Measured],
    losses: Mapping[str, np.ndarray],
    curves: np.ndarray,
    recall: np.ndarray,
    latents: Sequence[SiteLatents],
    seconds: float,
) -> Result:
    """Assemble the answer to `question`; `losses` and `latents` are those of every map or of none."""
    config, curves = task.config, _that_mean_something(measured, curves)
    measures = (
        *_measures(store, maps, measured),
        *measures_of_sites(store, maps, measured),
        *_spliced(store, maps, measured, losses),
        *recall_measures({one.name: _keys(store, one) for one in maps.values()}, measured, config, recall),
    )
    return replace(
        question,
        summary=(*_summary(measures, maps), *summary_of_sites(maps, measured)),
        measures=measures,
        tables=(
            _comparison(measured, maps),
            *tables_of_maps(maps, measured),
            _density_table(measured),
            _curve_table(measured, config, curves),
            *([recall_table(measured, task.recalled, recall)] if task.recalled else []),
            _rows_table(sites, left_out),
            *([latents_table(store, latents, config.shown_latents)] if latents else []),
            store_table(store),
            parity_table(store),
        ),
        arrays={**dict(_arrays(sites, measured, curves)), **(latents_arrays(latents) if latents else {})},
        provenance=provenance(store, seconds),
    )


def _measures(store: Store, maps: Mapping[str, MapRows], measured: Sequence[Measured]) -> Iterator[Measure]:
    for one in measured:
        rows = maps[one.site]
        keys = {**_keys(store, rows), "autoencoder": one.name}
        found, l0 = one.held_out.fvu(), one.held_out.l0()
        controls = _beside(one, Reconstruction.fvu)
        if one.sparse:
            controls[rows.yardstick.control] = rows.left_by_components(l0.value)
        if rows.ends.transcodes:
            controls["linear"] = float(rows.explained[-1])
        yield bounded_measure("fvu", found, "of variance", keys, controls)
        yield bounded_measure("cosine", one.held_out.cosine(), "", keys, _beside(one, Reconstruction.cosine))
        if one.sparse:
            yield bounded_measure("l0", l0, "codes a row", keys, _beside(one, Reconstruction.l0))
            prior = {} if one.expected_dead is None else {"prior": one.expected_dead}
            dead = {**_beside(one, Reconstruction.dead), **prior}
            yield bounded_measure("dead", one.held_out.dead(), "of latents", keys, dead)


def _beside(one: Measured, number: Callable[[Reconstruction], Estimate]) -> dict[str, float]:
    """The same number with the first weights, and with sinks among the rows."""
    return {"untrained": number(one.untrained).value, "unfiltered": number(one.unfiltered).value}


def _keys(store: Store, one: MapRows) -> dict[str, str | int | float]:
    """Where a number was found: the site and its layer, or the map."""
    return site_keys(store, one.name) if one.ends.alone else {"site": one.name}


def _spliced(
    store: Store, maps: Mapping[str, MapRows], measured: Sequence[Measured], losses: Mapping[str, np.ndarray]
) -> Iterator[Measure]:
    for site, of_site in losses.items():
        yield from splice_measures(
            _keys(store, maps[site]), [one.name for one in measured if one.site == site], of_site
        )


def _that_mean_something(measured: Sequence[Measured], curves: np.ndarray) -> np.ndarray:
    """Curves [autoencoders, points, facts] without the codes and dead latents of autoencoders that have no zeros."""
    dense = np.array([not one.sparse for one in measured], dtype=bool)
    counts = np.isin(FACTS, ("l0", "dead"))
    return np.where(dense[:, None, None] & counts, np.nan, curves)


def _summary(measures: Sequence[Measure], maps: Mapping[str, MapRows]) -> Iterator[str]:
    """The best of each site among those that beat principal components, as many as codes; variance alone is cheap."""
    for site, rows in maps.items():
        judge = rows.yardstick
        own = [m for m in measures if m.name == "fvu" and m.keys["site"] == site]
        codes = {m.keys["autoencoder"]: m.value for m in measures if m.name == "l0" and m.keys["site"] == site}
        judged = [m for m in own if judge.control in m.controls]
        ahead = [m for m in judged if m.value < m.controls[judge.control]]
        if ahead:
            best = min(ahead, key=lambda m: m.value)
            name = best.keys["autoencoder"]
            full = f", one of full rank {best.controls['linear']:.3f}" if "linear" in best.controls else ""
            yield (
                f"At {site}, {name} leaves {with_interval(best)} of the held-out variance with {codes[name]:.1f} codes "
                f"a row; {judge.leaves} {best.controls[judge.control]:.3f}{full}, its first weights "
                f"{best.controls['untrained']:.3f}."
            )
        behind = [str(m.keys["autoencoder"]) for m in judged if m not in ahead]
        if behind:
            yield f"At {site}, no better than {judge.words}: {', '.join(behind)}."
        apart = [str(m.keys["autoencoder"]) for m in own if m not in judged]
        if apart:
            yield f"At {site}, not held against {judge.words}: {', '.join(apart)}; {DENSE}."


def _comparison(measured: Sequence[Measured], maps: Mapping[str, MapRows]) -> Table:
    rows: list[tuple[Scalar, ...]] = []
    for one in measured:
        l0 = one.held_out.l0().value
        told: tuple[Scalar, ...] = (round(l0, 1), round(one.held_out.dead().value, 4)) if one.sparse else (None, None)
        left = round(maps[one.site].left_by_components(l0), 4) if one.sparse else None
        fvu, unfiltered = one.held_out.fvu().value, one.unfiltered.fvu().value
        rows.append((one.site, one.name, *told, round(fvu, 4), left, round(unfiltered, 4)))
    return Table(
        name="comparison",
        description="Held-out rows: codes of a row, latents that never fire, variance left unexplained; the same by as "
        "many principal components as codes, or by a linear map of that rank; and with attention sinks among the rows. "
        "A dash: " + DENSE + ".",
        columns=("site", "autoencoder", "codes a row", "dead", "FVU", "FVU of components", "FVU with sinks"),
        rows=tuple(rows),
    )


def _density_table(measured: Sequence[Measured]) -> Table:
    edges = [0, *(10.0**power for power in range(-5, 0)), 0.5, 1.0]
    rows: list[tuple[Scalar, ...]] = []
    for one in measured:
        if one.sparse:
            density = one.held_out.density
            counts, _ = np.histogram(density[density > 0], bins=[1e-12, *edges[1:]])
            rows.append((one.site, one.name, int((density == 0).sum()), *map(int, counts)))
    return Table(
        name="density",
        description="How many latents fire in which share of held-out rows.",
        columns=("site", "autoencoder", "never", *(f"up to {edge:g}" for edge in edges[1:])),
        rows=tuple(rows),
    )


def _curve_table(measured: Sequence[Measured], config: SaeConfig, curves: np.ndarray) -> Table:
    """Ten points of every curve."""
    every = -(-config.steps // CURVE_POINTS)
    points = sorted({*np.linspace(0, curves.shape[1] - 1, 10).round().astype(int).tolist()})
    rows = [
        (one.site, one.name, point * every, *map(_short, curves[number, point].tolist()))
        for number, one in enumerate(measured)
        for point in points
    ]
    return Table(
        name="training",
        description="Batches in the course of training: squared error of a row (1: nothing is explained), penalty, "
        "codes of a row, dead latents. All points are in the array `training`.",
        columns=("site", "autoencoder", "step", *FACTS),
        rows=tuple(rows),
    )


def _short(value: float) -> float | None:
    return None if np.isnan(value) else float(f"{value:.4g}")


def _rows_table(sites: Mapping[str, SiteRows], left_out: RowCounts) -> Table:
    """The rows that numbers are of, and those that are in none; which these are does not depend on the site."""
    sinks, without_text = (left_out.counts[name].tolist() for name in ("sinks", "without text"))
    return Table(
        name="rows",
        description="Rows of documents trained on and held out, and the scale that training divides rows by. Not among "
        "them: attention sinks, unless they are kept (measures have the control `unfiltered` of all rows), and tokens "
        "that stand for no text, of both.",
        columns=("site", "training rows", "held-out rows", "training sinks", "held-out sinks", "no text", "scale"),
        rows=tuple(
            (site, one.training_rows, one.held_out_rows, *sinks, sum(without_text), float(f"{one.unit.scale:.5g}"))
            for site, one in sites.items()
        ),
    )


def _arrays(
    sites: Mapping[str, SiteRows], measured: Sequence[Measured], curves: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    yield "training", curves
    for site, rows in sites.items():
        yield f"{site}/principal_components", rows.explained
    for one in measured:
        prefix = f"{one.site}/{one.name}"
        reader = one.reader
        if isinstance(reader, Architecture | TopKReader | ThresholdReader):
            for name, tensor in reader.parameters.items():
                yield f"{prefix}/{name}", tensor.detach().numpy()
        if isinstance(reader, ThresholdReader):
            yield f"{prefix}/threshold", np.array([reader.threshold])
        yield f"{prefix}/density", one.held_out.density
        yield f"{prefix}/density_untrained", one.untrained.density
        if one.norms is not None:
            yield f"{prefix}/site_norms", one.norms
