"""DeepSeek-V2: latent attention and routed experts after a few dense blocks."""

from lrh_ray.models.families import Family

FAMILY = Family(layers="layers", final_norm="norm", router="mlp.gate")
