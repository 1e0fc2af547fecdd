"""The few operations on stored objects that the commit protocol needs, in their POSIX form.

Everything above speaks of keys relative to the store's root. `put_if_absent` is the only way in which anything becomes
visible: it either creates the whole object or finds that one exists. It never replaces. Durable means: the data is
synced before the name appears, the folder after.

What can go wrong: a full disk is a `StoreFull`, raised before anything became visible. `os.link` must be atomic, which
POSIX file systems and NFS promise; file systems without hard links are refused by the first `put_if_absent`.
"""

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from lrh_ray.errors import StoreCorrupt, StoreFull

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Turn "no space" from the operating system into a `StoreFull` that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise StoreFull(
            f"No space left while writing {what} ({os.strerror(error.errno or 0)}). Nothing committed is lost: "
            f"free some space or choose another folder, then repeat the same command; it resumes."
        ) from error


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, data: bytes) -> None:
    """Write a new file and sync its bytes; the caller makes its name durable."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fdatasync(file.fileno())


def link_if_absent(source: Path, target: Path) -> bool:
    """Give a synced file its final name. False if the name is taken; the source stays either way."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    sync_folder(target.parent)
    return True


def put_if_absent(path: Path, data: bytes) -> bool:
    """Create `path` with `data`, whole and durable, or return False if it exists."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    with disk_errors(path.name):
        try:
            write_durably(temporary, data)
            return link_if_absent(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def put_same(path: Path, data: bytes) -> None:
    """Create `path` with `data`; an existing file must hold the same bytes (a repeated, deterministic write)."""
    if not put_if_absent(path, data) and path.read_bytes() != data:
        raise StoreCorrupt(
            f"{path} exists with other content than this plan produces. It was changed by hand or is half of another "
            f"program's work; move the store aside and repeat the command."
        )
