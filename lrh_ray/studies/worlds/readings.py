"""From trials to measures: what is read off every trial, and what it must be held against.

    trained = Reading(name="slope", value=lambda trial: trial.slope, keys={"reader": "trained model"})
    chance = Reading(name="slope", value=lambda trial: trial.null, keys={"control": "random directions"})
    measures = measured(trials, at_noise, [trained, chance])

A measure is the mean over the seeds of one place, with the interval of Student's t. A reading with the key `control`
is a control: it has a measure of its own, and stands among the `controls` of every measure of its name and place.
Numbers of the same seed belong together: a difference is read off each trial and then averaged, for the interval of a
difference is not the difference of two intervals.

What can go wrong: one seed has no interval, and then nothing is above anything (`above`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, cast

from lrh_ray.records import Measure
from lrh_ray.studies.worlds.summary import Key, Trial, by_place, over_seeds

LEAD = "lead_over_controls"
READERS = ("reader", "control")
"""Keys that say who is read; what is left says where."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading(Generic[Trial]):
    """One number of every trial, and how its measure is called."""

    name: str
    value: Callable[[Trial], float]
    unit: str = ""
    keys: Mapping[str, Key] = field(default_factory=dict)
    """What it is about besides its place."""
    beside: Mapping[str, Callable[[Trial], float]] = field(default_factory=dict)
    """Controls that have no measure of their own, such as an exact ceiling; means over seeds."""
    flags: Callable[[Sequence[Trial]], tuple[str, ...]] = lambda _: ()
    """What is wrong with the number, from the trials of one place."""


def measured(
    trials: Sequence[Trial], place: Callable[[Trial], Mapping[str, Key]], readings: Iterable[Reading[Trial]]
) -> tuple[Measure, ...]:
    """Every reading at every place, in the order of the readings."""
    places = by_place(trials, place)
    found = [_measure(reading, here, own) for reading in readings for here, own in places]
    return tuple(measure if is_control(measure) else _held_against(measure, found) for measure in found)


def lead(own: Reading[Trial], rivals: Iterable[Reading[Trial]]) -> Reading[Trial]:
    """How far a number lies above the best of its rivals, within a seed."""
    others = tuple(rivals)
    return Reading(
        name=LEAD,
        value=lambda trial: own.value(trial) - max(other.value(trial) for other in others),
        unit=own.unit,
        keys=own.keys,
    )


def is_control(measure: Measure) -> bool:
    return "control" in measure.keys


def pick(measures: Iterable[Measure], name: str, **keys: Key) -> list[Measure]:
    """The measures of a name whose keys are these, among others."""
    return [one for one in measures if one.name == name and keys.items() <= dict(one.keys).items()]


def at(measure: Measure, axis: str) -> float:
    """Where a measure lies on an axis of numbers, its noise say."""
    return float(measure.keys[axis])


def above(measure: Measure, *rivals: Measure) -> bool:
    """Whether the interval lies above that of every rival; without an interval it does not."""
    low = measure.low
    return low is not None and all(rival.high is not None and low > rival.high for rival in rivals)


def positive(measure: Measure) -> bool:
    """Whether the interval lies above 0."""
    return measure.low is not None and measure.low > 0


def shown(claim: str, cases: Mapping[str, bool]) -> str:
    """Where a claim holds, and where that is not shown, in words."""
    held, open_ = ([name for name, holds in cases.items() if holds is wanted] for wanted in (True, False))
    said = [f"{claim[0].upper()}{claim[1:]}: {'; '.join(held)}."] if held else []
    return " ".join([*said, *([f"It is not shown that {claim}: {'; '.join(open_)}."] if open_ else [])])


def _measure(reading: Reading[Trial], place: Mapping[str, Key], trials: Sequence[Trial]) -> Measure:
    numbers = over_seeds([reading.value(trial) for trial in trials])
    beside = {name: over_seeds([value(trial) for trial in trials]) for name, value in reading.beside.items()}
    alone = () if len(trials) > 1 else ("one seed: no interval",)
    return Measure(
        name=reading.name,
        value=cast(float, numbers["mean"]),
        unit=reading.unit,
        keys={**place, **reading.keys},
        low=cast(float | None, numbers["low"]),
        high=cast(float | None, numbers["high"]),
        controls={name: cast(float, found["mean"]) for name, found in beside.items()},
        flags=(*alone, *reading.flags(trials)),
    )


def _held_against(measure: Measure, found: Sequence[Measure]) -> Measure:
    rivals = {
        str(one.keys["control"]): one.value
        for one in found
        if is_control(one) and one.name == measure.name and _where(one) == _where(measure)
    }
    return replace(measure, controls={**rivals, **measure.controls})


def _where(measure: Measure) -> dict[str, Key]:
    return {key: value for key, value in measure.keys.items() if key not in READERS}
