"""The connector: vLLM's captured hidden states leave its cache window by window, through each rank's ring.

vLLM's method `extract_hidden_states` writes the residual stream after chosen blocks into a paged cache of its own;
a connector is told when a request is over and takes the rows from there. The one vLLM ships is for debugging: rank 0
alone copies, each request allocates page-locked memory, the gather of a long document is unbounded, a failed write is
only logged, and on a CPU it does not run at all. This one gathers fixed windows, selects positions before the copy,
sends each rank's share of the columns, and sends failures too.

    kv_transfer_config = {"kv_connector": "RowsConnector", "kv_role": "kv_producer",
                          "kv_connector_module_path": "lrh_ray.models.vllm.connector",
                          "kv_connector_extra_config": {"rows": share_options.plain()}}
    extra_args = {"kv_transfer_params": {"rows": {"request": 7, "positions": None}}}

The copy runs in a thread of the worker, on a stream of its own, while the engine goes on; the blocks of the cache are
freed when it is done. What can go wrong: the base class is documented as an example, so its shape may change with a
version of vLLM; the tests of this backend are the guard. A request that ends before all its tokens were computed is
sent as a failure.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorMetadata
from vllm.distributed.kv_transfer.kv_connector.v1.example_hidden_states_connector import ExampleHiddenStatesConnector
from vllm.distributed.parallel_state import get_tensor_model_parallel_rank

from lrh_ray.models.vllm.orphans import follow_owner
from lrh_ray.models.vllm.share import Share, open_share, share_options

follow_owner()

POLL_S = 0.001
"""How long an engine step waits for copies under way: the copying thread gets the interpreter meanwhile."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PendingRows:
    """A finished request whose rows are still in the cache."""

    request_id: str
    request: int
    token_ids: Sequence[int]
    positions: Sequence[int] | None
    block_ids: Sequence[int]
    failure: str | None


@dataclass
class RowsMetadata(KVConnectorMetadata):
    """What the scheduler tells the ranks with a step."""

    pending: list[PendingRows] = field(default_factory=list)


class RowsConnector(ExampleHiddenStatesConnector):
    """Sends the rows of finished requests into this rank's ring; one instance per rank, one in the scheduler."""

    def __init__(self, vllm_config: Any, role: Any, kv_cache_config: Any) -> None:
        super().__init__(vllm_config=vllm_config, role=role, kv_cache_config=kv_cache_config)
        self._options = share_options(self._kv_transfer_config.get_from_extra_config("rows", None))
        self._pending: list[PendingRows] = []
        self._copies: dict[str, Future[None]] = {}
        self._share: Share | None = None

    def get_finished_count(self) -> int:
        """Every rank sends, so every rank must report before the blocks are freed."""
        return self._options.ranks

    # The scheduler's side

    def build_connector_meta(self, scheduler_output: Any) -> KVConnectorMetadata:  # noqa: ARG002  # vLLM's interface
        pending, self._pending = self._pending, []
        return RowsMetadata(pending=pending)

    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        asked: Mapping[str, Any] | None = (request.kv_transfer_params or {}).get("rows")
        if asked is None:
            return False, None
        computed, needed = request.num_computed_tokens, request.num_prompt_tokens
        self._pending.append(
            PendingRows(
                request_id=request.request_id,
                request=asked["request"],
                token_ids=list(request.prompt_token_ids),
                positions=asked["positions"],
                block_ids=list(block_ids),
                failure=_failure(computed, needed, asked["positions"]),
            )
        )
        return True, None

    # The ranks' side

    def register_kv_caches(self, kv_caches: dict[str, torch.Tensor]) -> None:
        super().register_kv_caches(kv_caches)
        device = kv_caches[self.cache_layers[0]].device
        self._share = open_share(self._options, get_tensor_model_parallel_rank(), device)

    def wait_for_save(self) -> None:
        """Rows leave when their request is over; there is nothing to wait for."""

    def get_finished(self, finished_req_ids: set[str]) -> tuple[set[str] | None, set[str] | None]:  # noqa: ARG002
        if self.has_connector_metadata():
            metadata = self._get_connector_metadata()
            if isinstance(metadata, RowsMetadata) and metadata.pending and self._share is not None:
                ready = self._share.ready_event()
                for pending in metadata.pending:
                    copy = self._executor.submit(self.send_rows, self._share, pending, ready)
                    self._copies[pending.request_id] = copy
        if self._copies:
            wait(self._copies.values(), timeout=POLL_S)
        done = {request_id for request_id, copy in self._copies.items() if copy.done()}
        for request_id in done:
            self._copies.pop(request_id).result()
        return done or None, None

    def send_rows(self, share: Share, pending: PendingRows, ready: Any) -> None:
        """Send a request window by window; runs in the connector's one thread, so requests keep their order."""
        if pending.failure is not None:
            share.fail(pending.request, pending.failure)
        else:
            tokens = np.asarray(pending.token_ids, dtype=np.int32)
            chosen = np.arange(len(tokens)) if pending.positions is None else np.asarray(pending.positions)
            for first in range(0, len(chosen), share.window_rows):
                positions = chosen[first : first + share.window_rows]
                share.send(
                    request=pending.request,
                    first=first,
                    token_ids=tokens[positions],
                    gather=partial(self.gather, pending.block_ids, positions),
                    ready=ready,
                )
        share.end(pending.request)

    def gather(self, block_ids: Sequence[int], positions: np.ndarray, columns: slice) -> torch.Tensor:
        """Rows of a request at `positions` from the cache, [site, row, column]."""
        cache: Any = self._kv_cache
        slots = np.asarray(block_ids)[positions // self._block_size] * self._block_size + positions % self._block_size
        index = torch.from_numpy(slots).to(cache.device)[None, :]
        sites = torch.arange(cache.shape[1], device=cache.device)[:, None]
        rows: torch.Tensor = cache[index // self._block_size, sites, index % self._block_size, columns]
        return rows


def _failure(computed: int, needed: int, positions: Sequence[int] | None) -> str | None:
    """Why a finished request has no rows; None when it has."""
    if computed < needed:
        return f"the engine stopped after {computed} of {needed} tokens"
    for position in positions or ():
        if not 0 <= position < needed:
            return f"position {position} is outside the document's {needed} tokens"
    return None
