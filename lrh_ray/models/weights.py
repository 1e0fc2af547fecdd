"""Which weights a model runs with: those of its checkpoint, or drawn anew from a seed.

A number read from a trained model means little until the same number is read from an untrained one of the same shape.
So a run may ask for `weights: random(7)`: the architecture of the checkpoint, initialised as for a training that has
not begun. `trained` is everything else. How weights are drawn is the business of `lrh_ray.models.random_weights`; this
file holds the words, and imports no torch.

    seed_of("random(7)")     # 7
    seed_of("trained")       # None

What can go wrong: any other word is a `ConfigError`.
"""

import re

from lrh_ray.errors import ConfigError

TRAINED = "trained"
_RANDOM = re.compile(r"random\((0|[1-9][0-9]{0,8})\)")


def seed_of(weights: str) -> int | None:
    """The seed of random weights; None for trained ones."""
    if weights == TRAINED:
        return None
    found = _RANDOM.fullmatch(weights)
    if found is None:
        raise ConfigError(f"weights is {weights!r}; write trained, or random(SEED) with a seed of at most 9 digits.")
    return int(found[1])


def random_weights(seed: int) -> str:
    """The word for random weights of a seed."""
    return f"random({seed})"
