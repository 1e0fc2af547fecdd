"""A2 as a study: the masked-bit world of 2503.08980, section 6, with what its figure leaves out.

    lrh world CONFIG        # world: {kind: masked, bits: [4, 6, 8], edges: [null, 1], seeds: 5}

For every graph, number of observed bits and seed: a model learns to predict a hidden bit from the others, and a probe
reads the concepts from its features. Beside its accuracy stand the best possible one, and a probe of the bits
themselves, of random weights, and of nothing. Worlds of one graph and seed have the same concepts at every number of
bits, so that differences are taken within a seed.

What can go wrong: base rates of concepts differ between seeds and make intervals of accuracies wide; the differences,
which are what is asked, are free of that.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lrh_ray.analyses.worlds.masked import MaskedRecipe, MaskedTrial
from lrh_ray.records import Measure, Table
from lrh_ray.runtime.cluster import connected
from lrh_ray.studies.result_parts import with_interval
from lrh_ray.studies.seeded_world import Answer, SeededWorld
from lrh_ray.studies.world_kinds import MaskedWorldConfig
from lrh_ray.studies.worlds import masked_test
from lrh_ray.studies.worlds.readings import Reading, at, measured, pick, positive, shown
from lrh_ray.studies.worlds.summary import Key

UNIT = "share of rows"
ACCURACY, GAIN, DISTANCE, RISE = "accuracy", "gain", "distance_to_the_ceiling", "rise"
FEATURES = {"reader": "trained features"}


class _Seen(NamedTuple):
    """A trial, the graph it was made on, and the trial of fewest bits of this graph and seed."""

    graph: str
    trial: MaskedTrial
    fewest: MaskedTrial


READINGS: tuple[Reading[_Seen], ...] = (
    Reading(
        name=ACCURACY,
        value=lambda seen: seen.trial.probe,
        unit=UNIT,
        keys=FEATURES,
        beside={"ceiling": lambda seen: seen.trial.ceiling, "majority": lambda seen: seen.trial.majority},
    ),
    Reading(name=ACCURACY, value=lambda seen: seen.trial.untrained, unit=UNIT, keys={"control": "untrained weights"}),
    Reading(name=ACCURACY, value=lambda seen: seen.trial.raw, unit=UNIT, keys={"control": "input bits"}),
    Reading(
        name=GAIN,
        value=lambda seen: seen.trial.probe - seen.trial.raw,
        unit=UNIT,
        keys={"reader": "over input bits"},
        beside={"ceiling": lambda seen: seen.trial.ceiling - seen.trial.raw},
    ),
    Reading(
        name=GAIN,
        value=lambda seen: seen.trial.probe - seen.trial.untrained,
        unit=UNIT,
        keys={"reader": "over untrained weights"},
    ),
    Reading(name=DISTANCE, value=lambda seen: seen.trial.ceiling - seen.trial.probe, unit=UNIT),
)
SINCE_FEWEST: Reading[_Seen] = Reading(
    name=RISE,
    value=lambda seen: seen.trial.probe - seen.fewest.probe,
    unit=UNIT,
    beside={"ceiling": lambda seen: seen.trial.ceiling - seen.fewest.ceiling},
)


def _trials(world: MaskedWorldConfig, address: str) -> list[_Seen]:
    recipe, found = MaskedRecipe(hidden=world.hidden, steps=world.steps, rows=world.rows), []
    with connected(address):
        for edges in world.edges:
            trials = masked_test(
                world.bits,
                seeds=world.seeds,
                num_concepts=world.concepts,
                edges_per_concept=edges,
                recipe=recipe,
                address=address,
            )
            fewest = {trial.seed: trial for trial in trials if trial.num_bits == min(world.bits)}
            graph = "chain" if edges is None else f"random graph, {edges:g} edges per concept"
            found += [_Seen(graph, trial, fewest[trial.seed]) for trial in trials]
    return found


def _answer(world: MaskedWorldConfig, seen: Sequence[_Seen]) -> Answer:
    more = [one for one in seen if one.trial is not one.fewest]
    measures = (*measured(seen, _place, READINGS), *measured(more, _place, [SINCE_FEWEST]))
    return Answer(summary=tuple(_summary(world, measures)), measures=measures, tables=(_worlds_table(seen),))


def _place(seen: _Seen) -> dict[str, Key]:
    return {"graph": seen.graph, "bits": seen.trial.num_bits}


def _summary(world: MaskedWorldConfig, measures: Sequence[Measure]) -> Iterator[str]:
    fewest, most = min(world.bits), max(world.bits)
    accuracies = pick(measures, ACCURACY, **FEATURES)
    for first in pick(accuracies, ACCURACY, bits=fewest):
        (last,) = pick(accuracies, ACCURACY, bits=most, graph=first.keys["graph"])
        beside = ", ".join(f"{name} {first.controls[name]:.3f} and {last.controls[name]:.3f}" for name in last.controls)
        yield (
            f"{world.concepts} concepts ({first.keys['graph']}): a probe of the features is right "
            f"{with_interval(first)} of the time with {fewest} observed bits and {with_interval(last)} with {most}; "
            f"{beside}."
        )
    rises = pick(measures, RISE, bits=most)
    if rises:
        yield shown(
            "accuracy rises with the bits, within a seed and with an interval above 0",
            {f"{rise.keys['graph']}, by {with_interval(rise)}": positive(rise) for rise in rises},
        )
    for rival in ("over input bits", "over untrained weights"):
        gains = pick(measures, GAIN, reader=rival)
        best = max(gains, key=lambda gain: gain.value)
        yield (
            f"The gain {rival} has an interval above 0 at {sum(map(positive, gains))} of {len(gains)} places; at most "
            f"it is {with_interval(best)} ({_words(best)})."
        )
    furthest = max(pick(measures, DISTANCE), key=lambda found: found.value)
    yield f"The probe is nowhere further from the best possible than {with_interval(furthest)} ({_words(furthest)})."
    if len(world.edges) > 1:
        yield (
            f"Between graphs, mean accuracies at the same number of bits differ by at most "
            f"{_spread([(one.keys['bits'], one.value) for one in accuracies]):.3f}, the best possible ones by "
            f"{_spread([(one.keys['bits'], one.controls['ceiling']) for one in accuracies]):.3f}."
        )


def _words(measure: Measure) -> str:
    return f"{measure.keys['graph']}, {at(measure, 'bits'):g} bits"


def _spread(found: Sequence[tuple[Key, float]]) -> float:
    """The largest difference of values that have the same key."""
    return max(abs(one - other) for key, one in found for same, other in found if key == same)


def _worlds_table(seen: Sequence[_Seen]) -> Table:
    return Table(
        name="worlds",
        description="Every world: accuracy of the probe of trained features, the best possible one, and those of the "
        "probe of untrained weights, of the probe of the bits, and of the likelier value.",
        columns=("graph", "bits", "seed", "features", "ceiling", "untrained weights", "input bits", "majority"),
        rows=tuple(
            (
                one.graph,
                one.trial.num_bits,
                one.trial.seed,
                one.trial.probe,
                one.trial.ceiling,
                one.trial.untrained,
                one.trial.raw,
                one.trial.majority,
            )
            for one in seen
        ),
    )


masked_world = SeededWorld(
    kind="masked",
    settings=MaskedWorldConfig,
    question="What does a model of masked bits hold of the concepts?",
    work=lambda world: f"training {len(world.edges) * len(world.bits) * world.seeds} models of masked bits",
    trials=_trials,
    answer=_answer,
)
