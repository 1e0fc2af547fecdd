"""Settings of the pool of model replicas."""

from lrh_ray.config import settings


@settings
class PoolConfig:
    """How many model replicas run, and what each takes."""

    replicas: int | None = None
    """Model replicas. None: one per GPU of the cluster, or one when it has none."""

    cpus: float | None = None
    """CPUs of one replica. None: an equal share of all the cluster has for CPU replicas, 1 for GPU replicas."""

    gpus: float | None = None
    """GPUs of one replica. None: 1 if the cluster has any, else 0."""

    attempts: int = 3
    """Attempts at a block before it counts as poison and the run stops with its name."""

    def __post_init__(self) -> None:
        if self.gpus is not None and self.gpus < 0:
            raise ValueError("gpus must be 0 or more")
        for name in ("replicas", "cpus", "attempts"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be positive")
