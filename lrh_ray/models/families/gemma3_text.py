"""Gemma 3, text models: Gemma 2's norms, with sliding windows and two rotary tables."""

from lrh_ray.models.families import Family

FAMILY = Family(
    layers="layers", final_norm="norm", attn_out="post_attention_layernorm", mlp_out="post_feedforward_layernorm"
)
