"""Whole objects in pieces: digests without holding the bytes."""

from dataclasses import dataclass

from blake3 import blake3

from lrh_ray.digests import DIGEST_LENGTH
from lrh_ray.store.objects import Objects

PIECE_BYTES = 8 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Digested:
    """Size of an object and digest of its bytes."""

    num_bytes: int
    digest: str


def digest_object(objects: Objects, key: str, most: int | None = None) -> Digested | None:
    """Size and digest of an object, None if there is none; memory for one piece at a time.

    An object of more than `most` bytes is not read: its digest is "".
    """
    hasher, start = blake3(), 0
    found = objects.get(key, 0, PIECE_BYTES if most is None else min(most, PIECE_BYTES))
    if found is None:
        return None
    num_bytes = found.num_bytes
    if most is not None and num_bytes > most:
        return Digested(num_bytes=num_bytes, digest="")
    while found is not None and found.data:
        hasher.update(found.data)
        start += len(found.data)
        found = objects.get(key, start, PIECE_BYTES) if start < num_bytes else None
    return Digested(num_bytes=num_bytes, digest=hasher.hexdigest()[:DIGEST_LENGTH])
