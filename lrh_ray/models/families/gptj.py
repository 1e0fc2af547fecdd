"""GPT-J: attention and MLP of a block read one norm of the same input; blocks return tuples."""

from lrh_ray.models.families import Family

FAMILY = Family(
    layers="h",
    final_norm="ln_f",
    embed="wte",
    attn_out="attn",
    heads="attn.out_proj",
    mlp_act="mlp.fc_out",
    tuple_blocks=True,
)
