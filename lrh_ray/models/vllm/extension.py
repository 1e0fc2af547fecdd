"""The extension: forward hooks inside vLLM's workers, for sites that its own capture does not give.

vLLM mixes this class into its worker, so that the backend can call `rows_start` on every rank by name. Hooks read what
attention and the MLP add to the stream, and the stream itself; they fire in eager mode only. A step of the engine runs
pieces of several documents end to end: the batch's query starts say which rows are whose, and each piece is sent as
soon as the step is over.

    LLM(..., enforce_eager=True, worker_extension_cls="lrh_ray.models.vllm.extension.RowsExtension")
    llm.collective_rpc("rows_start", args=(share_options.plain(), ["attn_out.1", "resid.1"], "llama"))

vLLM's blocks carry the stream in two parts: it is `hidden + residual`. Values are cloned where they are seen, because
the fused norm that follows overwrites them.

What can go wrong: a document that the engine preempts is computed again from its start; rows that were already sent
are not sent twice. A module that the forward pass does not use gives no rows, which fails the request.
"""

import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, final

import numpy as np
import torch
from vllm.distributed.parallel_state import get_tensor_model_parallel_rank

from lrh_ray.models.vllm.orphans import follow_owner
from lrh_ray.models.vllm.routes import Layout, layout_of
from lrh_ray.models.vllm.share import Share, open_share, share_options
from lrh_ray.vector_math import settle_vector_math

follow_owner()
settle_vector_math()

STREAM = ("hidden_states", "residual")
"""The two arguments whose sum is the residual stream."""


class RowsExtension:
    """Mixed into vLLM's worker by both routes; its attributes must not clash with the worker's."""

    def rows_start(self, options: Mapping[str, Any], sites: Sequence[str], family: str) -> None:
        """Put the hooks on this rank's model; called once, when the engine has started."""
        worker: Any = self
        share = open_share(share_options(options), get_tensor_model_parallel_rank(), worker.device)
        HookCapture(worker.model_runner, share, sites, layout_of(family))

    def rows_attention(self) -> str:
        """Names of the attention backends of this rank's layers, the cache of captured rows left out."""
        worker: Any = self
        layers = worker.vllm_config.compilation_config.static_forward_context.values()
        names = {layer.get_attn_backend().get_name() for layer in layers if hasattr(layer, "get_attn_backend")}
        return ", ".join(sorted(names - {"CACHE_ONLY_ATTN"}))


@final
class HookCapture:
    """Hooks on one rank's model, and the rows of the step under way. The model's hooks keep it alive."""

    def __init__(self, runner: Any, share: Share, sites: Sequence[str], layout: Layout) -> None:
        self._runner, self._share, self._sites = runner, share, sites
        self._seen: dict[str, torch.Tensor] = {}
        self._sent: dict[str, int] = {}
        model = runner.get_model()
        for site in sites:
            self._listen(site, model.model, layout)
        model.register_forward_hook(self._step_over)

    def _listen(self, site: str, base: torch.nn.Module, layout: Layout) -> None:
        kind, _, number = site.partition(".")
        layers: Any = base.layers
        if kind == "resid":
            k = int(number)
            block: Any = layers[k] if k < len(layers) else base.norm
            block.register_forward_pre_hook(self._stream_hook(site, block), with_kwargs=True)
        elif kind in ("embed", "final_norm"):
            module: Any = base.embed_tokens if kind == "embed" else base.norm
            module.register_forward_hook(self._output_hook(site))
        else:
            path = layout.attn_out if kind == "attn_out" else layout.mlp_out
            layers[int(number) - 1].get_submodule(path).register_forward_hook(self._output_hook(site))

    def _output_hook(self, site: str) -> Any:
        def hook(_module: object, _args: object, output: Any) -> None:
            self._seen[site] = (output[0] if isinstance(output, tuple) else output).clone()

        return hook

    def _stream_hook(self, site: str, module: torch.nn.Module) -> Any:
        """`hidden + residual` where it enters a block or the final norm."""
        names = [name for name in inspect.signature(module.forward).parameters if name in STREAM or name == "positions"]
        order = names if set(STREAM) <= set(names) else list(STREAM)  # a norm takes the two, by any name

        def hook(_module: object, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            given = {**dict(zip(order, args, strict=False)), **named}
            hidden, residual = given[STREAM[0]], given.get(STREAM[1])
            self._seen[site] = hidden.clone() if residual is None else hidden + residual

        return hook

    def _step_over(self, _module: object, _args: object, _output: object) -> None:
        """Send the rows of every request of the step, in the order of the batch, which all ranks share."""
        batch = self._runner.input_batch
        starts = self._runner.query_start_loc.np
        for index, request_id in enumerate(batch.req_ids):
            state = self._runner.requests[request_id]
            extra = state.sampling_params.extra_args or {}
            asked = extra.get("kv_transfer_params", {}).get("rows")
            if asked is not None:
                computed = int(batch.num_computed_tokens_cpu[index])
                first, stop = int(starts[index]), int(starts[index + 1])
                self._send(request_id, asked, np.asarray(state.prompt_token_ids, np.int32), computed, first, stop)
        self._seen.clear()

    def _send(
        self, request_id: str, asked: Mapping[str, Any], tokens: np.ndarray, computed: int, first: int, stop: int
    ) -> None:
        """Send what tokens `first : stop` of the step add to a request of which `computed` tokens were done before."""
        reached = min(computed + stop - first, len(tokens))
        chosen = np.arange(len(tokens)) if asked["positions"] is None else np.asarray(asked["positions"])
        begin = self._sent.get(request_id, 0)
        end = int(np.searchsorted(chosen, reached))
        for row in range(begin, end, self._share.window_rows):
            positions = chosen[row : min(row + self._share.window_rows, end)]
            self._share.send(
                request=asked["request"],
                first=row,
                token_ids=tokens[positions],
                gather=partial(self._gather, positions - computed + first),
            )
        self._sent[request_id] = max(begin, end)
        if reached == len(tokens):
            del self._sent[request_id]
            self._share.end(asked["request"])

    def _gather(self, places: np.ndarray, columns: slice) -> torch.Tensor:
        index = torch.from_numpy(places)
        return torch.stack([self._seen[site][index.to(self._seen[site].device), columns] for site in self._sites])
