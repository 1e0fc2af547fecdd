"""Objects in memory, of both kinds: where attempts are staged inside (POSIX) and where they are uploaded (S3).

    objects = MemoryObjects(stages=True)
    objects.put("a/b", b"1")

The protocol is explored on these, because a store must be copied a million times. They keep the promises of `Objects`
and nothing more: a tag names one version of one key (or, with `tags="content"`, one content, as S3's ETag of a plain
upload does), a move keeps the version of the file moved, and a staged file may be held by its living writer.

What can go wrong: nothing here is durable or typed as an error; faults are injected around these objects by
`lrh_ray.testing.crashes` and by `lrh_ray.testing.machines`.
"""

import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from lrh_ray.digests import digest_bytes
from lrh_ray.store.objects import Blob, Entry, Tag


class Cell(NamedTuple):
    """One version: what its tag is, and its bytes. A tuple, because explorers hash millions of them."""

    tag: Tag
    data: bytes


class MemoryObjects:
    """Objects in a dictionary.

    Args:
        stages: True: `put(key, path)` moves the object whose key is `path`; False: it uploads `scratch[str(path)]`, or
            the file at `path`.
        tags: "unique": every write has a tag of its own; "content": the tag is the digest of the bytes.
        scratch: Files of writers, by path.
    """

    def __init__(
        self,
        stages: bool,
        *,
        tags: Literal["unique", "content"] = "unique",
        scratch: Mapping[str, bytes] | None = None,
    ) -> None:
        self._stages, self._tags, self.scratch = stages, tags, dict(scratch or {})
        self.cells: dict[str, Cell] = {}
        self._writes: dict[str, int] = {}
        self._holders: dict[Tag, str] = {}
        self._lock = threading.RLock()

    @property
    def location(self) -> str:
        return "memory"

    @property
    def stages(self) -> bool:
        return self._stages

    def local_path(self, key: str) -> Path | None:
        del key
        return None

    def get(self, key: str, start: int = 0, length: int | None = None) -> Blob | None:
        with self._lock:
            cell = self.cells.get(key)
        if cell is None:
            return None
        stop = None if length is None else start + length
        return Blob(data=cell.data[start:stop], num_bytes=len(cell.data), tag=cell.tag)

    def put(self, key: str, data: bytes | Path, *, over: Tag | None = None) -> Tag | None:
        with self._lock:
            if isinstance(data, Path):
                if self._stages:
                    return self._move(data.as_posix(), key)
                data = self.scratch[str(data)] if str(data) in self.scratch else data.read_bytes()
            standing = self.cells.get(key)
            if (None if standing is None else standing.tag) != over:
                return None
            return self._write(key, data)

    def _write(self, key: str, data: bytes) -> Tag:
        self._writes[key] = self._writes.get(key, 0) + 1
        tag = Tag(digest_bytes(data) if self._tags == "content" else f"{key}#{self._writes[key]}")
        self.cells[key] = Cell(tag, data)
        return tag

    def _move(self, staged: str, key: str) -> Tag | None:
        cell = self.cells.pop(staged, None)
        if cell is None:
            return None
        self.cells[key] = cell
        return cell.tag

    def list(self, prefix: str) -> Iterator[Entry]:
        with self._lock:
            found = sorted(key for key in self.cells if not prefix or key == prefix or key.startswith(f"{prefix}/"))
            yield from [Entry(key=key, num_bytes=len(self.cells[key].data)) for key in found]

    def delete(self, key: str, *, unless: Callable[[], bool] = lambda: False) -> bool:
        held = self.hold(key, "deleter")
        if held is None:
            return False
        try:
            if unless():
                return False
            self.remove(key)
            return True
        finally:
            self.let_go(held)

    def stage(self, key: str, data: bytes, holder: str) -> None:
        """Create a staged file that its living writer holds."""
        with self._lock:
            self._holders[self._write(key, data)] = holder

    def hold(self, key: str, holder: str) -> Tag | None:
        """Lock the version at a key, as `flock` does the file behind a name; None if it is gone or held."""
        with self._lock:
            cell = self.cells.get(key)
            if cell is None or cell.tag in self._holders:
                return None
            self._holders[cell.tag] = holder
            return cell.tag

    def let_go(self, held: Tag) -> None:
        with self._lock:
            self._holders.pop(held, None)

    def remove(self, key: str) -> None:
        """Remove a name, whatever version it has by now."""
        with self._lock:
            self.cells.pop(key, None)

    def release(self, holder: str) -> None:
        """Let go of everything a writer holds: it closed its files, or it died."""
        with self._lock:
            self._holders = {tag: other for tag, other in self._holders.items() if other != holder}

    def copy(self) -> "MemoryObjects":
        """An independent store of the same state."""
        twin = MemoryObjects.__new__(MemoryObjects)
        twin._stages, twin._tags, twin.scratch, twin._lock = self._stages, self._tags, self.scratch, self._lock
        twin.cells, twin._writes, twin._holders = self.cells.copy(), self._writes.copy(), self._holders.copy()
        return twin

    def state(self) -> Hashable:
        """Equal for stores that nothing can tell apart, now or later."""
        return frozenset(self.cells.items()), frozenset(self._writes.items()), frozenset(self._holders.items())
