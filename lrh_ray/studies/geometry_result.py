"""From spectra and gains to a `Result`: ranks and entropies with intervals, ceilings and nulls."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from lrh_ray.analyses.geometry import UnitSpectrum, isotropic_spectrum
from lrh_ray.analyses.jackknife import Estimate, jackknife_interval
from lrh_ray.artifacts import load_result
from lrh_ray.config import as_plain
from lrh_ray.errors import ConfigError
from lrh_ray.records import Measure, Result, Table
from lrh_ray.store.reader import Store
from lrh_ray.studies.geometry_config import GeometryConfig
from lrh_ray.studies.geometry_records import CONTEXTS, FamilyMember, SiteGains, SiteGeometry
from lrh_ray.studies.passes import Ledger
from lrh_ray.studies.result_parts import parity_table, provenance, site_keys, software, store_table
from lrh_ray.studies.run import RunConfig

UNITS = {"effective_rank": "directions", "matrix_entropy": "nats", "participation_ratio": "directions"}
DIFFERENCE = "untrained - trained"


def make_geometry_result(
    question: Result,
    store: Store,
    config: GeometryConfig,
    sites: Sequence[SiteGeometry],
    gains: Mapping[str, Sequence[SiteGains]],
    ledger: Ledger,
    seconds: float,
) -> Result:
    """Assemble the answer to `question`."""
    measures = (*_spectral(store, config, sites), *_differences(store, sites), *_gains(store, config, sites, gains))
    return replace(
        question,
        summary=tuple(_summary(measures)),
        measures=measures,
        tables=(store_table(store), parity_table(store), _rows_table(sites), ledger.table()),
        arrays={f"{one.model}/{one.site}/spectrum": one.spectra[0].whole.values for one in sites},
        provenance=provenance(store, seconds),
    )


def _metrics(config: GeometryConfig) -> Mapping[str, Callable[[UnitSpectrum], float]]:
    return {
        "effective_rank": lambda spectrum: spectrum.effective_rank,
        "matrix_entropy": lambda spectrum: spectrum.entropy,
        "participation_ratio": lambda spectrum: spectrum.participation_ratio,
        "coding_length": lambda spectrum: spectrum.coding_length(config.epsilon),
    }


def _spectral(store: Store, config: GeometryConfig, sites: Sequence[SiteGeometry]) -> Iterator[Measure]:
    isotropic: dict[tuple[int, int], UnitSpectrum] = {}
    for name, of in _metrics(config).items():
        for one in sites:
            for spectra in one.spectra:
                shape = (round(spectra.whole.rows), len(spectra.whole.values))
                if shape not in isotropic:
                    isotropic[shape] = isotropic_spectrum(*shape, seed=config.seed)
                found = jackknife_interval(of(spectra.whole), [of(without) for without in spectra.without])
                yield _measure(
                    name,
                    found,
                    unit=UNITS.get(name, "nats a row"),
                    keys={**site_keys(store, one.site), "model": one.model, "documents": spectra.documents},
                    controls={"isotropic": of(isotropic[shape])},
                )


def _differences(store: Store, sites: Sequence[SiteGeometry]) -> Iterator[Measure]:
    """Diff-eRank: the same documents are left out of both models, so what they share cancels."""
    trained = {one.site: one for one in sites if one.model == "trained"}
    for other in (one for one in sites if one.model == "untrained"):
        for own, control in zip(trained[other.site].spectra, other.spectra, strict=True):
            found = jackknife_interval(
                control.whole.effective_rank - own.whole.effective_rank,
                [
                    left.effective_rank - right.effective_rank
                    for left, right in zip(control.without, own.without, strict=True)
                ],
            )
            keys = {**site_keys(store, other.site), "model": DIFFERENCE, "documents": own.documents}
            yield _measure("diff_erank", found, unit="directions", keys=keys, controls={})


def _gains(
    store: Store, config: GeometryConfig, sites: Sequence[SiteGeometry], gains: Mapping[str, Sequence[SiteGains]]
) -> Iterator[Measure]:
    """What a token adds to its context; beside it, what it adds to the context of another document."""
    contexts = [f"{first} to {stop - 1} tokens" for first, stop in CONTEXTS]
    chosen = [f"Lasso, {number} of them" for number in range(1, config.selected + 1)]
    for model, of_sites in gains.items():
        names = [one.site for one in sites if one.model == model]
        for name, unit, columns in (
            ("information_gain", "nats a token", contexts),
            ("unexplained_by_ridge", "share", contexts),
            ("unexplained_by_lasso", "share", chosen),
        ):
            for site, found in zip(names, of_sites, strict=True):
                values = {"information_gain": found.information, "unexplained_by_ridge": found.ridge}.get(
                    name, found.lasso
                )
                for column, context in enumerate(columns):
                    own, other = values[0, :, column], values[1, :, column]
                    interval = _mean_over_documents(own, found.groups, config.groups)
                    if interval is None:
                        continue
                    keys = {**site_keys(store, site), "model": model, "context": context}
                    null = {"other_document": float(np.nanmean(other))} if np.isfinite(other).any() else {}
                    yield _measure(name, interval, unit=unit, keys=keys, controls=null)


def _mean_over_documents(values: np.ndarray, groups: np.ndarray, num_groups: int) -> Estimate | None:
    """Mean over documents, jackknifed over their groups; None where fewer than two groups have a value."""
    there = np.isfinite(values)
    used = [group for group in range(num_groups) if (there & (groups == group)).any()]
    if len(used) < 2:
        return None
    return jackknife_interval(
        float(values[there].mean()), [float(values[there & (groups != group)].mean()) for group in used]
    )


def _measure(
    name: str, found: Estimate, *, unit: str, keys: dict[str, str | int | float], controls: dict[str, float]
) -> Measure:
    return Measure(
        name=name, value=found.value, unit=unit, keys=keys, low=found.low, high=found.high, controls=controls
    )


def _summary(measures: Sequence[Measure]) -> Iterator[str]:
    ranks = [m for m in measures if m.name == "effective_rank" and m.keys["documents"] == "all"]
    own = [m for m in ranks if m.keys["model"] == "trained"]
    least, most = min(own, key=lambda found: found.value), max(own, key=lambda found: found.value)
    yield (
        f"Rows use between {_words(least)} and {_words(most)} directions; isotropic rows of the same number would use "
        f"{most.controls['isotropic']:.0f}."
    )
    differences = [m for m in measures if m.name == "diff_erank" and m.keys["documents"] == "all"]
    if differences:
        largest = max(differences, key=lambda found: found.value)
        yield f"Diff-eRank, what training took away: largest {_words(largest)} directions."
    gains = [m for m in measures if m.name == "unexplained_by_ridge" and m.keys["model"] == "trained"]
    if gains:
        last = gains[-1]
        other = last.controls.get("other_document")
        beside = "" if other is None else f", and {other:.2f} after as many of another document"
        context = f"after {last.keys['context']} of its own document"
        yield f"At {last.keys['site']}, {last.value:.2f} of a token is new {context}{beside}."


def _words(measure: Measure) -> str:
    return f"{measure.value:.1f} [{measure.low:.1f}, {measure.high:.1f}] ({measure.keys['site']})"


def _rows_table(sites: Sequence[SiteGeometry]) -> Table:
    return Table(
        name="rows",
        description="How many rows each spectrum is of. Fewer rows than features cannot fill all directions.",
        columns=("model", "site", "documents", "rows", "features", "without a direction"),
        rows=tuple(
            (
                one.model,
                one.site,
                spectra.documents,
                spectra.whole.rows,
                len(spectra.whole.values),
                one.without_direction,
            )
            for one in sites
            for spectra in one.spectra
        ),
    )


def make_family_result(config: RunConfig, members: Sequence[FamilyMember], seconds: float) -> Result:
    """Entropy of every model's sites, normalised by its width, against its number of parameters."""
    results = [load_result(member.result) for member in members]
    measures, rows = [], []
    for member, result in zip(members, results, strict=True):
        for found in result.measures:
            if found.name not in ("effective_rank", "matrix_entropy") or found.keys["documents"] != "all":
                continue
            keys = {key: value for key, value in found.keys.items() if key not in ("model", "documents")}
            weights = str(found.keys["model"])
            label = member.name if weights == "trained" else f"{member.name}, {weights}"
            measures.append(replace(found, keys={**keys, "model": label, "parameters": member.parameters}))
        last = [m for m in result.measures if m.name == "effective_rank" and m.keys["model"] == "trained"][-1]
        rows.append((member.name, member.parameters, str(last.keys["site"]), last.value, last.low, last.high))
    sizes, ranks = np.log([row[1] for row in rows]), np.log([row[3] for row in rows])
    if np.ptp(sizes) == 0:
        raise ConfigError(
            f"The models of geometry.family all have {rows[0][1]:,} parameters; give models of several sizes."
        )
    slope = float(np.polyfit(sizes, ranks, 1)[0])
    return Result(
        kind="geometry",
        title=f"Entropy against size: {config.name}",
        summary=(
            f"Over {len(rows)} models the effective rank of the last site grows as size to the power {slope:.2f} "
            "(least squares on logarithms; the models are given, so it has no interval).",
        ),
        asked=as_plain(config),
        resolved={**as_plain(config.geometry), "interval": "95 %, jackknife over groups of documents"},
        inputs={member.name: result.inputs["trained"] for member, result in zip(members, results, strict=True)},
        measures=tuple(measures),
        tables=(
            Table(
                name="sizes",
                description="Effective rank of the last site, all documents, against the number of parameters.",
                columns=("model", "parameters", "site", "effective rank", "low", "high"),
                rows=tuple(rows),
            ),
        ),
        provenance=software(seconds),
    )
