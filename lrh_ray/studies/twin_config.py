"""Settings of a run's control store."""

from lrh_ray.config import settings
from lrh_ray.errors import ConfigError
from lrh_ray.models.weights import random_weights, seed_of


@settings
class TwinConfig:
    """The store of the same text without what training put into the model (`lrh extract CONFIG --twin`)."""

    weights: str = random_weights(0)
    """Weights of the control, `random(SEED)`; another seed is another control, under the same name."""

    def __post_init__(self) -> None:
        if seed_of(self.weights) is None:
            raise ConfigError(f"twin.weights is {self.weights!r}; a control has random weights: random(SEED).")
