"""Mixtral: Llama's attention, and experts chosen by a softmax router in every block."""

from lrh_ray.models.families import Family

FAMILY = Family(layers="layers", final_norm="norm", mlp_act=None, router="mlp.gate")
