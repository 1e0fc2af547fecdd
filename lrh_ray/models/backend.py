"""Backends: blocks of tokens go in, rows of activations come out through a sink.

A backend holds one loaded model and the sites it was opened for. It is told nothing about where rows go or what they
are for; whoever runs it hands over a sink per block.

    with closing(open_backend(checkpoint, ModelConfig(name="smollm2"), sites)) as backend:
        rows = backend.forward(block, sink)

What can go wrong: two runs of one block need not give the same bits. `BackendFacts.repeatable` says what may be
relied on: `bytes` (same block, same bytes, on the same kind of machine with the same number of threads) or `values`
(same rows within the tolerance of the parity certificate).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lrh_ray.models.checkpoints import Checkpoint
from lrh_ray.models.config import ModelConfig
from lrh_ray.models.sink import RowSink
from lrh_ray.models.wanted import Wanted
from lrh_ray.records import SiteSpec, TokenBatch


@dataclass(frozen=True, kw_only=True, slots=True)
class BackendFacts:
    """How the rows of a backend are made, for provenance."""

    engine: str
    version: str
    dtype: Literal["bfloat16", "float16", "float32"]
    compute: Literal["bfloat16", "float16", "float32"]
    """The number format of the forward pass; rows are rounded to `dtype`."""
    device: str
    repeatable: Literal["bytes", "values"]
    attention: str


class Backend(ABC):
    """One loaded model that delivers rows of fixed sites."""

    @abstractmethod
    def describe(self) -> BackendFacts:
        """How this backend makes its rows."""

    @abstractmethod
    def forward(self, block: TokenBatch, sink: RowSink, wanted: Wanted | None = None) -> int:
        """Write the rows of every site: sequence s of the block goes to rows `starts[s]:starts[s + 1]`.

        With `wanted`, [tokens] bool, rows of other tokens are left out, before they are copied. Returns the number of
        rows written to each site. Sequences never see one another. Errors of the sink pass through unchanged.
        """

    @abstractmethod
    def close(self) -> None:
        """Release the model; the backend cannot be used afterwards."""


def open_backend(checkpoint: Checkpoint, config: ModelConfig, sites: Sequence[SiteSpec]) -> Backend:
    """Load the model for `sites` with the engine that `config` names.

    Raises:
        SiteError: The engine does not give one of the sites; the message names one that does.
        EngineFailed: vLLM did not start.
    """
    if config.engine == "vllm":
        from lrh_ray.models.vllm.backend import VllmBackend

        return VllmBackend(checkpoint, config, sites)
    from lrh_ray.models.hf import TransformersBackend

    return TransformersBackend(checkpoint, config, sites)
