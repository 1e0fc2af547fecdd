"""From sums to a `Result`: how well each autoencoder explains its site, beside what it must be read against."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from lrh_ray.analyses.jackknife import Estimate, jackknife_interval
from lrh_ray.analyses.sae.architectures.architecture import Architecture
from lrh_ray.analyses.sae.reader import ThresholdReader, TopKReader
from lrh_ray.records import Measure, Result, Scalar, Table
from lrh_ray.store.reader import Store
from lrh_ray.studies.result_parts import parity_table, provenance, site_keys, store_table, with_interval
from lrh_ray.studies.sae_config import SaeConfig
from lrh_ray.studies.sae_latent_table import SiteLatents, latents_arrays, latents_table
from lrh_ray.studies.sae_map_result import measures_of_sites, summary_of_sites, tables_of_maps
from lrh_ray.studies.sae_records import MapRows, Measured, SiteRows
from lrh_ray.studies.sae_splicing import CLEAN, DIVERGENCE, MEAN, SPLICED, TOKENS
from lrh_ray.studies.sae_training import CURVE_POINTS, FACTS, SaeTask

DENSE = "every latent says something of every row: codes and dead latents mean nothing here"


def make_sae_result(
    question: Result,
    store: Store,
    task: SaeTask,
    sites: Mapping[str, SiteRows],
    maps: Mapping[str, MapRows],
    measured: Sequence[Measured],
    losses: Mapping[str, np.ndarray],
    curves: np.ndarray,
    recall: np.ndarray,
    latents: Sequence[SiteLatents],
    seconds: float,
) -> Result:
    """Assemble the answer to `question`; `losses` and `latents` are those of every map or of none."""
    measures = (
        *_measures(store, maps, measured),
        *measures_of_sites(store, maps, measured),
        *_recovered(store, maps, measured, losses),
        *_recall_measures(store, maps, measured, recall),
    )
    config = task.config
    return replace(
        question,
        summary=(*_summary(measures, maps), *summary_of_sites(maps, measured)),
        measures=measures,
        tables=(
            _comparison(measured, maps),
            *tables_of_maps(maps, measured),
            _density_table(measured),
            _curve_table(measured, config, curves),
            *([_recall_table(measured, task.recalled, recall)] if task.recalled else []),
            _rows_table(sites),
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
        controls = {"untrained": one.untrained.fvu().value, "unfiltered": one.unfiltered.fvu().value}
        if one.sparse:
            controls[rows.yardstick.control] = rows.left_by_components(l0.value)
        if rows.ends.transcodes:
            controls["linear"] = float(rows.explained[-1])
        yield _measure("fvu", found, "of variance", keys, controls)
        yield _measure("cosine", one.held_out.cosine(), "", keys, {"untrained": one.untrained.cosine().value})
        if one.sparse:
            yield _measure("l0", l0, "codes a row", keys, {"untrained": one.untrained.l0().value})
            yield Measure(name="dead", value=one.held_out.dead, unit="of latents", keys=keys)


def _keys(store: Store, one: MapRows) -> dict[str, str | int | float]:
    """Where a number was found: the site and its layer, or the map."""
    return site_keys(store, one.name) if one.ends.alone else {"site": one.name}


def _recovered(
    store: Store, maps: Mapping[str, MapRows], measured: Sequence[Measured], losses: Mapping[str, np.ndarray]
) -> Iterator[Measure]:
    """Of the loss that the mean row in place of every row costs the model, the share that reconstructions spare it."""
    for site, of_site in losses.items():
        own = [one for one in measured if one.site == site]
        for one, sums in zip(own, of_site, strict=True):
            keys = {**_keys(store, maps[site]), "autoencoder": one.name}
            whole = sums.sum(axis=0)
            rest = [whole - document for document in sums]
            per_token = whole / whole[TOKENS]
            told = {"loss": per_token[CLEAN], "loss_spliced": per_token[SPLICED], "loss_of_mean": per_token[MEAN]}
            found = jackknife_interval(_share(whole), [_share(left) for left in rest])
            yield _measure("ce_recovered", found, "of loss", keys, {name: float(value) for name, value in told.items()})
            spread = [float(left[DIVERGENCE] / left[TOKENS]) for left in rest]
            divergence = jackknife_interval(float(per_token[DIVERGENCE]), spread)
            yield _measure("kl_divergence", divergence, "nats a token", keys, {})


def _share(sums: np.ndarray) -> float:
    return float((sums[MEAN] - sums[SPLICED]) / (sums[MEAN] - sums[CLEAN]))


def _measure(
    name: str, found: Estimate, unit: str, keys: Mapping[str, str | int | float], controls: Mapping[str, float]
) -> Measure:
    return Measure(
        name=name, value=found.value, unit=unit, keys=keys, low=found.low, high=found.high, controls=controls
    )


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


def _comparison(measured: Sequence[Measured], maps: Mapping[str, MapRows]) -> Table:
    rows: list[tuple[Scalar, ...]] = []
    for one in measured:
        l0 = one.held_out.l0().value
        told: tuple[Scalar, ...] = (round(l0, 1), round(one.held_out.dead, 4)) if one.sparse else ("-", "-")
        left = round(maps[one.site].left_by_components(l0), 4) if one.sparse else "-"
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
        (one.site, one.name, point * every, *(float(f"{value:.4g}") for value in curves[number, point]))
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


def _recall_measures(
    store: Store, maps: Mapping[str, MapRows], measured: Sequence[Measured], recall: np.ndarray
) -> Iterator[Measure]:
    """Of the last batch before the last checkpoint; of kinds that have a preselection."""
    for one, found in zip(measured, recall, strict=True):
        if np.isfinite(found).any():
            keys = {**_keys(store, maps[one.site]), "autoencoder": one.name}
            yield Measure(name="recall", value=float(found[-1]), unit="of the exact choice", keys=keys)


def _recall_table(measured: Sequence[Measured], steps: Sequence[int], recall: np.ndarray) -> Table:
    rows = [
        (one.site, one.name, step, round(value, 6))
        for one, found in zip(measured, recall.tolist(), strict=True)
        for step, value in zip(steps, found, strict=True)
        if np.isfinite(value)
    ]
    return Table(
        name="preselection",
        description="Recall of the exact choice: of the codes that a product in float32 would choose from the batch of "
        "a step, the share that was chosen among the candidates of a product in bfloat16.",
        columns=("site", "autoencoder", "step", "recall"),
        rows=tuple(rows),
    )


def _rows_table(sites: Mapping[str, SiteRows]) -> Table:
    return Table(
        name="rows",
        description="Rows of documents trained on and held out, and the scale that training divides rows by.",
        columns=("site", "training rows", "held-out rows", "scale"),
        rows=tuple(
            (site, one.training_rows, one.held_out_rows, float(f"{one.unit.scale:.5g}")) for site, one in sites.items()
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
