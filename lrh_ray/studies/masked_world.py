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
from lrh_ray.studies.worlds.readings import Reading, at, measured, pick, positive
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
        keys={"over": "input bits"},
        beside={"ceiling": lambda seen: seen.trial.ceiling - seen.trial.raw},
    ),
    Reading(
        name=GAIN,
        value=lambda seen: seen.trial.probe - seen.trial.untrained,
        unit=UNIT,
        keys={"over": "untrained weights"},
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
    return {"model": seen.graph, "bits": seen.trial.num_bits}


def _summary(world: MaskedWorldConfig, measures: Sequence[Measure]) -> Iterator[str]:
    fewest, most = min(world.bits), max(world.bits)
    for graph in dict.fromkeys(str(measure.keys["model"]) for measure in measures):
        (first,) = pick(measures, ACCURACY, model=graph, bits=fewest, **FEATURES)
        (last,) = pick(measures, ACCURACY, model=graph, bits=most, **FEATURES)
        beside = ", ".join(f"{name} {first.controls[name]:.3f} and {last.controls[name]:.3f}" for name in last.controls)
        yield (
            f"{world.concepts} concepts ({graph}): a probe of the features is right {with_interval(first)} of the time "
            f"with {fewest} observed bits and {with_interval(last)} with {most}; {beside}."
        )
        if most > fewest:
            (rise,) = pick(measures, RISE, model=graph, bits=most)
            yield (
                f"{'Accuracy rises' if positive(rise) else 'It is not shown that accuracy rises'} with the bits "
                f"({graph}): within a seed by {with_interval(rise)}, and the best possible by "
                f"{rise.controls['ceiling']:.3f}."
            )
    yield from _verdicts(measures)


def _verdicts(measures: Sequence[Measure]) -> Iterator[str]:
    for rival in ("input bits", "untrained weights"):
        gains = pick(measures, GAIN, over=rival)
        best = max(gains, key=lambda gain: gain.value)
        won = sum(positive(gain) for gain in gains)
        yield (
            f"Trained features tell more than {rival} at {won} of {len(gains)} places with an interval above 0; at "
            f"most by {with_interval(best)} ({best.keys['model']}, {at(best, 'bits'):g} bits)."
        )
    furthest = max(pick(measures, DISTANCE), key=lambda found: found.value)
    yield (
        f"Nowhere is the probe further below the best possible than {with_interval(furthest)} "
        f"({furthest.keys['model']}, {at(furthest, 'bits'):g} bits)."
    )


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
    settings=MaskedWorldConfig,
    question="What does a model of masked bits hold of the concepts?",
    work=lambda world: f"training {len(world.edges) * len(world.bits) * world.seeds} models of masked bits",
    trials=_trials,
    answer=_answer,
)
