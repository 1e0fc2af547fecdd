"""Gemma: Llama's layout, with embeddings scaled by the square root of the width before the first block."""

from lrh_ray.models.families import Family

FAMILY = Family(layers="layers", final_norm="norm")
