"""Settings of the probing study."""

from typing import Literal

from lrh_ray.config import settings
from lrh_ray.studies.mlp_config import MlpConfig

SHRINKAGES = (0.01, 0.1, 0.5)
"""Of LDA, to choose from."""


@settings
class ProbeConfig:
    """Which concepts are probed, how rows are split, and how uncertainty is measured."""

    concepts: tuple[str, ...] = ("all",)
    """Names of concepts of the store's labels, or `all`."""

    sinks: Literal["drop", "keep"] = "drop"
    """Attention sinks (rows whose norm exceeds 10 times the median of any site) are left out, or kept."""

    held_out: float = 0.3
    """Fraction of documents held out for the numbers reported; half as many again choose the penalty."""

    penalties: tuple[float, ...] = (1e-2, 1e-1, 1.0)
    """L2 penalties to choose from, as multiples of the site's mean feature variance."""

    tolerance: float = 1e-8
    """Certificate of the logistic solver: largest gradient component in the solver's metric."""

    draws: int = 400
    """Bootstrap draws over documents, and permutations of the null band."""

    min_documents: int = 4
    """A class needs at least this many documents in training and in the held-out part."""

    max_held_out_rows: int = 200_000
    """Held-out rows are a sample of whole documents of at most this many rows."""

    control_tasks: bool = False
    """Every concept is also probed as a control task (Hewitt and Liang 2019): a random class for each token type, which
    can be remembered and not read. Accuracy less that on the control task is the selectivity. Half as much work again.
    """

    multinomial: bool = False
    """Concepts of three values and more also get one exact multinomial regression; two to four times the passes."""

    codelength: bool = False
    """How many bits the labels take, given the rows (Voita and Titov 2020): how soon a concept can be read, not only
    how well. Two passes more."""

    mlp: MlpConfig | None = None
    """Networks with hidden layers beside the linear probes; null trains none."""

    seed: int = 0
    """Seed of split, shuffled labels, bootstrap and permutations."""

    def __post_init__(self) -> None:
        if not 0 < self.held_out < 0.6:
            raise ValueError("held_out must lie in (0, 0.6), for example 0.3")
        if not self.penalties or min(self.penalties) <= 0:
            raise ValueError("penalties must be positive, for example [0.01, 0.1, 1.0]")
        if self.tolerance <= 0 or self.seed < 0 or self.min_documents < 1 or self.max_held_out_rows < 1:
            raise ValueError("tolerance must be above 0, seed 0 or more, min_documents and max_held_out_rows 1 or more")
        if self.draws < 100:
            raise ValueError("draws must be at least 100 to give a 95 % interval")
