"""What the probing study costs, from the plan of the store and the design: before a row is read."""

from collections.abc import Sequence

from lrh_ray.store.plan_shape import DTYPES
from lrh_ray.store.reader import Store
from lrh_ray.studies.passes import PlannedPass
from lrh_ray.studies.probe_classes import class_places
from lrh_ray.studies.probe_code import GROUPS, PASSES, portions_of
from lrh_ray.studies.probe_config import SHRINKAGES, ProbeConfig
from lrh_ray.studies.probe_design import TRAIN, ProbeDesign

MOMENTS, LOGISTIC, JUDGEMENT = "moments", "logistic regression", "judgement"
MAX_PASSES = 200


def planned_passes(store: Store, design: ProbeDesign, config: ProbeConfig, models: int) -> Sequence[PlannedPass]:
    """Every pass that reads activations, of `models` stores of one shape (a model and its untrained twin).

    The moments are one product of the training rows with themselves for each site, N D^2 FLOP; a logistic pass costs
    4 N D for each probe; a code is both moments and scores. Sums are float64.
    """
    width = max(site.width for site in store.plan.sites)
    sites, columns, populations = len(store.sites), len(design.populations), design.num_populations
    probes = columns * len(config.penalties)
    several = [len(place.columns) for place in class_places(design)] if config.multinomial else []
    softmax = sum(len(config.penalties) * (num * (width + 1) + num * num + 1) for num in several)
    read = store.plan.num_valid_rows * width * DTYPES[store.plan.dtype].itemsize
    trained = int(store.plan.lengths[design.parts == TRAIN].sum())
    judged = int(min(config.max_held_out_rows, store.plan.lengths[design.parts != TRAIN].sum()))
    moments = 8 * (populations * (width + 1) ** 2 + (width + 1) * columns + width + columns)
    passes = [
        PlannedPass(
            name=MOMENTS,
            most=models * sites,
            bytes_read=read,
            flops=trained * (width + 1.0 + columns) ** 2,
            state=moments,
        ),
        PlannedPass(
            name=LOGISTIC,
            most=models * MAX_PASSES,
            bytes_read=sites * read,
            flops=4.0 * sites * trained * width * (probes + sum(several) * len(config.penalties)),
            state=8 * sites * (probes * (width + 3) + softmax),
        ),
        PlannedPass(
            name=JUDGEMENT, most=models, bytes_read=sites * read, flops=2.0 * sites * judged * width * probes, state=0
        ),
    ]
    if config.codelength:
        num, coding = portions_of(design)[1], len(SHRINKAGES) * columns
        passes += [
            PlannedPass(
                name=PASSES[0],
                most=sites,
                bytes_read=read,
                flops=trained * (width + 1.0 + columns) ** 2,
                state=num * moments,
            ),
            PlannedPass(
                name=PASSES[1],
                most=sites,
                bytes_read=read,
                flops=2.0 * trained * width * coding,
                state=8 * (GROUPS * ((num - 1) * coding + 2 * num * columns) + coding),
            ),
        ]
    return passes
