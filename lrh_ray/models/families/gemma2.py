"""Gemma 2: a norm before and after attention and MLP; what is added to the stream is what leaves the second norm."""

from lrh_ray.models.families import Family

FAMILY = Family(
    layers="layers", final_norm="norm", attn_out="post_attention_layernorm", mlp_out="post_feedforward_layernorm"
)
