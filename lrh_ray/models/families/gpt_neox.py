"""GPT-NeoX, hence Pythia: attention and MLP of a block may read the same input and are added together."""

from lrh_ray.models.families import Family

FAMILY = Family(
    layers="layers",
    final_norm="final_layer_norm",
    embed="embed_in",
    attn_out="attention",
    heads="attention.dense",
    mlp_act="mlp.dense_4h_to_h",
)
