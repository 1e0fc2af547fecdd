"""Settings of the MLP probes."""

from dataclasses import field

from lrh_ray.config import settings
from lrh_ray.runtime.config import TrainConfig


@settings
class MlpConfig:
    """Networks beside the linear probes, which say whether more is there than a linear probe finds."""

    hidden: tuple[int, ...] = (64,)
    """Units of the hidden layer, or of two."""

    steps: int = 1000
    """Steps of AdamW."""

    batch_rows: int = 1024
    """Rows of a step, over all workers."""

    rate: float = 1e-3
    """Highest learning rate; a warm-up leads to it, half a cosine away from it."""

    weight_decay: float = 1e-2
    """AdamW's, on every weight."""

    candidates: int = 5
    """The networks after the last step, half as many steps, a quarter …; the validation documents choose."""

    workers: TrainConfig = field(default_factory=TrainConfig)
    """Who trains."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.hidden) <= 2 or min(self.hidden) < 1:
            raise ValueError("hidden must name one layer or two, of at least 1 unit each, for example [64]")
        if min(self.steps, self.batch_rows, self.candidates) < 1 or self.batch_rows < self.workers.workers:
            raise ValueError("steps, batch_rows and candidates must be 1 or more, batch_rows at least one per worker")
        if not self.rate > 0 or self.weight_decay < 0:
            raise ValueError("rate must be above 0, weight_decay 0 or more")
