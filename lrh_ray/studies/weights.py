"""Weights on every node, once: which folder a model's name means here, and whether it holds what was planned.

    checkpoint = find_checkpoint(config.model)                   # a prepared model, a folder, a hub id, a URL
    checkpoint = checkpoint_here(checkpoint, config.model, digest)   # on the node of a worker

A folder on a shared path and the hub's own cache are used as they are. A prefix of an object store
(`s3://bucket/models/llama`) is copied to the cache folder of the node, by the first process that asks; the others wait
for it, and then all share the files through the page cache. A copy that was interrupted goes on where it stopped.

Every node compares the digest of its files with the plan's before it computes: the same name need not mean the same
bytes everywhere. Reading them all takes a while once; the digest is remembered under sizes and times of change.

What can go wrong: `CheckpointMissing` (this node does not have the folder, or the prefix is empty), `CheckpointBroken`
(the node has other weights, or the prefix is no checkpoint).
"""

import fcntl
import json
import os
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

from lrh_ray.digests import digest_json
from lrh_ray.durable import disk_errors
from lrh_ray.errors import CheckpointBroken, CheckpointMissing
from lrh_ray.models.checkpoints import (
    CHECKPOINT,
    DESCRIPTION,
    Checkpoint,
    cache_folder,
    checkpoint_digest,
    checkpoint_in,
    resolve_checkpoint,
    resolve_description,
    with_weights,
)
from lrh_ray.models.config import ModelConfig
from lrh_ray.models.known import known_checkpoint, known_name
from lrh_ray.store.objects import Entry, Objects, open_objects
from lrh_ray.studies.progress import Progress, Silent

PIECE = 64 << 20
REQUESTS = 8
"""Ranges that are fetched at once."""
COPIED = "copied.json"
"""Sizes of the files that are whole, beside them."""


def find_checkpoint(config: ModelConfig, progress: Progress | None = None) -> Checkpoint:
    """The checkpoint that a model's settings name, on this node; a URL is copied here first.

    Raises:
        CheckpointMissing: No such model.
        CheckpointBroken: Not a safetensors checkpoint.
    """
    if "://" not in config.name:
        return resolve_checkpoint(config.name, config.weights)
    copy = checkpoint_in(copied(config.name, progress or Silent()), config.name)
    return with_weights(copy, config.weights)


def find_description(name: str) -> Checkpoint:
    """What describes a model, known architectures included; nothing but its config.json is fetched.

    Raises:
        UnknownName, CheckpointMissing: No such model.
    """
    if known_name(name):
        return known_checkpoint(name)
    if "://" not in name:
        return resolve_description(name)
    return checkpoint_in(copied(name, Silent(), DESCRIPTION), name, DESCRIPTION)


def checkpoint_here(checkpoint: Checkpoint, config: ModelConfig, digest: str) -> Checkpoint:
    """The planned weights on the node of this process; `checkpoint` is where the driver found them."""
    try:
        here = checkpoint if checkpoint.path.is_dir() else find_checkpoint(config)
    except CheckpointMissing as error:
        raise CheckpointMissing(
            f"The node {socket.gethostname()} has no weights of {config.name!r}. Put them on a path that all nodes "
            f"share, or name a hub id or a prefix of an object store. ({error})"
        ) from error
    if (found := checkpoint_digest(here)) != digest:
        raise CheckpointBroken(
            f"The weights of {config.name!r} on the node {socket.gethostname()} ({here.path}) have the digest {found}, "
            f"and the plan was made for {digest}. Copy the right ones there, or use a shared path."
        )
    return here


def copied(url: str, progress: Progress, files: Sequence[str] = CHECKPOINT) -> Path:
    """The folder of this node that holds the `files` (patterns) of the checkpoint at `url`, made if need be."""
    objects = open_objects(url)
    here = [entry for entry in objects.list("") if "/" not in entry.key]
    wanted = [entry for entry in here if any(fnmatch(entry.key, pattern) for pattern in files)]
    if not wanted:
        raise CheckpointMissing(f"There is no checkpoint at {url!r}: no config.json and no *.safetensors.")
    folder = cache_folder() / "copies" / f"{url.rstrip('/').rpartition('/')[2]}-{digest_json(url)[:12]}"
    with disk_errors(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder.with_name(folder.name + ".lock")):
            _copy(objects, folder, wanted, progress)
    return folder


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process of this node at a time; a process that dies lets go."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _copy(objects: Objects, folder: Path, wanted: list[Entry], progress: Progress) -> None:
    record = folder / COPIED
    whole: dict[str, int] = json.loads(record.read_bytes()) if record.is_file() else {}
    missing = [entry for entry in wanted if whole.get(entry.key) != entry.num_bytes]
    if not missing:
        return
    progress.begin(f"copying weights from {objects.location}", sum(entry.num_bytes for entry in missing), "bytes")
    with ThreadPoolExecutor(REQUESTS) as requests:
        for entry in missing:
            fresh = folder / f".{entry.key}"
            with fresh.open("wb") as file:
                starts = range(0, entry.num_bytes, PIECE)
                for num_bytes in requests.map(partial(_fetch, objects, entry, file.fileno()), starts):
                    progress.advance(num_bytes)
            fresh.replace(folder / entry.key)
            whole[entry.key] = entry.num_bytes
            fresh.write_text(json.dumps(whole))
            fresh.replace(record)


def _fetch(objects: Objects, entry: Entry, descriptor: int, start: int) -> int:
    num_bytes = min(PIECE, entry.num_bytes - start)
    found = objects.get(entry.key, start, num_bytes)
    if found is None or len(found.data) != num_bytes:
        raise CheckpointBroken(f"{entry.key} at {objects.location!r} changed while it was copied; repeat the command.")
    os.pwrite(descriptor, found.data, start)
    return num_bytes
