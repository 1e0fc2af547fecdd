"""A ring of pinned memory through which rows leave a GPU while it computes.

Copying a layer's output to ordinary memory stops the forward pass until the copy is done. Here each copy runs on a
stream of its own into page-locked memory that is allocated once; the host hands rows on when their copy has ended, and
waits for a copy only when every slot is taken. A slow sink therefore slows the forward pass, and memory stays bounded.

    ring = PinnedRing()
    ring.copy(rows, hand_over)      # `hand_over(host_rows)` is called later, in the order of the copies
    ring.drain()                    # now all have been

What can go wrong: host rows are valid during `hand_over` only; the slot is used again. An error of `hand_over` is
raised by the `copy` or `drain` that called it, and the ring is empty afterwards.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch

SLOTS = 4

HandOver: TypeAlias = Callable[[torch.Tensor], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Copy:
    """A copy under way."""

    rows: torch.Tensor
    slot: torch.Tensor
    done: torch.cuda.Event
    hand_over: HandOver


class PinnedRing:
    """Copies [rows, feature] tensors from one GPU to the host, at most `slots` at a time."""

    def __init__(self, slots: int = SLOTS) -> None:
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._free = [torch.empty(0, dtype=torch.uint8, pin_memory=True) for _ in range(slots)]
        self._copies: deque[_Copy] = deque()

    def copy(self, rows: torch.Tensor, hand_over: HandOver) -> None:
        """Begin to copy contiguous `rows`; when all slots are taken, first hand over the oldest copy."""
        if not self._free:
            self._finish_oldest()
        slot = self._slot(rows.numel() * rows.element_size())
        host = slot[: rows.numel() * rows.element_size()].view(rows.dtype).view(rows.shape)
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            host.copy_(rows, non_blocking=True)
            rows.record_stream(self._stream)  # its memory is not given to others before the copy has ended
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record()
        self._copies.append(_Copy(rows=host, slot=slot, done=done, hand_over=hand_over))

    def drain(self) -> None:
        """Hand over every copy."""
        while self._copies:
            self._finish_oldest()

    def _slot(self, num_bytes: int) -> torch.Tensor:
        slot = self._free.pop()
        if slot.numel() >= num_bytes:
            return slot
        return torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)  # grows to the largest batch, then stays

    def _finish_oldest(self) -> None:
        copy = self._copies.popleft()
        copy.done.synchronize()
        try:
            copy.hand_over(copy.rows)
        except BaseException:
            for other in self._copies:
                other.done.synchronize()
                self._free.append(other.slot)
            self._copies.clear()
            raise
        finally:
            self._free.append(copy.slot)
