"""Trials in known worlds (`trials`), and their numbers over seeds (`summary`)."""

from lrh_ray.studies.worlds.summary import over_seeds, summarise, tabulate
from lrh_ray.studies.worlds.trials import (
    agreement_test,
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
