"""Sidecars of labels: tables beside the arrays, added at any time, each with a record of its digest.

`labels/corpus.parquet` came with the text and is part of the sealed plan. Any other `labels/<name>.parquet` was added
later: the table first, then `labels/<name>.json`, which names its size and digest. A table without a record is half an
addition; adding it again finishes it.
"""

from collections.abc import Iterable, Sequence

from lrh_ray.durable import disk_errors
from lrh_ray.errors import ConfigError, StoreConflict
from lrh_ray.records import Concept, Document
from lrh_ray.store.documents import LABELS_NAME, labels_key, labels_table
from lrh_ray.store.objects import Objects
from lrh_ray.store.seal import CORPUS_LABELS, file_facts
from lrh_ray.store.stamps import stamped


def record_key(name: str) -> str:
    return f"labels/{name}.json"


def add_sidecar(objects: Objects, name: str, concepts: Sequence[Concept], documents: Iterable[Document]) -> str:
    """Add labels under a name; returns the digest of the table.

    Raises:
        ConfigError: A name that cannot name a file.
        StoreConflict: Other labels of this name are there.
    """
    if not LABELS_NAME.fullmatch(name) or name == CORPUS_LABELS:
        raise ConfigError(
            f"Labels cannot be named {name!r}: letters, digits, '.', '-', '_', at most 100; "
            f"{CORPUS_LABELS!r} are those that came with the text."
        )
    data = labels_table(concepts, documents)
    with disk_errors(labels_key(name)):
        standing = objects.get(labels_key(name)) if objects.put(labels_key(name), data) is None else None
        if standing is not None and standing.data != data:
            raise StoreConflict(f"{objects.location!r} has other labels {name!r} already. Choose another name.")
        facts = file_facts(objects, labels_key(name))
        objects.put(record_key(name), stamped({"name": name, **facts}))
    return str(facts["digest"])
