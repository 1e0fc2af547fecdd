"""The rings of all ranks of a replica, joined into windows of full-width rows.

Every rank sends the same sequence of windows, each its share of the columns. The reader takes the oldest record of
every ring; where they agree it is a window, which one rank delivers without a copy and several ranks side by side in
a buffer that is reused. A request with a failed window on one rank is void: what the others send of it is dropped.

    for event in ReplicaRings(readers, options).events(num_requests, idle):
        match event: Window(...) -> rows of one request;  Ended(...) -> with a reason, if it failed

What can go wrong: ranks that disagree about the sequence of windows are `EngineFailed`, never rows.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from lrh_ray.errors import EngineFailed
from lrh_ray.models.vllm.ring import Kind, Record, RingReader, wait_for


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """Rows `first : first + n` of a request, [site, row, feature], valid until the next event."""

    request: int
    first: int
    tokens_crc32c: int
    rows: np.ndarray


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """A request is over; `failure` says why it is void, or is None."""

    request: int
    failure: str | None


@final
class ReplicaRings:
    """Reads all ranks in step."""

    def __init__(self, readers: Sequence[RingReader], *, sites: int, window_rows: int, dtype: np.dtype) -> None:
        self._readers, self._sites, self._dtype = readers, sites, dtype
        self._window_rows = window_rows
        self._joined: np.ndarray | None = None

    def events(self, num_requests: int, idle: Callable[[float], None]) -> Iterator[Window | Ended]:
        """Windows and ends of `num_requests` requests; `idle(seconds)` is called while nothing arrives, may raise."""
        failures: dict[int, str] = {}
        while num_requests:
            records = self._oldest(idle)
            request = _agreed_request(records)
            for reason in _reasons(records):
                failures.setdefault(request, reason)
            if records[0].kind is Kind.END:
                num_requests -= 1
                yield Ended(request=request, failure=failures.pop(request, None))
            elif request not in failures:
                yield self._window(records)
            for reader in self._readers:
                reader.release()

    def _oldest(self, idle: Callable[[float], None]) -> list[Record]:
        found: list[Record | None] = [None] * len(self._readers)

        def all_there() -> bool:
            for rank, reader in enumerate(self._readers):
                if found[rank] is None:
                    found[rank] = reader.peek()
            return None not in found

        wait_for(all_there, idle)
        return [record for record in found if record is not None]

    def _window(self, records: Sequence[Record]) -> Window:
        shares = [self._typed(record) for record in records]
        rows = shares[0] if len(shares) == 1 else self._side_by_side(shares)
        lead = records[0]
        return Window(request=lead.request, first=lead.first, tokens_crc32c=lead.tokens_crc32c, rows=rows)

    def _typed(self, record: Record) -> np.ndarray:
        return record.payload.view(self._dtype).reshape(self._sites, record.rows, -1)

    def _side_by_side(self, shares: Sequence[np.ndarray]) -> np.ndarray:
        width, num_rows = sum(share.shape[2] for share in shares), shares[0].shape[1]
        if self._joined is None:
            self._joined = np.empty(self._sites * self._window_rows * width, dtype=self._dtype)
        joined = self._joined[: self._sites * num_rows * width].reshape(self._sites, num_rows, width)
        np.concatenate(shares, axis=2, out=joined)
        return joined


def _agreed_request(records: Sequence[Record]) -> int:
    places = {(one.request, one.first, one.rows, one.tokens_crc32c, one.kind is Kind.END) for one in records}
    if len(places) > 1:
        raise EngineFailed(
            f"The {len(records)} ranks of the engine sent different windows {sorted(places)}; the engine is restarted "
            "with the next attempt."
        )
    return records[0].request


def _reasons(records: Sequence[Record]) -> list[str]:
    return [
        f"rank {rank}: {record.payload.tobytes().decode('utf-8', errors='replace')}"
        for rank, record in enumerate(records)
        if record.kind is Kind.FAILURE
    ]
