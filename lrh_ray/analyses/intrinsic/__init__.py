"""Intrinsic probing: which dimensions of a representation carry a concept, and how much of it.

A probe on all dimensions says whether a concept can be read; it does not say where. Two ways to find the k dimensions
that hold most: Gaussians with greedy selection (`gaussian`), and one probe trained with the subset as a latent variable
(`latent`, with the distributions of `subsets`). `information` measures any subset in bits on held-out rows, with an
interval over documents and nulls of random subsets and of permuted labels.

    probe = fit_latent_probe(train, classes, recipe=LatentRecipe(largest=10), seed=0)
    dimensions = probe.greedy(train, classes, 5)
    information(probe.log_posteriors(held_out, dimensions), held_out_classes, documents, bootstrap)

What can go wrong: neurons are one basis of many. A concept along a direction that mixes all of them has no dimensions.
"""

from lrh_ray.analyses.intrinsic.gaussian import GaussianProbe, fit_gaussian_probe
from lrh_ray.analyses.intrinsic.information import (
    Information,
    SubsetNull,
    bits,
    information,
    label_p_value,
    random_subsets,
)
from lrh_ray.analyses.intrinsic.latent import LatentProbe, LatentRecipe, fit_latent_probe
from lrh_ray.analyses.intrinsic.subsets import ConditionalPoisson, Poisson

__all__ = [
    "ConditionalPoisson",
    "GaussianProbe",
    "Information",
    "LatentProbe",
    "LatentRecipe",
    "Poisson",
    "SubsetNull",
    "bits",
    "fit_gaussian_probe",
    "fit_latent_probe",
    "information",
    "label_p_value",
    "random_subsets",
]
