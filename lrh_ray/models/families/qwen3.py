"""Qwen3: Llama's layout with norms on queries and keys, and heads that need not divide the width."""

from lrh_ray.models.families import Family

FAMILY = Family(layers="layers", final_norm="norm")
