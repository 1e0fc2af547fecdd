"""Llama and the many models that keep its layout: pre-norm blocks, SwiGLU, rotary positions. SmolLM2 is one."""

from lrh_ray.models.families import Family

FAMILY = Family(layers="layers", final_norm="norm")
