"""From readings of a language's models to a `Result`: curves over sites and moments with intervals and controls."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from lrh_ray.analyses.jackknife import Estimate
from lrh_ray.analyses.worlds.tracking import Tracking
from lrh_ray.models.sites import FINAL_NORM
from lrh_ray.records import Measure, Result, Scalar, Table
from lrh_ray.store.reader import Store
from lrh_ray.studies.language_reading import LanguageReading, SiteReading
from lrh_ray.studies.result_parts import parity_table, provenance, site_keys, store_table, with_interval

UNIT = "share of variance"


def make_language_result(
    question: Result, stores: Mapping[str, Store], reading: LanguageReading, seconds: float
) -> Result:
    """Assemble the answer to `question`; `stores` in the order of training, the untrained model first."""
    last = list(stores.values())[-1]
    return replace(
        question,
        summary=tuple(_summary(reading)),
        measures=(*_joint_measures(reading, last), *_control_measures(reading), *_other_measures(reading, last)),
        tables=(
            store_table(last),
            parity_table(last),
            _models_table(reading),
            _positions_table(reading),
        ),
        arrays=_arrays(reading),
        provenance={
            **provenance(last, seconds),
            "stores": {name: store.root for name, store in stores.items()},
        },
    )


def model_name(step: int) -> str:
    """How a moment of training is called."""
    return f"after {step} steps" if step else "untrained"


def _joint_measures(reading: LanguageReading, store: Store) -> Iterator[Measure]:
    for place in reading.sites:
        controls = {
            "shuffled": place.shuffled.total.value,
            "untrained": _of(reading, 0, place.site).joint.total.value,
            "ceiling": reading.ideal.total.value,
            **{name: control.total.value for name, control in reading.controls.items()},
        }
        yield replace(_measure("belief", place.joint.total, store, place), controls=controls)


def _control_measures(reading: LanguageReading) -> Iterator[Measure]:
    for name, control in {**reading.controls, "ideal model's log-probabilities": reading.ideal}.items():
        yield Measure(
            name="belief_without_a_model",
            value=control.total.value,
            unit=UNIT,
            keys={"from": name},
            low=control.total.low,
            high=control.total.high,
        )


def _other_measures(reading: LanguageReading, store: Store) -> Iterator[Measure]:
    for place in reading.sites:
        yield _measure("belief_of_each_concept", place.marginal.total, store, place)
    for place in reading.sites:
        if place.divergence is not None:
            keys: dict[str, str | int | float] = {"model": model_name(place.step), "step": place.step}
            yield Measure(name="divergence", value=place.divergence, unit="nats per token", keys=keys)


def _measure(name: str, found: Estimate, store: Store, place: SiteReading) -> Measure:
    keys = {"model": model_name(place.step)} | site_keys(store, place.site)
    return Measure(name=name, value=found.value, unit=UNIT, keys=keys, low=found.low, high=found.high)


def _of(reading: LanguageReading, step: int, site: str) -> SiteReading:
    return next(place for place in reading.sites if (place.step, place.site) == (step, site))


def _steps(reading: LanguageReading) -> Sequence[int]:
    return tuple(dict.fromkeys(place.step for place in reading.sites))


def _summary(reading: LanguageReading) -> Iterator[str]:
    last = _steps(reading)[-1]
    final = _of(reading, last, FINAL_NORM).joint.total
    rivals = {"the untrained model": _of(reading, 0, FINAL_NORM).joint.total} | {
        f"the {name}": control.total for name, control in reading.controls.items()
    }
    yield (
        f"After {last} steps a linear map of {FINAL_NORM} explains {with_interval(final)} of the exact log-posterior "
        f"of the hidden concepts on documents it was not fitted on; log-probabilities of a perfect model explain "
        f"{with_interval(reading.ideal.total)}, shuffled rows "
        f"{_of(reading, last, FINAL_NORM).shuffled.total.value:.2f}."
    )
    told = ", ".join(f"{name} {with_interval(rival)}" for name, rival in rivals.items())
    beaten = all(final.low > rival.high for rival in rivals.values())
    verdict = "More than every control, with intervals apart" if beaten else "Not more than every control"
    yield f"{verdict}: {told}."
    best = max((place for place in reading.sites if place.step == last), key=lambda place: place.joint.total.value)
    yield f"Of all sites {best.site} holds most: {with_interval(best.joint.total)}."
    divergence = _of(reading, last, FINAL_NORM).divergence
    yield (
        f"The model is {divergence:.4f} nats per token from the ideal reader, whose own uncertainty is "
        f"{reading.entropy:.3f}; untrained it was {_of(reading, 0, FINAL_NORM).divergence:.2f} away."
    )


def _models_table(reading: LanguageReading) -> Table:
    rows: list[tuple[Scalar, ...]] = []
    for step in _steps(reading):
        final = _of(reading, step, FINAL_NORM)
        best = max((place for place in reading.sites if place.step == step), key=lambda p: p.joint.total.value)
        total, top = final.joint.total, best.joint.total
        rows.append((step, final.divergence, total.value, total.low, total.high, best.site, top.value))
    return Table(
        name="models",
        description="Every moment of training: distance from the ideal reader in nats per token, and R^2 of the exact "
        "log-posterior at the final norm and at the best site.",
        columns=("steps", "divergence", "final_norm", "low", "high", "best site", "R^2 there"),
        rows=tuple(rows),
    )


def _positions_table(reading: LanguageReading) -> Table:
    last = _steps(reading)[-1]
    named: dict[str, Tracking] = {place.site: place.joint for place in reading.sites if place.step == last}
    named |= {f"{name} (no model)": control for name, control in reading.controls.items()}
    return Table(
        name="positions",
        description=f"R^2 of the exact log-posterior {model_name(last)}, by position of the token.",
        columns=("site", *(f"{first}-{final}" for first, final in reading.stretches)),
        rows=tuple((site, *found.stretches) for site, found in named.items()),
    )


def _arrays(reading: LanguageReading) -> dict[str, np.ndarray]:
    """R^2 [moments, sites, stretches]; moments and sites in the order of the tables."""
    steps = _steps(reading)
    sites = tuple(dict.fromkeys(place.site for place in reading.sites))
    values = [[_of(reading, step, site).joint.stretches for site in sites] for step in steps]
    return {"belief_by_position": np.array(values), "steps": np.array(steps)}
