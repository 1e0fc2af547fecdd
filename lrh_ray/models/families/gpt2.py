"""GPT-2: learned positions, fused queries, keys and values, LayerNorm before attention and MLP."""

from lrh_ray.models.families import Family

FAMILY = Family(layers="h", final_norm="ln_f", embed="wte", attn_out="attn", heads="attn.c_proj", mlp_act="mlp.c_proj")
