"""What is told of transcoders and crosscoders alone: linear maps of every rank, and which sites a latent is at."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from lrh_ray.analyses.jackknife import Estimate
from lrh_ray.analyses.sae.site_norms import SHARED, sites_of_latents
from lrh_ray.records import Measure, Scalar, Table
from lrh_ray.store.reader import Store
from lrh_ray.studies.result_parts import bounded_measure, site_keys
from lrh_ray.studies.sae_records import MapRows, Measured


def measures_of_sites(store: Store, maps: Mapping[str, MapRows], measured: Sequence[Measured]) -> Iterator[Measure]:
    """Of maps that write several sites: what is left of each, and how many latents they share."""
    for one in measured:
        keys: dict[str, str | int | float] = {"map": one.site, "autoencoder": one.name}
        for number, site in enumerate(_several(maps[one.site])):
            found, untrained, unfiltered = (
                sums.of_site(number).fvu() for sums in (one.held_out, one.untrained, one.unfiltered)
            )
            beside = {"untrained": untrained.value, "unfiltered": unfiltered.value}
            yield bounded_measure("fvu_of_site", found, "of variance", {**site_keys(store, site), **keys}, beside)
        if one.norms is not None and one.untrained_norms is not None:
            whole = {"site": one.site, "autoencoder": one.name}
            shared, untrained = (_shared(one, norms) for norms in (one.norms, one.untrained_norms))
            yield bounded_measure("shared", shared, "of firing latents", whole, {"untrained": untrained.value})


def summary_of_sites(maps: Mapping[str, MapRows], measured: Sequence[Measured]) -> Iterator[str]:
    """Shared and specific latents of every crosscoder."""
    for one in measured:
        if one.norms is None:
            continue
        at, fires = sites_of_latents(one.norms), _firing(one)
        specific = [
            f"{int((at[fires] == number).sum())} to {site}" for number, site in enumerate(_several(maps[one.site]))
        ]
        yield (
            f"Of {int(fires.sum())} latents of {one.name} at {one.site} that fire, {int((at[fires] == SHARED).sum())} "
            f"are shared, and specific are {', '.join(specific)}."
        )


def tables_of_maps(maps: Mapping[str, MapRows], measured: Sequence[Measured]) -> Iterator[Table]:
    """A table of transcoders and one of crosscoders, where there are any."""
    transcoders = [one for one in measured if maps[one.site].ends.transcodes]
    if transcoders:
        yield _transcoder_table(maps, transcoders)
    several = [one for one in measured if one.norms is not None]
    if several:
        yield _site_table(maps, several)


def _transcoder_table(maps: Mapping[str, MapRows], measured: Sequence[Measured]) -> Table:
    rows: list[tuple[Scalar, ...]] = []
    for one in measured:
        l0, own = one.held_out.l0().value, maps[one.site]
        rank = round(own.left_by_components(l0), 4) if one.sparse else None
        fvu, untrained = one.held_out.fvu().value, one.untrained.fvu().value
        rows.append((one.site, one.name, round(fvu, 4), rank, round(float(own.explained[-1]), 4), round(untrained, 4)))
    return Table(
        name="transcoders",
        description="What is left of the held-out variance of the rows that are written: by the transcoder, by the "
        "best ridge map from what it reads, of as many components as codes a row and of full rank, and by its first "
        "weights. The ridge penalty is the best for the held-out rows.",
        columns=("map", "autoencoder", "FVU", "FVU of linear components", "FVU of linear map", "FVU untrained"),
        rows=tuple(rows),
    )


def _site_table(maps: Mapping[str, MapRows], measured: Sequence[Measured]) -> Table:
    rows: list[tuple[Scalar, ...]] = []
    for one in measured:
        at = sites_of_latents(np.asarray(one.norms))[_firing(one)]
        for number, site in enumerate(_several(maps[one.site])):
            left = one.held_out.of_site(number).fvu().value
            rows.append((one.site, one.name, site, round(left, 4), int((at == number).sum())))
        rows.append((one.site, one.name, "shared", round(one.held_out.fvu().value, 4), int((at == SHARED).sum())))
    return Table(
        name="sites of latents",
        description="What is left of the held-out variance of each site, and how many latents that fire are specific "
        "to it: nine tenths of the squared length of their decoder row are there. The others are shared; beside them, "
        "what is left of all sites together. Lengths are those of training, which divides each site by its scale; they "
        "are in the arrays `MAP/NAME/site_norms`.",
        columns=("map", "autoencoder", "site", "FVU", "latents"),
        rows=tuple(rows),
    )


def _several(rows: MapRows) -> tuple[str, ...]:
    """Sites that are written, where they are several."""
    return rows.ends.writes if rows.unit.widths else ()


def _firing(one: Measured) -> np.ndarray:
    """Latents that fire in held-out rows [M]; all of a dense kind."""
    return np.asarray(one.held_out.density > 0) if one.sparse else np.ones(len(one.held_out.density), dtype=bool)


def _shared(one: Measured, norms: np.ndarray) -> Estimate:
    """Share of the firing latents that no site has alone, over groups of the documents that they fire in."""
    everywhere = sites_of_latents(norms) == SHARED

    def share(fires: np.ndarray) -> float:
        own = everywhere[fires] if one.sparse else everywhere
        return float(own.mean()) if len(own) else float("nan")

    return one.held_out.of_firing(share)
