"""The phase diagram: in which worlds the theorem's promise holds, exactly and without training a model.

    lrh world CONFIG        # world: {kind: phase, sharpness: [0.5, 1, 2], noises: [0.3, 0.1, 0.01]}

A world is as sharp as its context tells the concepts, and as noisy as its next token fails to. At every point of that
plane stands how much of a perfect model's log-ratios is a linear map of the joint log-posterior (Theorem 3.1 of
2503.08980), and of the marginal ones side by side (ConCA), and how much of either target the log-ratios give back.

What can go wrong: where the context tells next to nothing there is little to explain, and a high R^2 says little; the
table gives H(c|x) beside it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from lrh_ray.analyses.worlds.phase import PhasePoint
from lrh_ray.records import Measure, Table
from lrh_ray.studies.seeded_world import Answer, SeededWorld
from lrh_ray.studies.world_kinds import PhaseWorldConfig
from lrh_ray.studies.worlds import phase_places, phase_test
from lrh_ray.studies.worlds.readings import Reading, measured, pick

READ: Mapping[str, Callable[[PhasePoint], float]] = {
    "linear_in_the_joint_posterior": lambda point: point.regime.r_squared,
    "linear_in_the_marginal_posteriors": lambda point: point.marginal,
    "joint_posterior_given_back": lambda point: point.decoded_joint,
    "marginal_posteriors_given_back": lambda point: point.decoded_marginal,
}
"""What a perfect model's log-ratios are a linear map of, and what is a linear map of them."""


def _trials(world: PhaseWorldConfig, address: str) -> list[PhasePoint]:
    places = phase_places(world.worlds, world.sharpness, world.noises, world.values)
    return phase_test(places, seeds=world.seeds, address=address)


def _answer(_: PhaseWorldConfig, points: Sequence[PhasePoint]) -> Answer:
    readings = [Reading(name=name, value=value, unit="share of variance") for name, value in READ.items()]
    measures = measured(points, _place, readings)
    return Answer(summary=tuple(_summary(measures)), measures=measures, tables=(_worlds_table(points),))


def _place(point: PhasePoint) -> dict[str, str]:
    place = point.place
    return {"model": f"noise {place.next_sharpness:g}", "site": f"sharpness {place.sharpness:g}"}


def _summary(measures: Sequence[Measure]) -> Iterator[str]:
    def words(measure: Measure) -> str:
        return f"{measure.value:.3f} ({measure.keys['model']}, {measure.keys['site']})"

    for name in list(READ)[:2]:
        own = sorted(pick(measures, name), key=lambda found: found.value)
        yield f"Log-ratios {name.replace('_', ' ')}: R^2 from {words(own[0])} to {words(own[-1])}."


def _worlds_table(points: Sequence[PhasePoint]) -> Table:
    return Table(
        name="worlds",
        description="Every world in the theorem's terms: epsilon, mean total variation of p(c|y) between next "
        "tokens, H(c|x) in nats, and the share of the marginal posteriors that is linear in the joint one.",
        columns=("noise", "sharpness", "seed", "epsilon", "total variation", "H(c|x)", "shared"),
        rows=tuple(
            (
                point.place.next_sharpness,
                point.place.sharpness,
                point.seed,
                point.regime.error,
                point.regime.total_variation,
                point.regime.context_entropy,
                point.shared,
            )
            for point in points
        ),
    )


phase_world = SeededWorld(
    kind="phase",
    settings=PhaseWorldConfig,
    question="Where the theorem holds:",
    work=lambda world: f"{len(world.sharpness) * len(world.noises) * world.seeds} worlds, each enumerated",
    trials=_trials,
    answer=_answer,
)
