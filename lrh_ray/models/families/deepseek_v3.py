"""DeepSeek-V3: latent attention and routed experts; around them the same residual stream as Llama's."""

from lrh_ray.models.families import Family

FAMILY = Family(layers="layers", final_norm="norm", router="mlp.gate")
