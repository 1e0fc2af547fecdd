"""Settings of the pool of model replicas, and of training workers."""

from dataclasses import field, fields
from typing import Literal

from lrh_ray.config import settings


@settings
class LeaseConfig:
    """How long a replica may take before it is given up; all in seconds."""

    silence_seconds: float = 120.0
    """Without an answer to a heartbeat for this long, a replica counts as hung (frozen, or holding Python's lock)."""

    shortest_deadline_seconds: float = 600.0
    """A block may always take this long."""

    deadline_factor: float = 10.0
    """A block may take this many times the median of the latest blocks."""

    first_deadline_seconds: float = 7200.0
    """A block may take this long while no block has been finished."""

    opening_seconds: float = 3600.0
    """A replica may take this long to load its model, once its processes run."""

    waiting_seconds: float = 3600.0
    """The run gives up when no replica has a place on the cluster for this long."""

    grace_seconds: float = 20.0
    """After SIGTERM a replica finishes its block, or gives it back, within this time."""

    def __post_init__(self) -> None:
        for item in fields(self):
            if getattr(self, item.name) <= 0:
                raise ValueError(f"{item.name} must be positive")


@settings
class PoolConfig:
    """How many model replicas run, and what each takes."""

    replicas: int | None = None
    """Model replicas. None: as many as GPUs hold, or one per node where there are none; nodes that join add more."""

    cpus: float | None = None
    """CPUs of one replica. None: an equal share of its node for CPU replicas, 1 for GPU replicas."""

    gpus: float | None = None
    """GPUs of one replica. None: 1 if the cluster has any, else 0."""

    attempts: int = 3
    """Attempts at a block before it counts as poison and is set aside."""

    when_short: Literal["refuse", "wait"] = "refuse"
    """Replicas the cluster cannot hold now: refuse the run, or begin with fewer and wait for nodes (autoscaler)."""

    leases: LeaseConfig = field(default_factory=LeaseConfig)
    """When a replica counts as hung."""

    def __post_init__(self) -> None:
        if self.gpus is not None and self.gpus < 0:
            raise ValueError("gpus must be 0 or more")
        for name in ("replicas", "cpus", "attempts"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be positive")


@settings
class TrainConfig:
    """How many workers train together, and what each takes."""

    workers: int = 2
    """Workers that share every batch."""

    cpus: float = 1.0
    """CPUs of one worker."""

    gpus: float = 0.0
    """GPUs of one worker; 0 trains on CPUs."""

    retries: int = 3
    """Times that all workers are started anew from the last checkpoint after one of them died."""

    when_short: Literal["refuse", "wait"] = "refuse"
    """Workers the cluster cannot hold now: refuse the run, or wait until nodes for all are there (autoscaler)."""

    def __post_init__(self) -> None:
        if self.workers < 1 or self.cpus <= 0 or self.gpus < 0 or self.retries < 0:
            raise ValueError("workers must be 1 or more, cpus positive, gpus and retries 0 or more")
