"""GPT-NeoX, hence Pythia: attention and MLP of a block may read the same input and are added together."""

from lrh_ray.models.families import Family

FAMILY = Family(layers="layers", final_norm="final_layer_norm")
