"""Lines of an object, without holding the object."""

from collections.abc import Iterator

from lrh_ray.errors import StoreCorrupt
from lrh_ray.store.objects import Objects
from lrh_ray.store.stamps import MAX_BYTES

PIECE_BYTES = 4 << 20


def read_lines(objects: Objects, key: str) -> Iterator[bytes]:
    """Lines with their newlines (the last may lack it); nothing if there is no such object.

    Raises:
        StoreCorrupt: A line longer than any record of a store.
    """
    start, left = 0, b""
    while True:
        found = objects.get(key, start, PIECE_BYTES)
        if found is None or not found.data:
            break
        start += len(found.data)
        lines = _split(left + found.data)
        left = b"" if lines[-1].endswith(b"\n") else lines.pop()
        yield from lines
        if len(left) > MAX_BYTES:
            raise StoreCorrupt(f"{key} has a line of more than {MAX_BYTES} bytes, more than any record of a store.")
        if start >= found.num_bytes:
            break
    if left:
        yield left


def _split(data: bytes) -> list[bytes]:
    """At newlines only."""
    parts = data.split(b"\n")
    return [part + b"\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])
