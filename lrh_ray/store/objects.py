"""Put-if-absent: the only way in which anything of a store becomes visible.

Keys are paths. An object is created whole, with synced bytes and a synced name, or it exists already; it is never
replaced. `os.link` must be atomic, which POSIX file systems and NFS promise; a file system without hard links is a
`PathUnusable` at the first use.
"""

import os
import uuid
from pathlib import Path

from lrh_ray.durable import disk_errors, make_folder, sync_folder, write_durably
from lrh_ray.errors import StoreCorrupt


def put_if_absent(path: Path, data: bytes) -> bool:
    """Create `path` with `data`, whole and durable, or return False if it exists.

    An exception, or False from a file system that repeats requests (NFS), does not prove that nothing was created:
    whoever needs to know reads the object back.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    with disk_errors(path.name):
        make_folder(path.parent)
        try:
            write_durably(temporary, data)
            os.link(temporary, path)
            sync_folder(path.parent)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
    return True


def put_same(path: Path, data: bytes) -> None:
    """Create `path` with `data`; an existing file must hold the same bytes (a repeated, deterministic write).

    Raises:
        StoreCorrupt: It holds other bytes.
    """
    if not put_if_absent(path, data) and path.read_bytes() != data:
        raise StoreCorrupt(
            f"{path} exists with other content than this plan produces. It was changed by hand or is half of another "
            f"program's work; move the store aside and repeat the command."
        )
