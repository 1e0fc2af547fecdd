"""Fewer documents, spread evenly over all of them.

The head of a corpus is one source, and a fixed step can fall in step with the order of classes. So a corpus is cut into
as many equal runs as documents are wanted, and each run gives the document whose hashed id is lowest.
"""

from collections.abc import Sequence
from itertools import pairwise

from lrh_ray.digests import digest_bytes
from lrh_ray.records import Document


def spread(documents: Sequence[Document], limit: int | None) -> tuple[Document, ...]:
    """One document of each of `limit` equal runs, in order: the one whose hashed id is lowest. None keeps all."""
    if limit is None or limit >= len(documents):
        return tuple(documents)
    borders = [run * len(documents) // limit for run in range(limit + 1)]
    runs = (documents[start:end] for start, end in pairwise(borders))
    return tuple(min(run, key=lambda document: digest_bytes(document.id.encode())) for run in runs)
