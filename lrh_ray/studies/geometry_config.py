"""Settings of the geometry study."""

from typing import Literal

from lrh_ray.config import settings


@settings
class GeometryConfig:
    """How many directions rows use, what each token adds, and on which documents that is asked."""

    sites: tuple[str, ...] = ()
    """Sites of the store; empty for all."""

    by: str | None = None
    """A document-level concept: every number is also given for the documents of each of its values."""

    sinks: Literal["drop", "keep"] = "drop"
    """Attention sinks (rows whose norm exceeds 10 times the median of any site) are left out, or kept."""

    groups: int = 10
    """Groups of documents of the jackknife, from which intervals come."""

    epsilon: float = 0.5
    """Error to which the coding length codes rows of length one."""

    gain_documents: int = 60
    """Documents on which the information gain of tokens is measured; 0 leaves it out."""

    gain_tokens: int = 256
    """At most this many tokens from the beginning of each."""

    penalty: float = 0.1
    """Ridge of the information gain, as a share of the mean squared length of rows."""

    selected: int = 8
    """Tokens of its context that the Lasso may choose for the last token of each document."""

    family: tuple[str, ...] = ()
    """Models of one family, smallest first: the run is repeated with each, and its entropy set against its size."""

    seed: int = 0
    """Seed of the groups and of the choice of documents."""

    def __post_init__(self) -> None:
        if self.groups < 2 or self.gain_documents < 0 or self.gain_tokens < 2 or self.selected < 1 or self.seed < 0:
            raise ValueError(
                "groups must be 2 or more, gain_documents and seed 0 or more, gain_tokens 2 or more, selected 1 or more"
            )
        if not (self.epsilon > 0 and self.penalty > 0):
            raise ValueError("epsilon and penalty must be above 0")
