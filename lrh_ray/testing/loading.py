"""What a loader yields, as plain values that cross process borders; importable by spawned processes."""

import hashlib

from lrh_ray.store.loader import Loader


def epoch_rows(loader: Loader) -> tuple[list[list[int]], str]:
    """Row numbers of each batch from the loader's place to the end of its epoch, and a digest of all their bytes."""
    digest, batches = hashlib.sha256(), []
    for batch in loader:
        batches.append(batch.index.tolist())
        for site in loader.sites:
            digest.update(batch.rows[site].tobytes())
    return batches, digest.hexdigest()
