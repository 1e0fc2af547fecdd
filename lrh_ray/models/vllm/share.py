"""The rank's side of a capture: rows are gathered window by window, checked, and copied into the rank's ring.

All ranks of a tensor-parallel engine hold the same full-width rows, so each sends only its share of the columns: the
copy out of the devices then uses every link instead of one. A window is gathered on the device, looked through for
values that are not finite, and copied to a slot that is page-locked once; nothing is allocated per request on the host.

    share = open_share(options, rank, device)
    share.send(request=3, first=0, token_ids=ids[0:256], gather=lambda columns: cache[..., columns])
    share.end(3)

What can go wrong: whatever fails while a window is made, values that are not finite included, is sent as a FAILURE in
the window's place: one bad window costs an attempt at its block, not the engine.
"""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from lrh_ray.errors import EngineFailed
from lrh_ray.models.vllm.ring import MAX_REASON_BYTES, Kind, RingShape, RingWriter, tokens_crc32c


@dataclass(frozen=True, kw_only=True, slots=True)
class ShareOptions:
    """What every rank must know; travels to vLLM's processes as plain JSON."""

    folder: str
    width: int
    ranks: int
    dtype: str
    shape: RingShape

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def share_options(plain: Mapping[str, Any]) -> ShareOptions:
    return ShareOptions(**{**plain, "shape": RingShape(**plain["shape"])})


def ring_path(folder: Path, rank: int) -> Path:
    return folder / f"rank{rank}"


def columns_of(rank: int, *, width: int, ranks: int) -> slice:
    """The columns a rank sends. Shares differ by one column at most when `ranks` does not divide `width`."""
    return slice(width * rank // ranks, width * (rank + 1) // ranks)


def open_share(options: ShareOptions, rank: int, device: torch.device) -> "Share":
    """Open the rank's ring; on a GPU its memory is page-locked once."""
    return Share(options, rank, device)


@final
class Share:
    """One rank's columns on their way into its ring."""

    def __init__(self, options: ShareOptions, rank: int, device: torch.device) -> None:
        self._ring = RingWriter(ring_path(Path(options.folder), rank), options.shape)
        self._columns = columns_of(rank, width=options.width, ranks=options.ranks)
        self._dtype: torch.dtype = getattr(torch, options.dtype)
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        if self._stream is not None:
            _pin(self._ring.memory)

    @property
    def window_rows(self) -> int:
        return self._ring.shape.window_rows

    def ready_event(self) -> Any:
        """A mark on the current stream that `send` waits for; None where there are no streams."""
        if self._stream is None:
            return None
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        return event

    def send(
        self,
        *,
        request: int,
        first: int,
        token_ids: np.ndarray,
        gather: Callable[[slice], torch.Tensor],
        ready: Any = None,
    ) -> None:
        """Send rows `first : first + len(token_ids)` of a request, or the reason why they cannot be had.

        `gather(columns)` returns them as [site, row, column] on the device.
        """
        payload = self._ring.slot()
        try:
            kind, num_bytes = Kind.ROWS, self._fill(payload, gather, ready)
        except Exception as error:  # noqa: BLE001  # whatever it is, it must fail this request and not the engine
            kind, num_bytes = Kind.FAILURE, _write_text(payload, _reason(error, first, len(token_ids)))
        self._ring.publish(
            kind,
            request=request,
            first=first,
            rows=len(token_ids),
            num_bytes=num_bytes,
            tokens_crc32c=tokens_crc32c(token_ids),
        )

    def fail(self, request: int, reason: str) -> None:
        """The request is void, without any rows; `end` must follow."""
        num_bytes = _write_text(self._ring.slot(), reason)
        self._ring.publish(Kind.FAILURE, request=request, num_bytes=num_bytes)

    def end(self, request: int) -> None:
        """All windows of the request are sent."""
        self._ring.slot()
        self._ring.publish(Kind.END, request=request)

    def _fill(self, payload: np.ndarray, gather: Callable[[slice], torch.Tensor], ready: Any) -> int:
        """Copy a window into a slot and return its bytes; complete and checked when this returns."""
        with self._copying(ready):
            window = gather(self._columns)
            finite = torch.isfinite(window).all()
            num_bytes = window.numel() * window.element_size()
            slot = torch.frombuffer(payload[:num_bytes], dtype=self._dtype).view(window.shape)
            slot.copy_(window, non_blocking=True)
        if self._stream is not None:
            self._stream.synchronize()
        if not bool(finite):
            raise EngineFailed(
                "values are not finite. In float16 large activations overflow: use dtype: bfloat16 or float32"
            )
        return num_bytes

    def _copying(self, ready: Any) -> contextlib.AbstractContextManager[Any]:
        """On a GPU: a stream of its own that begins after `ready`, so that copies overlap with the next forward."""
        if self._stream is None:
            return contextlib.nullcontext()
        if ready is None:
            self._stream.wait_stream(torch.cuda.current_stream())
        else:
            self._stream.wait_event(ready)
        return torch.cuda.stream(self._stream)


def _reason(error: Exception, first: int, rows: int) -> str:
    return f"rows {first} to {first + rows - 1} of a document: {type(error).__name__}: {error}"


def _write_text(payload: np.ndarray, text: str) -> int:
    encoded = np.frombuffer(text.encode("utf-8")[:MAX_REASON_BYTES], dtype=np.uint8)
    payload[: len(encoded)] = encoded
    return len(encoded)


def _pin(memory: np.ndarray) -> None:
    """Page-lock shared memory once, so that device copies into it are direct; `pin_memory` would copy it elsewhere."""
    runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    status = runtime.cudaHostRegister(memory.ctypes.data, memory.nbytes, 0)
    if int(status) != 0:
        raise EngineFailed(
            f"CUDA cannot page-lock the ring of {memory.nbytes} bytes (error {int(status)}); lower vllm.ring_mib."
        )
