"""What a plan tells: the questions on the command line, and the estimate that answers them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lrh_ray.models.costs import DeviceMemory, Speed


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Where the run shall run; without a GPU type it is this machine's CPU, measured."""

    gpu: str | None = None
    """A name of `lrh_ray.models.costs.GPUS`."""
    gpus: int = 1
    """GPUs in all, over all nodes."""
    sink_gbs: float | None = None
    """10^9 bytes per second that the store's place takes from all writers together; None: measured, or assumed."""
    utilisation: float | None = None
    """Share of the GPUs' peak operations that a forward pass reaches; None: the engine's usual one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HostMemory:
    """Bytes in the memory of a worker's host."""

    process: int
    """Python, torch and Ray, before a weight is there."""
    weights: int
    activations: int
    ring: int
    """Rows on their way from device to writer."""
    buffers: int
    """Chunks of the store that have begun and are not full."""

    @property
    def total(self) -> int:
        return self.process + self.weights + self.activations + self.ring + self.buffers


@dataclass(frozen=True, kw_only=True, slots=True)
class Duration:
    """Seconds: loading, the blocks, the comparison with a plain float32 forward."""

    start: float
    blocks: float
    certificate: float

    @property
    def total(self) -> float:
        return self.start + self.blocks + self.certificate


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """How long, how much memory, what limits it."""

    engine: str
    device: str
    replicas: int
    tensor_parallel: int
    parameters: int
    parameters_run: int
    depth: int
    flops_per_token: float
    row_bytes: int
    speed: Speed
    duration: Duration
    device_memory: DeviceMemory | None
    device_limit: int | None
    host_memory: HostMemory
    host_limit: int | None
    disk_limit: int | None
    assumed: tuple[str, ...]

    def as_plain(self) -> Mapping[str, Any]:
        """JSON; sums and the bottleneck are written out."""
        plain = asdict(self)
        plain["speed"] |= {
            "tokens_per_second": self.speed.tokens_per_second,
            "bottleneck": self.speed.bottleneck,
            "r_max": self.speed.r_max,
        }
        plain["duration"]["total"] = self.duration.total
        plain["host_memory"]["total"] = self.host_memory.total
        if self.device_memory is not None:
            plain["device_memory"]["total"] = self.device_memory.total
        return plain
