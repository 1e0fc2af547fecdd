"""Trials in known worlds (`trials`), their numbers over seeds (`summary`), and measures made of them (`readings`)."""

from lrh_ray.studies.worlds.summary import at_noise, over_seeds, summarise, tabulate
from lrh_ray.studies.worlds.trials import (
    agreement_test,
    bound_test,
    direct_test,
    masked_test,
    phase_places,
    phase_test,
    sphere_test,
    steering_test,
    width_test,
)

__all__ = [
    "agreement_test",
    "at_noise",
    "bound_test",
    "direct_test",
    "masked_test",
    "over_seeds",
    "phase_places",
    "phase_test",
    "sphere_test",
    "steering_test",
    "summarise",
    "tabulate",
    "width_test",
]
