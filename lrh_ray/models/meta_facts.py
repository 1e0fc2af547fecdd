"""Facts of a description: what a plan by numbers must know, without weights, tokenizer or text.

    described = describe_model(known_checkpoint("known:gpt2-xl"), ModelConfig(name="known:gpt2-xl"), ["resid.*"])
    described.tree.num_parameters, [site.name for site in described.sites]

What can go wrong: `UnknownName`, `CheckpointMissing`, `CheckpointBroken`, `UnsupportedFamily`, `SiteError`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedConfig

from lrh_ray.models.checkpoints import Checkpoint
from lrh_ray.models.config import ModelConfig
from lrh_ray.models.facts import DtypeName, read_architecture, resolved_dtype, sites_of
from lrh_ray.models.meta_tree import ModelTree, model_tree
from lrh_ray.models.sites import num_blocks_needed
from lrh_ray.records import SiteSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Described:
    """A model by its config.json."""

    name: str
    architecture: PreTrainedConfig
    tree: ModelTree
    dtype: DtypeName
    """Of the rows, and of the weights on a GPU."""
    window: int
    sites: tuple[SiteSpec, ...]

    @property
    def depth(self) -> int:
        """Blocks up to the deepest site."""
        return num_blocks_needed(self.sites, self.tree.num_layers)

    def computed_in(self, dtype: DtypeName) -> "Described":
        """The same model with its weights in another number format; the rows keep theirs."""
        return self if dtype == self.dtype else replace(self, tree=model_tree(self.architecture, dtype))


def describe_model(checkpoint: Checkpoint, config: ModelConfig, sites: Sequence[str]) -> Described:
    """Size, number format and sites of a model; only config.json is read."""
    architecture = read_architecture(checkpoint)
    dtype = resolved_dtype(architecture, config)
    numbers: Any = architecture
    return Described(
        name=checkpoint.name,
        architecture=architecture,
        tree=model_tree(architecture, dtype),
        dtype=dtype,
        window=int(numbers.max_position_embeddings),
        sites=sites_of(architecture, sites, dtype),
    )
