"""Qwen2 and Qwen2.5: Llama's layout with biases on queries, keys and values."""

from lrh_ray.models.families import Family

FAMILY = Family(layers="layers", final_norm="norm")
