"""Labels added to a store after it was written: no model, no rows, only characters.

A sidecar is one object, put if absent; readers find the tokens of a span by their character offsets. A record beside it
keeps its digest, so that `lrh verify` finds damage.
"""

from pathlib import Path

from lrh_ray.records import Plain
from lrh_ray.store.labelling import add_sidecar
from lrh_ray.store.objects import Location
from lrh_ray.store.reader import open_store
from lrh_ray.text.annotations import read_annotations


def add_labels(location: Location, path: Path, *, name: str | None = None) -> dict[str, Plain]:
    """Add the labels of a JSON Lines file as a sidecar; its name is the file's unless given. Repeating it is no change.

    Raises:
        CorpusError: A line that cannot be used, or labels for documents the store does not have.
        StoreConflict: The store has other labels of this name.
    """
    store = open_store(location)
    texts = dict(zip(store.document_ids, store.texts, strict=True))
    concepts, documents = read_annotations(path, texts)
    chosen = path.stem if name is None else name
    digest = add_sidecar(store.parts[0].objects, chosen, concepts, documents)
    spans = sum(len(document.spans) for document in documents)
    return {
        "store": store.location,
        "labels": chosen,
        "concepts": [concept.name for concept in concepts],
        "documents": len(documents),
        "spans": spans,
        "digest": digest,
    }
